"""Encryption by the drive, from our side to the emulated one: who has not the key reads nothing, nobody is deceived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tape import encryption
from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.encryption import Key, encrypted
from tape.errors import CannotEncrypt, EncryptionLost, KeyWanted, TapeError, UnitAttention
from tape.scsi import cdb, security
from tape.scsi.security import AES_256_GCM, Algorithm, BlockStatus, Decryption, Encryption, InPage
from tape.sequential import Position

RIGHT, WRONG = Key(bytes(range(32))), Key(bytes(32))
SECRET = b"what nobody else may read" * 40


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    made = DriveLun("VDRV0001")
    made.insert(Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=100)))
    return made


def opened(lun: DriveLun) -> TapeDrive:
    made = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    made.load()
    made.locate(Position(0, 0))
    return made


@pytest.fixture
def drive(lun: DriveLun) -> Iterator[TapeDrive]:
    with closing(opened(lun)) as made:
        yield made


@pytest.fixture
def written(drive: TapeDrive) -> TapeDrive:
    """An encrypted block, a plain one, and an encrypted one."""
    with encrypted(drive, RIGHT):
        drive.write(SECRET)
    drive.write(b"plain")
    with encrypted(drive, RIGHT):
        drive.write(SECRET)
        drive.flush()
    drive.rewind()
    return drive


def read(drive: TapeDrive) -> bytes:
    buf = memoryview(bytearray(1 << 16))
    found = drive.read(buf)
    assert isinstance(found, int)
    return bytes(buf[:found])


def test_with_the_key_it_is_read_as_it_was_written(written: TapeDrive) -> None:
    with encrypted(written, RIGHT):
        assert [read(written) for _ in range(3)] == [SECRET, b"plain", SECRET]


def test_on_tape_there_is_nothing_of_it(written: TapeDrive, tmp_path: Path) -> None:
    kept = [(tmp_path / "TAP001L8" / f"0_{number}_R").read_bytes() for number in (0, 1, 2)]
    assert kept[1] == b"plain"
    assert all(SECRET[:25] not in record for record in kept)
    assert kept[0] != kept[2], "each record has a nonce of its own"
    assert all(RIGHT.identity.encode() in record for record in (kept[0], kept[2]))


def test_without_the_key_it_is_refused(written: TapeDrive) -> None:
    assert encryption.wanted_key(written) == RIGHT.identity
    with pytest.raises(KeyWanted):
        read(written)
    written.locate(Position(0, 1))
    assert encryption.wanted_key(written) is None
    assert read(written) == b"plain"


def test_with_another_key_it_is_refused(written: TapeDrive) -> None:
    with encrypted(written, WRONG), pytest.raises(KeyWanted) as failed:
        read(written)
    assert (failed.value.asc, failed.value.ascq) == (0x74, 0x03)


def test_a_record_that_was_tampered_with_is_refused(written: TapeDrive, tmp_path: Path) -> None:
    path = tmp_path / "TAP001L8" / "0_0_R"
    record = bytearray(path.read_bytes())
    record[-30] ^= 1
    path.write_bytes(record)
    with encrypted(written, RIGHT), pytest.raises(KeyWanted) as failed:
        read(written)
    assert (failed.value.asc, failed.value.ascq) == (0x74, 0x04)


def test_the_drive_forgets_the_key_afterwards(drive: TapeDrive) -> None:
    with encrypted(drive, RIGHT):
        assert encryption.status(drive).encryption == Encryption.ON
    assert encryption.status(drive).encryption == Encryption.OFF
    with suppress(KeyError), encrypted(drive, RIGHT):
        raise KeyError
    assert encryption.status(drive).encryption == Encryption.OFF


def test_a_power_failure_loses_the_key_and_nothing_is_written_in_the_clear(drive: TapeDrive, lun: DriveLun) -> None:
    drive.flush()

    def work() -> None:
        with encrypted(drive, RIGHT):
            lun.power_cut()
            drive.write(SECRET)

    with pytest.raises(EncryptionLost):
        work()
    assert lun.cartridge is not None
    assert lun.cartridge.tracks[0].end == 0


def test_the_key_goes_with_the_cartridge(drive: TapeDrive, lun: DriveLun, tmp_path: Path) -> None:
    drive.unit.run(cdb.security_protocol_out(0x10, len(RIGHT.page(1))), "set", data_out=RIGHT.page(1))
    assert encryption.status(drive).encryption == Encryption.ON
    lun.take_out()
    lun.insert(Cartridge.create(tmp_path / "TAP002L8"))
    drive.unit.attend()
    assert encryption.status(drive).encryption == Encryption.OFF


def test_another_host_that_sets_a_key_is_noticed(drive: TapeDrive, lun: DriveLun) -> None:
    def work() -> None:
        with closing(opened(lun)) as other, encrypted(drive, RIGHT):
            other.unit.attend()
            other.unit.run(cdb.security_protocol_out(0x10, len(WRONG.page(1))), "set", data_out=WRONG.page(1))
            drive.write(SECRET)

    with pytest.raises(EncryptionLost, match=r"another host|somebody else|does not encrypt"):
        work()
    assert lun.cartridge is not None
    assert lun.cartridge.tracks[0].end == 0


def test_each_session_may_have_a_key_of_its_own(drive: TapeDrive, lun: DriveLun) -> None:
    page = bytearray(RIGHT.page(1))
    page[4] = 1 << 5  # local
    drive.unit.run(cdb.security_protocol_out(0x10, len(page)), "set", data_out=bytes(page))
    drive.write(SECRET)
    drive.rewind()
    assert read(drive) == SECRET
    with closing(opened(lun)) as other:
        assert encryption.status(other).encryption == Encryption.OFF
        with pytest.raises(KeyWanted):
            read(other)


def test_what_the_drive_says_of_itself(drive: TapeDrive) -> None:
    assert encryption.algorithm(drive) == Algorithm(1, AES_256_GCM, True, True, 32, 32)
    asked = drive.unit.ask(cdb.security_protocol_in(0, 64), "list", 64)
    assert asked == bytes.fromhex("0000 000e 0000 0001 0010 0011 0012 0020 0021")
    found = security.next_block(drive.unit.ask(cdb.security_protocol_in(InPage.NEXT_BLOCK, 64), "ask", 64))
    assert found is not None
    assert (found.block, found.status) == (0, BlockStatus.NO_BLOCK)


def test_an_answer_is_cut_to_the_room_for_it(drive: TapeDrive) -> None:
    assert len(drive.unit.ask(cdb.security_protocol_in(InPage.CAPABILITIES, 8), "ask", 64)) == 8


@pytest.mark.parametrize(
    "harm",
    [
        lambda page: page[:19],  # too short
        lambda page: page[:18] + b"\0\x10" + page[20:],  # a key of 16 bytes
        lambda page: page[:8] + b"\2" + page[9:],  # another algorithm
        lambda page: page[:6] + b"\1" + page[7:],  # by external means
        lambda page: page[:4] + b"\0" + page[5:],  # for nobody
        lambda page: page[:2] + b"\0\x20" + page[4:],  # of another length than it has
    ],
)
def test_a_page_that_cannot_be_is_refused_and_changes_nothing(drive: TapeDrive, harm: object) -> None:
    assert callable(harm)
    page = harm(RIGHT.page(1))
    with pytest.raises(TapeError):
        drive.unit.run(cdb.security_protocol_out(0x10, len(page)), "set", data_out=page)
    assert encryption.status(drive).encryption == Encryption.OFF


def test_a_drive_that_was_told_to_decrypt_only_takes_plain_blocks_for_a_fault(written: TapeDrive) -> None:
    page = bytearray(RIGHT.page(1))
    page[7] = Decryption.ON
    written.unit.run(cdb.security_protocol_out(0x10, len(page)), "set", data_out=bytes(page))
    assert read(written) == SECRET
    with pytest.raises(KeyWanted) as failed:
        read(written)
    assert (failed.value.asc, failed.value.ascq) == (0x74, 0x02)


def test_a_drive_without_encryption_is_named(drive: TapeDrive, lun: DriveLun) -> None:
    from tape.emulator.check import Check
    from tape.emulator.lun import Lun
    from tape.scsi.sense import Key as SenseKey

    def refuse(_lun: Lun, command: bytes) -> None:
        if command[0] in (0xA2, 0xB5):
            raise Check(SenseKey.ILLEGAL_REQUEST, 0x20)

    lun.before = refuse
    with pytest.raises(CannotEncrypt), encrypted(drive, RIGHT):
        pass


def test_the_others_are_told_that_the_key_changed(drive: TapeDrive, lun: DriveLun) -> None:
    with closing(opened(lun)) as other:
        other.unit.run(cdb.security_protocol_out(0x10, len(RIGHT.page(1))), "set", data_out=RIGHT.page(1))
        with pytest.raises(UnitAttention) as failed:
            drive.unit.run(cdb.test_unit_ready(), "test unit ready")
        assert (failed.value.asc, failed.value.ascq) == (0x2A, 0x11)
