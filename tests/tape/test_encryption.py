"""Encryption by the drive: pages byte by byte, and keys that are told nowhere."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from tape import logs
from tape.drive import TapeDrive
from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.encryption import Key, encrypted, forget_leftover, status, wanted_key
from tape.errors import CannotEncrypt, EncryptionLost, KeyWanted, TapeError, UnitAttention
from tape.ltfs.volume import LtfsVolume
from tape.scsi import cdb, security, sense
from tape.scsi.security import Algorithm, Encryption, NextBlock, Status
from tape.scsi.sense import Key as SenseKey
from tape.sequential import Position
from tests.tape.volumes import MAKER, Ticks, cartridge, drive_with, files_of, formatted, put

SECRET = bytes(range(32))


def test_a_key_is_taken_as_bytes_or_as_digits() -> None:
    key = Key.parse(SECRET)
    assert Key.parse(SECRET.hex().encode() + b"\n").identity == key.identity
    assert len(key.identity) == 16
    assert Key(bytes(32)).identity != key.identity


@pytest.mark.parametrize("data", [b"", bytes(31), b"z" * 64, b"00" * 31])
def test_what_is_no_key_is_refused_and_not_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes, or 64 hex digits") as caught:
        Key.parse(data)
    assert data == b"" or data.decode("latin-1") not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    key = Key(SECRET)
    assert repr(key) == f"Key({key.identity})"
    assert not hasattr(key, "__dict__")


def test_the_page_that_sets_a_key() -> None:
    assert security.set_encryption(1, SECRET, "web") == (
        bytes.fromhex("0010 0037 40 44 02 03 01 00 00") + bytes(7) + b"\x00\x20" + SECRET + b"\x00\x00\x00\x03web"
    )


def test_the_page_that_clears_it() -> None:
    assert security.clear_encryption(1) == bytes.fromhex("0010 0010 40 00 00 00 01 00 00") + bytes(9)


def test_a_drives_algorithms_are_read() -> None:
    one = bytes.fromhex("01 00 0014 3A 00 0020 000C 0020 00 00 0000 0000 0000 00010014")
    other = bytes.fromhex("02 00 0014 05 00 0000 0000 0010 00 00 0000 0000 0000 00010010")
    page = bytes.fromhex("0010 0040") + bytes(16) + one + other
    assert security.algorithms(page) == [
        Algorithm(1, security.AES_256_GCM, True, True, 32, 32),
        Algorithm(2, 0x00010010, False, False, 16, 0),
    ]
    assert security.algorithms(page[:30]) == []
    assert security.algorithms(b"") == []


def test_a_drives_status_is_read() -> None:
    page = bytes.fromhex("0020 001B 42 02 03 01 00000007 00 00 0000") + bytes(8) + b"\x00\x00\x00\x03web"
    assert security.status(page) == Status(2, 3, 1, 7, "web")
    assert security.status(page[:20]) is None
    assert security.status(b"\x00\x21" + page[2:]) is None


def test_the_next_blocks_status_is_read() -> None:
    page = bytes.fromhex("0021 0013 0000000000000009 06 01 00 00") + b"\x00\x01\x00\x03web"
    assert security.next_block(page) == NextBlock(9, security.BlockStatus.LOCKED, "web")


def test_a_missing_key_is_told_from_write_protection() -> None:
    found = sense.decode(bytes.fromhex("70 00 07 00000000 0A 00000000 74 00 00000000"))
    assert found is not None
    assert type(sense.failure(found, "drive", "read")) is KeyWanted


def test_a_change_of_the_key_is_an_error_of_its_own() -> None:
    found = sense.decode(bytes.fromhex("70 00 06 00000000 0A 00000000 2A 11 00000000"))
    assert found is not None
    assert type(sense.failure(found, "drive", "write")) is UnitAttention


# ---------------------------------------------------------------------- on an emulated drive that encrypts

KEY, OTHER = Key(SECRET), Key(bytes(32))
TEXT = b"what nobody is to read " * 300


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


@pytest.fixture
def drive(lun: DriveLun) -> TapeDrive:
    return drive_with(lun)


def volume_in(drive: TapeDrive) -> LtfsVolume:
    return LtfsVolume.mount(drive, MAKER, Ticks())


def on_tape(lun: DriveLun) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(cartridge(lun).folder.glob("*_R")))


def test_what_is_written_with_a_key_lies_encrypted_on_the_tape_and_is_read_with_it(
    lun: DriveLun, drive: TapeDrive
) -> None:
    with encrypted(drive, KEY), volume_in(drive) as volume:
        put(volume, "/secret", TEXT)
        assert files_of(volume) == {"/secret": TEXT}
    assert TEXT[:23] not in on_tape(lun)
    assert b"/secret" not in on_tape(lun)
    assert b"<name>secret" not in on_tape(lun)
    with encrypted(drive, KEY):
        assert files_of(volume_in(drive)) == {"/secret": TEXT}


def test_without_the_key_the_cartridge_says_which_one_it_wants(drive: TapeDrive) -> None:
    with encrypted(drive, KEY), volume_in(drive) as volume:
        put(volume, "/secret", TEXT)
    with pytest.raises(KeyWanted):
        volume_in(drive)
    assert wanted_key(drive) in (KEY.identity, None)
    drive.locate(Position(0, 5))
    assert wanted_key(drive) == KEY.identity
    with encrypted(drive, OTHER):
        with pytest.raises(KeyWanted):
            volume_in(drive)
        drive.locate(Position(0, 5))
        assert wanted_key(drive) == KEY.identity
    drive.locate(Position(0, 0))
    assert wanted_key(drive) is None, "the label is for everybody"


def test_the_key_is_forgotten_at_the_end_whatever_happened(drive: TapeDrive) -> None:
    with encrypted(drive, KEY):
        assert status(drive).encryption == Encryption.ON
    assert status(drive).encryption == Encryption.OFF
    with pytest.raises(KeyboardInterrupt), encrypted(drive, KEY):
        raise KeyboardInterrupt
    assert status(drive).encryption == Encryption.OFF


def test_the_key_is_forgotten_also_when_a_reset_comes_just_before(lun: DriveLun, drive: TapeDrive) -> None:
    """The drive keeps the key over a reset of the bus, and did not carry out the command that met it."""

    def told_once(_lun: Lun, command: bytes) -> None:
        if command[0] == 0xB5:
            lun.before = None
            raise Check(SenseKey.UNIT_ATTENTION, 0x29, 0x02)

    def fail() -> None:
        lun.before = told_once
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"), encrypted(drive, KEY):
        fail()
    assert lun.before is None
    assert status(drive).encryption == Encryption.OFF


def test_a_drive_that_lost_its_key_writes_nothing_more(lun: DriveLun, drive: TapeDrive) -> None:
    """Its power failed: it would go on in the clear."""

    def writing() -> None:
        volume = volume_in(drive)
        put(volume, "/secret", TEXT)
        lun.power_cut()
        put(volume, "/more", TEXT)

    with pytest.raises(TapeError), encrypted(drive, KEY):
        writing()
    assert TEXT[:23] not in on_tape(lun)


def test_a_key_that_a_killed_program_left_is_forgotten_before_anything_is_written(
    lun: DriveLun, drive: TapeDrive
) -> None:
    page = KEY.page(1)
    drive.unit.run(cdb.security_protocol_out(security.SET_ENCRYPTION, len(page)), "set", data_out=page)
    after = drive_with(lun)
    assert status(after).encryption == Encryption.ON
    assert forget_leftover(after) == KEY.identity
    assert forget_leftover(after) == ""
    with volume_in(after) as volume:
        put(volume, "/plain", TEXT)
    assert TEXT[:23] in on_tape(lun)


def test_a_key_that_somebody_else_manages_is_left_alone(lun: DriveLun, drive: TapeDrive) -> None:
    page = security.set_encryption(1, SECRET, "LIBRARY-7")
    drive.unit.run(cdb.security_protocol_out(security.SET_ENCRYPTION, len(page)), "set", data_out=page)
    assert forget_leftover(drive) == ""
    assert status(drive).encryption == Encryption.ON


def test_a_lost_key_is_noticed_whoever_was_told_of_the_power_cut(lun: DriveLun, drive: TapeDrive) -> None:
    """Counters were asked for, and the tape was moved, before anything is written again."""

    def writing() -> None:
        lun.power_cut()
        assert logs.capacity(drive) is not None
        drive.locate(Position(1, 5))
        drive.write(TEXT)

    with pytest.raises(EncryptionLost), encrypted(drive, KEY):
        writing()
    assert TEXT[:23] not in on_tape(lun)


def test_no_error_tells_the_key(lun: DriveLun, drive: TapeDrive) -> None:
    def refuse(_lun: Lun, command: bytes) -> None:
        if command[0] == 0xB5:
            raise Check(SenseKey.ILLEGAL_REQUEST, 0x26)

    lun.before = refuse
    with pytest.raises(CannotEncrypt) as caught, encrypted(drive, KEY):
        pass
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET.hex() not in told.lower()
    assert repr(SECRET) not in told
