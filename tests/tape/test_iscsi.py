"""The emulated library over iSCSI, with our small initiator and with libiscsi's programs."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tape.changer import Changer
from tape.drive import TapeDrive
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.lun import Hang, Lun
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import PositionLost, TransportError
from tape.scsi import cdb
from tape.scsi.iscsi import Address, IscsiTransport
from tape.scsi.sense import Key, decode
from tape.scsi.transport import Status
from tape.sequential import Position
from tests.tape.libraries import Served, served, small_library


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Served]:
    before = threading.active_count()
    with served(small_library(tmp_path / "library")) as made:
        yield made
    assert threading.active_count() == before, "a session's thread outlived the target"


@pytest.fixture
def tape(library: Served) -> Iterator[IscsiTransport]:
    made = library.library
    shelf = made.shelf
    barcode = shelf.full.pop(next(iter(shelf.full)))
    made.drives[0].insert(made.cartridge(barcode))
    transport = IscsiTransport(library.target.url(1))
    yield transport
    transport.close()


def drive(transport: IscsiTransport) -> TapeDrive:
    made = TapeDrive(transport, sleep=lambda _: None)
    made.load()
    made.locate(Position(0, 0))
    return made


@pytest.mark.parametrize("size", [1, 3, 8191, 65_537, 512 << 10, (1 << 20) + 1, (3 << 20) + 5, 8 << 20])
def test_a_block_of_any_length_comes_back_as_it_was(tape: IscsiTransport, size: int) -> None:
    """Immediate alone, immediate and asked for, several bursts; lengths that need padding."""
    used = drive(tape)
    block = bytes(number * 37 % 251 for number in range(min(size, 1024))) * (size // 1024 + 1)
    block = block[:size]
    used.write(block)
    used.rewind()
    buf = memoryview(bytearray(8 << 20))
    assert used.read(buf) == size
    assert buf[:size] == block


def test_what_did_not_come_is_told_exactly(tape: IscsiTransport) -> None:
    used = drive(tape)
    used.write(b"short")
    used.rewind()
    reply = tape.execute(cdb.read(100), data_in=memoryview(bytearray(100)))
    assert (reply.status, reply.transferred) == (Status.CHECK_CONDITION, 5)
    found = decode(reply.sense)
    assert found is not None
    assert (found.ili, found.information) == (True, 95)


def test_after_an_interrupt_no_answer_is_taken_for_another(library: Served, tape: IscsiTransport) -> None:
    """Whoever is interrupted cleans up by the same way: what is left half said there must not be gone on with."""
    used = drive(tape)
    lun = library.library.drives[0]

    def before(_lun: Lun, _cdb: bytes) -> None:
        lun.before = None
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        time.sleep(0.3)

    def interrupted(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, interrupted)
    lun.before = before
    try:
        with pytest.raises(KeyboardInterrupt):
            used.write(b"a block")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert used.locate_end(0) in (Position(0, 0), Position(0, 1)), "the block is there, or it is not"


def test_each_session_is_told_of_the_reset_that_began_it(library: Served) -> None:
    first, second = (IscsiTransport(library.target.url(0)) for _ in range(2))
    for transport in (first, second):
        told = decode(transport.execute(cdb.test_unit_ready()).sense)
        assert told is not None
        assert (told.key, told.code) == (Key.UNIT_ATTENTION, (0x29, 0x00))
        assert transport.execute(cdb.test_unit_ready()).status == Status.GOOD
    first.close()
    second.close()


def test_two_drives_are_written_to_at_once_and_the_robot_asked_meanwhile(library: Served) -> None:
    for number in (0, 1):
        library.library.robot.carry(SLOTS + number, DRIVES + number)

    def written(number: int) -> list[bytes]:
        used = TapeDrive(IscsiTransport(library.target.url(1 + number)), sleep=lambda _: None)
        used.load()
        used.locate(Position(0, 0))
        blocks = [bytes((number, count % 256)) * (100_000 + count) for count in range(60)]
        for block in blocks:
            used.write(block)
        used.rewind()
        buf = memoryview(bytearray(1 << 20))
        for block in blocks:
            found = used.read(buf)
            assert isinstance(found, int)
            assert buf[:found] == block
        used.close()
        return blocks

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(written, number) for number in (0, 1)]
        with closing(Changer(IscsiTransport(library.target.url(0)), sleep=lambda _: None)) as changer:
            while not all(one.done() for one in working):
                assert sum(element.full for element in changer.elements()) == 3
        assert all(one.result() for one in working)


def test_a_command_that_hangs_is_given_up_and_the_position_looked_at_anew(
    library: Served, tape: IscsiTransport
) -> None:
    used = drive(tape)
    used.write(b"one")

    def hang(_lun: Lun, command: bytes) -> None:
        if command[0] == 0x0A:
            raise Hang

    library.library.drives[0].before = hang
    with pytest.raises(TransportError, match="0Ah did not get through: timed out"):
        tape.execute(cdb.write(3), data_out=b"two", timeout_s=0.2)
    library.library.drives[0].before = None
    assert used.expected == Position(0, 1)
    used.write(b"two")  # past the unit attention, for the tape stands where it stood
    assert used.position() == Position(0, 2)
    library.library.drives[0].rewound_by_reset()
    with pytest.raises(PositionLost):
        used.write(b"three")


def test_a_connection_that_breaks_is_made_anew_and_told_of(library: Served, tape: IscsiTransport) -> None:
    used = drive(tape)
    used.write(b"one")
    library.target.drop_sessions()
    with pytest.raises(TransportError, match="did not get through"):
        tape.execute(cdb.test_unit_ready())
    told = decode(tape.execute(cdb.test_unit_ready()).sense)
    assert told is not None
    assert told.code == (0x29, 0x07)


def test_what_is_not_there_is_refused(library: Served) -> None:
    with pytest.raises(TransportError, match="there is no such target"):
        IscsiTransport(f"iscsi://{library.target.portal}/iqn.2026-11.vcbproxy:other/0")
    stray = IscsiTransport(library.target.url(9))
    told = decode(stray.execute(cdb.test_unit_ready()).sense)
    assert told is not None
    assert told.code == (0x25, 0x00)
    stray.close()


def test_where_nobody_listens_is_said(library: Served) -> None:
    library.target.close()
    with pytest.raises(TransportError, match="connect did not get through: Connection refused"):
        IscsiTransport(library.target.url(0))


@pytest.mark.parametrize(
    "url", ["http://a/b/0", "iscsi://h/t", "iscsi:///t/0", "iscsi://h/t/x", "iscsi://h/t/256", "iscsi://h//1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"not iscsi|LUNs end"):
        Address.parse(url)


def test_an_address_is_read_and_written() -> None:
    assert str(Address.parse("iscsi://[::1]/iqn.2026-11.a:b/7")) == "iscsi://[::1]:3260/iqn.2026-11.a:b/7"


@pytest.mark.real
def test_libiscsi_finds_the_devices(library: Served) -> None:
    if shutil.which("iscsi-ls") is None:
        pytest.skip("no iscsi-ls (Debian: libiscsi-bin)")
    done = subprocess.run(
        ["iscsi-ls", "-s", f"iscsi://{library.target.portal}"], capture_output=True, text=True, check=True, timeout=30
    )
    assert [line.split("Type:")[1].split()[0] for line in done.stdout.splitlines() if "Type:" in line] == [
        "MEDIA_CHANGER",
        "SEQUENTIAL_ACCESS",
        "SEQUENTIAL_ACCESS",
    ]


# ---------------------------------------------------------------------- targets that misbehave


@contextmanager
def speaking(*answers: bytes) -> Iterator[str]:
    """A target that says the same whatever it is asked, then hangs up; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            with suppress(OSError):
                connected, _ = listening.accept()
                with connected:
                    for answer in answers:
                        connected.recv(65536)
                        connected.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            yield f"iscsi://127.0.0.1:{listening.getsockname()[1]}/iqn.2026-11.a:b/1"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def login_answer(following: int, status: bytes = b"\0\0") -> bytes:
    head = bytearray(48)
    head[0], head[1] = 0x23, 0x80 | (following - 1 if following == 1 else 1) << 2 | following
    head[36:38] = status
    return bytes(head)


LET_IN = (login_answer(1), login_answer(3))


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(60),), "login did not get through"),
        ((bytes(48),), "answered with PDU 0x00"),
        ((b"",), "closed the connection"),
        ((login_answer(1, b"\2\1"),), "wants a password"),
        ((login_answer(1, b"\x02\x05"),), "refused with 02/05"),
        ((login_answer(3),), "wants to negotiate"),
        (
            (login_answer(1), b"\x23\x87\0\0\0\0\0\x22" + bytes(40) + b"MaxRecvDataSegmentLength=plenty\0..."),
            "did not get",
        ),
    ],
)
def test_a_target_that_logs_nobody_in_is_named(answers: tuple[bytes, ...], says: str) -> None:
    with speaking(*answers) as url, pytest.raises(TransportError, match=says):
        IscsiTransport(url, login_timeout_s=5)


def pdu(operation: int, flags: int = 0x80, *, tag: int = 1, data: bytes = b"", offset: int = 0) -> bytes:
    head = bytearray(48)
    head[0], head[1] = operation, flags
    head[5:8] = len(data).to_bytes(3, "big")
    head[16:20], head[40:44] = tag.to_bytes(4, "big"), offset.to_bytes(4, "big")
    return bytes(head) + data + bytes(-len(data) % 4)


@pytest.mark.parametrize(
    "answer",
    [
        pdu(0x21, tag=7),  # of a task that is none
        pdu(0x25, 0x81, data=bytes(64), offset=200),  # data for no place
        pdu(0x31, offset=99),  # wants what is not sent
        pdu(0x3F),  # a reject
        pdu(0x32)[:36] + b"\1" + bytes(11),  # asks us to leave
        pdu(0x21)[:2] + b"\1" + pdu(0x21)[3:],  # the target failed
        pdu(0x21, data=b"\0"),  # sense data of one byte
        b"\x21\x80\0\0\0\xff\xff\xff" + bytes(40),  # a segment of 16 MiB
        b"",
    ],
)
def test_an_answer_that_cannot_be_is_an_error_and_never_data(answer: bytes) -> None:
    with speaking(*LET_IN, answer) as url:
        transport = IscsiTransport(url, login_timeout_s=5)
        buf = memoryview(bytearray(b"." * 255))
        try:
            reply = transport.execute(cdb.inquiry(255), data_in=buf, timeout_s=5)
        except TransportError:
            pass
        else:
            assert (reply.status, reply.sense) == (0, b""), "one byte of sense data is none"
        assert bytes(buf) == b"." * 255
        transport.close()


def test_an_ipv6_address_serves_as_well(tmp_path: Path) -> None:
    library = small_library(tmp_path / "library")
    try:
        target = IscsiTarget(library.luns, library.iscsi_name, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with target:
        assert target.url(0).startswith("iscsi://[::1]:")
        transport = IscsiTransport(target.url(0))
        assert transport.execute(cdb.inquiry(96), data_in=memoryview(bytearray(96))).transferred == 96
        transport.close()
