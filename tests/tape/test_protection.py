"""Cartridges that take no writing, or not any more, or not over what is there: each says why, and stays readable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tape import memory
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.lun import Lun
from tape.errors import FilesLost, MediumError, TapeError, WriteProtected
from tape.ltfs.format import Naming, make_volume
from tape.ltfs.protection import VolumeLock
from tape.ltfs.recover import for_reading, recover
from tape.ltfs.volume import LtfsVolume
from tape.memory import Attribute, Form, Id
from tape.scsi.sense import Key
from tests.tape.volumes import (
    BLOCK,
    MAKER,
    UUID,
    Ticks,
    cartridge,
    content,
    drive_with,
    files_of,
    formatted,
    mounted,
    put,
)


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    lun = formatted(tmp_path / "TAP001L8")
    with mounted(lun) as volume:
        put(volume, "/before", content(1, 3 * BLOCK))
    return lun


def refuses(volume: LtfsVolume, says: str) -> None:
    with pytest.raises(WriteProtected, match=says):
        volume.create("/x")
    volume.unmount()
    assert volume.read_only
    assert files_of(volume) == {"/before": content(1, 3 * BLOCK)}


def test_a_tab_is_seen_before_anything_is_written(lun: DriveLun, tmp_path: Path) -> None:
    tape = lun.take_out()
    again = DriveLun("VDRV0002")
    again.insert(tape)
    tape.kind = Kind(capacity_mib=tape.kind.capacity_mib, write_protected=True)
    refuses(mounted(again), "tab")


@pytest.mark.parametrize(("lock", "says"), [(1, "locked"), (3, "for ever"), (4, "data partition"), (99, "unknown")])
def test_a_lock_in_the_cartridges_memory_is_honoured(lun: DriveLun, lock: int, says: str) -> None:
    memory.write(drive_with(lun), 0, [Attribute(Id.VOLUME_LOCK, Form.BINARY, bytes((lock,)))])
    refuses(mounted(lun, search=True), says)


def failing(partition: int, after: int = 0) -> Callable[[Lun, bytes], None]:
    """A drive that cannot write to a partition any more, after so many blocks."""
    left = after

    def before(lun: Lun, cdb: bytes) -> None:
        nonlocal left
        assert isinstance(lun, DriveLun)
        if cdb[0] not in (0x0A, 0x10) or lun.partition != partition or not any(cdb[2:5]):
            return
        left -= 1
        if left < 0:
            raise Check(Key.MEDIUM_ERROR, 0x0C)

    return before


BOTH = {"/more": content(2, 4 * BLOCK), "/rest": b"rest"}


def put_both(volume: LtfsVolume) -> None:
    for path, data in BOTH.items():
        put(volume, path, data)


@pytest.mark.parametrize("after", range(8))
def test_a_write_error_at_any_block_keeps_all_that_is_whole_and_is_never_tried_again(lun: DriveLun, after: int) -> None:
    """Among the data, in the index, at its filemarks: what was finished is on tape, and the other partition says so."""
    volume = mounted(lun)
    lun.before = failing(1, after)
    with pytest.raises((MediumError, FilesLost)), volume:
        put_both(volume)
    lun.before = None
    kept = memory.read(drive_with(lun), 0, Id.VOLUME_LOCK)
    assert kept is not None
    assert kept.number == VolumeLock.WRITE_ERROR_DATA
    for search in (False, True):
        again = mounted(lun, search=search)
        found = files_of(again)
        assert found.items() <= {"/before": content(1, 3 * BLOCK), **BOTH}.items()
        assert len(found) >= 1 + (after > 3) + (after > 4)
        with pytest.raises(WriteProtected, match="copy what is on it"):
            again.create("/x")


def test_a_write_error_of_buffered_blocks_takes_the_files_they_belong_to(lun: DriveLun) -> None:
    """The drive took the blocks, and could not write them: it says so when it is to flush."""
    volume = mounted(lun)
    put(volume, "/whole", content(2, 2 * BLOCK))
    volume.drive.flush()
    put(volume, "/torn", content(3, 2 * BLOCK))

    def lose(lun_: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x92:
            lun.before = None
            cartridge(lun).power_cut(keep=1)
            raise Check(Key.MEDIUM_ERROR, 0x0C, deferred=True)

    lun.before = lose
    with pytest.raises(FilesLost, match="/torn"):
        volume.commit()
    assert volume.read_only
    assert set(files_of(mounted(lun, search=True))) == {"/before", "/whole"}


def test_a_write_error_of_buffered_blocks_that_is_told_when_the_next_file_begins(lun: DriveLun) -> None:
    """Somebody has moved the tape, and on the way back the drive says what became of the blocks that it had taken."""
    volume = mounted(lun)
    put(volume, "/torn", content(3, 2 * BLOCK))
    drive_with(lun).rewind()

    def lose(_lun: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x92:
            lun.before = None
            raise Check(Key.MEDIUM_ERROR, 0x0C, deferred=True)

    lun.before = lose
    with pytest.raises(MediumError):
        volume.create("/next")
    assert "could not be written" in volume.read_only
    kept = memory.read(drive_with(lun), 0, Id.VOLUME_LOCK)
    assert kept is not None
    assert kept.number == VolumeLock.WRITE_ERROR_DATA
    with pytest.raises(WriteProtected, match="copy what is on it"):
        volume.create("/next")


def test_an_index_partition_that_cannot_be_written_costs_no_file(lun: DriveLun) -> None:
    volume = mounted(lun)
    put(volume, "/more", b"more")
    lun.before = failing(0)
    with pytest.raises(MediumError):
        volume.commit()
    lun.before = None
    kept = memory.read(drive_with(lun), 0, Id.VOLUME_LOCK)
    assert kept is not None
    assert kept.number == VolumeLock.WRITE_ERROR_INDEX
    again = mounted(lun, search=True)
    assert set(files_of(again)) == {"/before", "/more"}
    with pytest.raises(WriteProtected, match="index partition"):
        again.create("/x")
    again.unmount()
    assert again.index_partition_behind


def test_neither_partition_takes_an_index(lun: DriveLun) -> None:
    volume = mounted(lun)
    put(volume, "/more", b"more")

    def fail(_lun: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x10 and any(cdb[2:5]):
            raise Check(Key.MEDIUM_ERROR, 0x0C)

    lun.before = fail
    with pytest.raises(MediumError):
        volume.commit()
    lun.before = None
    kept = memory.read(drive_with(lun), 0, Id.VOLUME_LOCK)
    assert kept is not None
    assert kept.number == VolumeLock.WRITE_ERROR_BOTH
    with pytest.raises(WriteProtected):
        recover(drive_with(lun), MAKER, Ticks())
    with for_reading(drive_with(lun), MAKER, Ticks()) as again:
        assert set(files_of(again)) == {"/before"}


# ---------------------------------------------------------------------- written once


@pytest.fixture
def worm(tmp_path: Path) -> DriveLun:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge.create(tmp_path / "WRM001L8", Kind(capacity_mib=400, worm=True)))
    make_volume(drive_with(lun), Naming("WRM001L8", UUID), MAKER, 10**18, block_bytes=BLOCK)
    return lun


def test_a_worm_cartridge_is_appended_to_and_nothing_is_written_over(worm: DriveLun) -> None:
    for number in range(3):
        with mounted(worm, search=number % 2 == 1) as volume:
            put(volume, f"/{number}", content(number, 2 * BLOCK))
    for search in (False, True):
        again = mounted(worm, search=search)
        assert set(files_of(again)) == {"/0", "/1", "/2"}
        assert not again.index_partition_behind
    tape = cartridge(worm)
    assert [tape.tracks[0].is_filemark(number) for number in range(4, 16)] == [True, False, True] * 4


def test_a_worm_cartridge_is_not_formatted_again(worm: DriveLun) -> None:
    with mounted(worm) as volume:
        put(volume, "/kept", b"kept")
    with pytest.raises(TapeError, match="write protected"):
        make_volume(drive_with(worm), Naming("WRM001L8", UUID), MAKER, 10**18, block_bytes=BLOCK)
    assert files_of(mounted(worm)) == {"/kept": b"kept"}


def test_a_worm_cartridge_whose_writer_died_is_recovered(worm: DriveLun) -> None:
    with mounted(worm) as volume:
        put(volume, "/kept", b"kept")
    volume = mounted(worm)
    put(volume, "/lost", b"lost")
    cartridge(worm).flush()
    recover(drive_with(worm), MAKER, Ticks())
    with mounted(worm) as volume:
        put(volume, "/after", b"after")
    assert set(files_of(mounted(worm, search=True))) == {"/kept", "/after"}


def test_a_drive_that_only_appends_is_asked_before_an_index_is_written_over(lun: DriveLun) -> None:
    asked: list[tuple[object, ...]] = []

    def note(_lun: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x82:  # of the place where it stands, and of no other (SSC: else an invalid field)
            stands = lun.partition, lun.block
            asked.append((cdb[2], cdb[3], int.from_bytes(cdb[4:12], "big"), stands))

    lun.before = note
    volume = mounted(lun)
    volume.recording.protection.asks = True  # the emulated drive has no such mode
    put(volume, "/more", b"more")
    volume.commit()
    assert asked == [(1, 0, 4, (0, 4))]
    put(volume, "/again", b"again")
    volume.commit()
    assert asked == [(1, 0, 4, (0, 4))] * 2, "also where the tape has just stood behind the index"
    assert set(files_of(mounted(lun, search=True))) == {"/before", "/more", "/again"}


def test_blocks_that_the_drive_had_taken_and_then_found_no_room_for_are_in_no_index(lun: DriveLun) -> None:
    """They overflow when the tape is sent to their end, before the index: it must not say that they are there."""
    volume = mounted(lun)
    put(volume, "/safe", content(2, BLOCK))
    volume.secure()
    put(volume, "/taken", content(3, 4 * BLOCK))

    def before(one: Lun, cdb: bytes) -> None:
        if cdb[0] == 0x92:
            lun.before = None
            cartridge(lun).power_cut()
            raise Check(Key.VOLUME_OVERFLOW, 0x00, 0x02, eom=True, deferred=True)

    lun.before = before
    with pytest.raises(FilesLost, match="/taken"):
        volume.commit()
    expected = {"/before": content(1, 3 * BLOCK), "/safe": content(2, BLOCK)}
    for search in (False, True):
        assert files_of(mounted(lun, search=search)) == expected
