"""What an emulated drive and robot do to the letter: command by command, as programs other than ours rely on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tape import memory
from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Session
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.emulator.loop import LoopTransport
from tape.emulator.robot import DRIVES, MAIL, SLOTS
from tape.errors import MediumError, RefusedCommand, WriteProtected
from tape.memory import Id
from tape.scsi import cdb
from tape.scsi.sense import Key, Sense, decode
from tape.scsi.transport import ScsiTransport, Status
from tape.sequential import Position
from tests.tape.libraries import small_library


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    made = DriveLun("VDRV0001")
    made.insert(Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=100)))
    return made


@pytest.fixture
def raw(lun: DriveLun) -> ScsiTransport:
    transport = LoopTransport(lun)
    while transport.execute(cdb.test_unit_ready()).status != Status.GOOD:
        pass
    return transport


@pytest.fixture
def drive(lun: DriveLun) -> TapeDrive:
    made = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    made.load()
    made.locate(Position(0, 0))
    return made


def run(raw: ScsiTransport, command: bytes, *, out: bytes = b"", length: int = 0) -> tuple[bytes, Sense | None]:
    """What came, and the sense data if there were any."""
    buf = memoryview(bytearray(length))
    reply = raw.execute(command, data_out=out, data_in=buf if length else None)
    return bytes(buf[: reply.transferred]) if length else b"", decode(reply.sense)


def code(found: Sense | None) -> tuple[int, int, int]:
    assert found is not None
    return found.key, found.asc, found.ascq


def place(raw: ScsiTransport) -> tuple[int, int]:
    data, _ = run(raw, cdb.read_position(), length=32)
    return int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:16], "big")


def write(raw: ScsiTransport, *records: bytes) -> None:
    for record in records:
        _, failed = run(raw, cdb.write(len(record)), out=record)
        assert failed is None


# ---------------------------------------------------------------------- fixed blocks, spacing


def test_fixed_blocks_are_several_records(raw: ScsiTransport) -> None:
    select = bytes((0, 0, 0, 0x10, 0, 0, 0, 8)) + bytes(5) + (512).to_bytes(3, "big")
    run(raw, cdb.mode_select(len(select)), out=select)
    _, failed = run(raw, b"\x0a\1\0\0\3\0", out=b"a" * 512 + b"b" * 512 + b"c" * 512)
    assert failed is None
    assert place(raw) == (0, 3)
    run(raw, cdb.write_filemarks(1))
    run(raw, cdb.rewind())
    data, met = run(raw, b"\x08\1\0\0\5\0", length=5 * 512)
    assert data == b"a" * 512 + b"b" * 512 + b"c" * 512
    assert met is not None
    assert (met.filemark, met.information) == (True, 2)
    data, met = run(raw, b"\x08\1\0\0\1\0", length=512)
    assert (data, code(met), met and met.information) == (b"", (Key.BLANK_CHECK, 0, 5), 1)


def test_a_short_block_may_be_borne_in_silence(raw: ScsiTransport) -> None:
    write(raw, b"short", b"longer than asked for")
    run(raw, cdb.rewind())
    assert run(raw, b"\x08\2\0\0\x64\0", length=100) == (b"short", None)  # SILI
    data, met = run(raw, b"\x08\2\0\0\6\0", length=6)
    assert data == b"longer"
    assert met is not None
    assert (met.ili, met.information) == (True, 6 - 21)


def test_spacing_over_blocks_stops_at_filemarks_and_ends(raw: ScsiTransport) -> None:
    write(raw, b"one", b"two")
    run(raw, cdb.write_filemarks(1))
    write(raw, b"three")

    def space(count: int) -> Sense | None:
        return run(raw, b"\x11\0" + count.to_bytes(3, "big", signed=True) + b"\0")[1]

    run(raw, cdb.rewind())
    assert space(2) is None
    met = space(3)
    assert (code(met), met and met.filemark, met and met.information) == ((0, 0, 1), True, 3)
    assert place(raw) == (0, 3)
    met = space(4)
    assert (code(met), met and met.information) == ((Key.BLANK_CHECK, 0, 5), 3)
    met = space(-2)
    assert (met and met.filemark, place(raw)) == (True, (0, 2))
    met = space(-5)
    assert (code(met), met and met.eom, met and met.information) == ((0, 0, 4), True, 3)


def test_a_filemark_is_found_by_its_number(raw: ScsiTransport) -> None:
    write(raw, b"one")
    run(raw, cdb.write_filemarks(1))
    write(raw, b"two")
    run(raw, cdb.write_filemarks(1))

    def locate_file(number: int) -> Sense | None:
        return run(raw, bytes((0x92, 1 << 3, 0, 0)) + number.to_bytes(8, "big") + bytes(4))[1]

    assert [(locate_file(number), place(raw)) for number in (0, 1, 2)] == [
        (None, (0, 0)),
        (None, (0, 2)),
        (None, (0, 4)),
    ]
    assert code(locate_file(3)) == (Key.BLANK_CHECK, 0, 5)


# ---------------------------------------------------------------------- partitions


def test_rewinding_stays_in_the_partition_and_loading_does_not(drive: TapeDrive, raw: ScsiTransport) -> None:
    drive.partition_in_two()
    drive.locate(Position(1, 0))
    write(raw, b"one")
    run(raw, cdb.rewind())
    assert place(raw) == (1, 0)
    run(raw, cdb.load_unload(load=True))
    assert place(raw) == (0, 0)


def test_formatting_needs_the_beginning_and_does_what_the_page_said_before(raw: ScsiTransport) -> None:
    page, _ = run(raw, cdb.mode_sense(0x11, 64, block_descriptor=False), length=64)
    wanted = bytearray(page[8:])
    wanted[3] = 1
    run(raw, cdb.mode_select(8 + len(wanted)), out=bytes(8) + bytes(wanted))
    page, _ = run(raw, cdb.mode_sense(0x11, 64, block_descriptor=False), length=64)
    assert page[8 + 3] == 0, "nothing is partitioned before the formatting"
    write(raw, b"in the way")
    assert code(run(raw, cdb.format_medium(True))[1]) == (Key.ILLEGAL_REQUEST, 0x3B, 0x0C)
    run(raw, cdb.rewind())
    assert run(raw, cdb.format_medium(True))[1] is None
    page, _ = run(raw, cdb.mode_sense(0x11, 64, block_descriptor=False), length=64)
    assert page[8 + 3] == 1
    assert code(run(raw, cdb.locate(0, 2))[1]) == (Key.ILLEGAL_REQUEST, 0x24, 0)


def test_at_the_end_of_data_there_is_nothing(raw: ScsiTransport) -> None:
    write(raw, b"one")
    assert code(run(raw, cdb.read(10), length=10)[1]) == (Key.BLANK_CHECK, 0, 5)
    assert code(run(raw, cdb.locate(5))[1]) == (Key.BLANK_CHECK, 0, 5)
    assert place(raw) == (0, 1)


# ---------------------------------------------------------------------- the cartridge's memory


def test_reading_one_attribute_gives_all_that_follow(drive: TapeDrive, raw: ScsiTransport) -> None:
    memory.write(drive, 0, [memory.ascii_value(Id.BARCODE, "TAP001L8", 32), memory.text_value(Id.MEDIA_POOL, "p", 160)])
    data, _ = run(raw, cdb.read_attribute(0, Id.BARCODE, 4096), length=4096)
    found = [attribute.id for attribute in memory.decode(data[4:], "here")]
    assert found == [Id.BARCODE, Id.MEDIA_POOL]
    listed, _ = run(raw, cdb.read_attribute(0, 0, 4096, list_only=True), length=4096)
    assert {Id.REMAINING_MIB, Id.BARCODE} <= {
        int.from_bytes(listed[at : at + 2], "big") for at in range(4, len(listed), 2)
    }


def test_an_attribute_that_was_never_written_is_refused(raw: ScsiTransport) -> None:
    assert code(run(raw, cdb.read_attribute(0, Id.VOLUME_COHERENCY, 4096), length=4096)[1]) == (5, 0x24, 0)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0\0\x06" + b"\x08\x00\x03\0\1x",  # of a form that is none
        b"\0\0\0\x06" + b"\x08\x00\x01\0\2x",  # longer than what was sent
        b"\0\0\0\x09" + b"\x08\x00\x01\0\1x",
    ],
)
def test_attributes_that_cannot_be_are_refused(raw: ScsiTransport, sent: bytes) -> None:
    assert code(run(raw, cdb.write_attribute(0, len(sent)), out=sent)[1]) == (Key.ILLEGAL_REQUEST, 0x26, 0)


def test_what_only_the_drive_writes_is_refused_and_nothing_is_written(drive: TapeDrive) -> None:
    ours = memory.ascii_value(Id.BARCODE, "TAP001L8", 32)
    with pytest.raises(RefusedCommand):
        memory.write(drive, 0, [ours, memory.ascii_value(Id.SERIAL, "forged", 32)])
    assert memory.read(drive, 0, Id.BARCODE) is None


# ---------------------------------------------------------------------- written once, not at all


def test_worm_takes_more_but_nothing_else(tmp_path: Path) -> None:
    tape = Cartridge.create(tmp_path / "WRM001LY", Kind(capacity_mib=100, worm=True))
    lun = DriveLun("VDRV0001")
    lun.insert(tape)
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    drive.load()
    drive.locate(Position(0, 0))
    for block in (b"one", b"two"):
        drive.write(block)
    drive.locate(Position(0, 1))
    with pytest.raises(WriteProtected):
        drive.write(b"over it")
    raw = LoopTransport(lun)
    run(raw, cdb.test_unit_ready())
    assert code(run(raw, cdb.write(1), out=b"x")[1]) == (Key.DATA_PROTECT, 0x30, 0x0C)
    assert code(run(raw, cdb.erase(long=False))[1]) == (Key.DATA_PROTECT, 0x30, 0x0C)
    run(raw, cdb.rewind())
    assert code(run(raw, cdb.format_medium(False))[1]) == (Key.DATA_PROTECT, 0x27, 0)
    drive.locate_end(0)
    drive.write(b"three")
    assert (kind := memory.read(drive, 0, Id.MEDIUM_TYPE)) is not None
    assert kind.number == 0x80
    page, _ = run(raw, cdb.mode_sense(0x1D, 64, block_descriptor=False), length=64)
    assert page[8 + 2] & 1, "medium configuration: WORM"


def test_a_tab_that_is_set_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge.create(tmp_path / "TAP001L8", Kind(write_protected=True)))
    raw = LoopTransport(lun)
    for _ in range(2):
        run(raw, cdb.test_unit_ready())
    for command, sent in ((cdb.write(1), b"x"), (cdb.write_filemarks(1), b""), (cdb.erase(long=True), b"")):
        assert code(run(raw, command, out=sent)[1]) == (Key.DATA_PROTECT, 0x27, 0)
    data, _ = run(raw, cdb.mode_sense(0, 16), length=16)
    assert data[3] & 0x80
    assert run(raw, cdb.write_filemarks(0))[1] is None, "there is nothing to be flushed"


# ---------------------------------------------------------------------- what other programs ask for


PAGES = (0x02, 0x0A, 0x0F, 0x10, 0x11, 0x1C, 0x1D, 0x23, 0x24, 0x3F)


@pytest.mark.parametrize("page", [(0x10, 1), *((page, 0) for page in PAGES)])
def test_the_mode_pages_that_the_reference_asks_for_are_there(raw: ScsiTransport, page: tuple[int, int]) -> None:
    data, failed = run(raw, cdb.mode_sense(page[0], 255, page[1]), length=255)
    assert failed is None
    assert len(data) == 2 + int.from_bytes(data[:2], "big")
    short, _ = run(raw, bytes((0x1A, 8, page[0], page[1], 255, 0)), length=255)
    assert short[4:] == data[16:], "of six bytes and of ten it is the same page"


def test_what_the_reference_dumps_a_drive_by_succeeds(raw: ScsiTransport) -> None:
    assert run(raw, bytes((0x1D, 0x04, 0, 0, 0, 0)))[1] is None  # SEND DIAGNOSTIC
    data, failed = run(raw, bytes((0x3C, 3, 0, 0, 0, 0, 0, 0, 4, 0)), length=4)  # READ BUFFER: how long it is
    assert (len(data), failed) == (4, None)


def test_what_is_not_known_is_refused(raw: ScsiTransport) -> None:
    assert code(run(raw, bytes((0xA3, 0x0C)) + bytes(10))[1]) == (Key.ILLEGAL_REQUEST, 0x20, 0)
    assert code(run(raw, cdb.log_sense(0x37, 255), length=255)[1]) == (Key.ILLEGAL_REQUEST, 0x24, 0)
    assert code(run(raw, cdb.mode_sense(0x2A, 255), length=255)[1]) == (Key.ILLEGAL_REQUEST, 0x24, 0)
    assert code(run(raw, cdb.inquiry(255, 0xB0), length=255)[1]) == (Key.ILLEGAL_REQUEST, 0x24, 0)


def test_the_formats_are_told(raw: ScsiTransport) -> None:
    data, _ = run(raw, bytes((0x44, 1, 0, 0, 0, 0, 0, 0, 255, 0)), length=255)
    assert len(data) == 2 + int.from_bytes(data[:2], "big") == 56
    assert data[4] == 0x5E
    assert int.from_bytes(data[16:20], "big") == 100


# ---------------------------------------------------------------------- the robot


@pytest.fixture
def library(tmp_path: Path) -> VirtualLibrary:
    return small_library(tmp_path / "library")


def robot(library: VirtualLibrary) -> ScsiTransport:
    transport = library.changer_transport()
    run(transport, cdb.test_unit_ready())
    return transport


def exchange(raw: ScsiTransport, source: int, first: int, second: int) -> Sense | None:
    numbers = b"".join(number.to_bytes(2, "big") for number in (0, source, first, second))
    return run(raw, b"\xa6\0" + numbers + bytes(2))[1]


def test_cartridges_change_places(library: VirtualLibrary) -> None:
    raw = robot(library)
    run(raw, cdb.move_medium(0, SLOTS, DRIVES))
    assert exchange(raw, SLOTS + 1, DRIVES, SLOTS + 1) is None
    assert library.shelf.full == {DRIVES: "TAP002L8", SLOTS + 1: "TAP001L8", SLOTS + 2: "CLN001L8"}
    assert library.drives[0].cartridge is not None
    assert library.drives[0].cartridge.barcode == "TAP002L8"
    assert exchange(raw, SLOTS + 1, DRIVES, MAIL) is None
    assert library.shelf.full == {DRIVES: "TAP001L8", MAIL: "TAP002L8", SLOTS + 2: "CLN001L8"}


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ((SLOTS + 5, SLOTS, SLOTS + 6), (0x3B, 0x0E)),
        ((SLOTS, SLOTS + 5, SLOTS + 6), (0x3B, 0x0E)),
        ((SLOTS, SLOTS + 1, SLOTS + 2), (0x3B, 0x0D)),
        ((SLOTS, SLOTS + 1, 9), (0x21, 0x01)),
    ],
)
def test_exchanges_that_cannot_be_change_nothing(
    library: VirtualLibrary, places: tuple[int, int, int], says: tuple[int, int]
) -> None:
    before = dict(library.shelf.full)
    assert code(exchange(robot(library), *places)) == (Key.ILLEGAL_REQUEST, *says)
    assert library.shelf.full == before


def test_a_cartridge_whose_folder_is_damaged_stays_where_it_is(library: VirtualLibrary) -> None:
    (library.folder / "TAP001L8" / "filedebug_tc_conf.xml").write_text("<no end")
    found = run(robot(library), cdb.move_medium(0, SLOTS, DRIVES))[1]
    assert code(found) == (Key.MEDIUM_ERROR, 0x52, 0)
    assert library.shelf.full[SLOTS] == "TAP001L8"
    assert library.drives[0].cartridge is None


def test_a_label_that_the_makers_scanner_could_not_read(library: VirtualLibrary) -> None:
    from tape.changer import Changer

    library.shelf.unreadable.add("TAP001L8")
    library.shelf.unreadable_code = (0x83, 0x01)
    found = next(one for one in Changer(library.changer_transport()).elements() if one.address == SLOTS)
    assert (found.full, found.barcode, found.problem) == (True, "", (0x83, 0x01))


def test_cartridges_exchanged_behind_the_robots_back_are_found_where_they_are(library: VirtualLibrary) -> None:
    raw = robot(library)
    library.exchange_by_hand(SLOTS, SLOTS + 1)
    assert code(run(raw, cdb.move_medium(0, SLOTS, DRIVES))[1]) == (Key.UNIT_ATTENTION, 0x28, 0)
    run(raw, cdb.move_medium(0, SLOTS, DRIVES))
    assert library.drives[0].cartridge is not None
    assert library.drives[0].cartridge.barcode == "TAP002L8"


def test_a_medium_error_is_one_of_the_medium(lun: DriveLun, drive: TapeDrive) -> None:
    from tape.emulator.check import Check

    def fail(_lun: object, command: bytes) -> None:
        if command[0] == 0x08:
            raise Check(Key.MEDIUM_ERROR, 0x11)

    drive.write(b"one")
    drive.locate(Position(0, 0))
    lun.before = fail
    with pytest.raises(MediumError):
        drive.read(memoryview(bytearray(10)))


# ---------------------------------------------------------------------- whatever is sent

OPERATIONS = sorted({*DriveLun("D")._handlers, 0x16, 0x17, 0x5F, 0xA5, 0xA6, 0xB8, 0xC0})
COMMANDS = st.builds(
    lambda operation, rest: bytes((operation,)) + rest,
    st.sampled_from(OPERATIONS) | st.integers(0, 255),
    st.binary(min_size=15, max_size=15) | st.binary(min_size=3, max_size=3).map(lambda few: few.ljust(15, b"\0")),
)
SENT = st.binary(max_size=80)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(st.tuples(COMMANDS, SENT), min_size=1, max_size=8), which=st.integers(0, 2))
def test_whatever_is_sent_is_answered(library: VirtualLibrary, which: int, commands: list[tuple[bytes, bytes]]) -> None:
    """Nothing that comes over a wire is a fault of ours."""
    if library.drives[0].cartridge is None and SLOTS in library.shelf.full:
        library.robot.carry(SLOTS, DRIVES)
    session = Session("fuzz")
    for command, sent in commands:
        answer = library.luns[which].execute(session, command, sent)
        assert answer.status in tuple(Status)
        assert (answer.status == Status.CHECK_CONDITION) == bool(answer.sense)
    library.luns[which].leave(session)
