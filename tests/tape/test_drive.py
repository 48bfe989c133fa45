"""A tape drive, on the emulated one: what is written is found again, and nothing is written at a wrong place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tape import logs, memory, partitions
from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.emulator.lun import Lun
from tape.errors import (
    EndOfData,
    FormatError,
    MediumChanged,
    NoMedium,
    PositionLost,
    RemovalPrevented,
    TapeError,
    VolumeOverflow,
    WriteProtected,
)
from tape.memory import Id
from tape.scsi import cdb
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer, Reply
from tape.sequential import EndWarning, Met, Position


@pytest.fixture
def lun() -> DriveLun:
    return DriveLun("VDRV0001")


@pytest.fixture
def tape(tmp_path: Path) -> Cartridge:
    return Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=100))


@pytest.fixture
def drive(lun: DriveLun, tape: Cartridge) -> TapeDrive:
    lun.insert(tape)
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    drive.load()
    return drive


def read(drive: TapeDrive, size: int = 1 << 20) -> bytes | Met:
    buf = memoryview(bytearray(size))
    found = drive.read(buf)
    return found if isinstance(found, Met) else bytes(buf[:found])


def test_an_empty_drive_says_so(lun: DriveLun) -> None:
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    assert str(drive.identity) == "IBM ULT3580-TD8 VDRV0001"
    with pytest.raises(NoMedium, match="no cartridge is in it"):
        drive.wait_ready()


def test_blocks_and_filemarks_are_read_back_as_they_were_written(drive: TapeDrive) -> None:
    for block in (b"one", b"two" * 1000):
        assert drive.write(block) is EndWarning.NONE
    drive.write_filemarks()
    drive.write(b"three")
    drive.flush()
    drive.rewind()
    assert [read(drive) for _ in range(5)] == [b"one", b"two" * 1000, Met.FILEMARK, b"three", Met.END_OF_DATA]
    assert drive.position() == Position(0, 4)


def test_a_block_longer_than_the_buffer_is_refused(drive: TapeDrive) -> None:
    drive.write(bytes(5000))
    drive.rewind()
    with pytest.raises(FormatError, match="5000 bytes"):
        read(drive, 4096)


def test_two_partitions_are_two_tapes(drive: TapeDrive) -> None:
    assert partitions.count(drive.unit) == 1
    drive.partition_in_two()
    assert partitions.count(drive.unit) == 2
    for partition in (0, 1):
        drive.locate(Position(partition, 0))
        drive.write(f"partition {partition}".encode())
        drive.write_filemarks()
    drive.locate(Position(0, 0))
    assert read(drive) == b"partition 0"
    assert drive.locate_end(1) == Position(1, 2)
    drive.locate(Position(1, 0))
    assert read(drive) == b"partition 1"
    with pytest.raises(EndOfData):
        drive.locate(Position(1, 9))


def test_spacing_goes_over_filemarks_both_ways(drive: TapeDrive) -> None:
    for text in (b"a", b"b", b"c"):
        drive.write(text)
        drive.write_filemarks()
    drive.rewind()
    assert drive.space_filemarks(2) == Position(0, 4)
    assert read(drive) == b"c"
    assert drive.space_filemarks(-1) == Position(0, 3)
    with pytest.raises(EndOfData):
        drive.space_filemarks(5)
    with pytest.raises(EndOfData):
        drive.space_filemarks(-7)


def test_writing_over_ends_the_data_there(drive: TapeDrive, tape: Cartridge) -> None:
    for text in (b"a", b"b", b"c"):
        drive.write(text)
    drive.locate(Position(0, 1))
    drive.write(b"B")
    drive.flush()
    drive.rewind()
    assert [read(drive) for _ in range(3)] == [b"a", b"B", Met.END_OF_DATA]
    assert sorted(path.name for path in tape.folder.glob("0_*")) == ["0_0_R", "0_1_R", "0_2_E"]


def test_a_reset_that_rewinds_stops_the_writing(drive: TapeDrive, lun: DriveLun) -> None:
    """The next block would have gone to the beginning of the tape, over the label."""
    drive.locate(Position(0, 0))
    for text in (b"label", b"data"):
        drive.write(text)
    lun.rewound_by_reset()
    with pytest.raises(PositionLost, match="stands at block 0 of partition 0, not at block 2"):
        drive.write(b"more data")
    drive.locate(Position(0, 0))
    assert [read(drive), read(drive), read(drive)] == [b"label", b"data", Met.END_OF_DATA]


def test_a_reset_that_moves_nothing_is_passed_over(drive: TapeDrive, lun: DriveLun) -> None:
    drive.locate(Position(0, 0))
    drive.write(b"one")
    lun.reset()
    drive.write(b"two")
    drive.rewind()
    assert [read(drive), read(drive), read(drive)] == [b"one", b"two", Met.END_OF_DATA]


def test_a_cartridge_that_was_changed_is_noticed(drive: TapeDrive, lun: DriveLun, tmp_path: Path) -> None:
    drive.locate(Position(0, 0))
    drive.write(b"of the first")
    lun.take_out()
    lun.insert(Cartridge.create(tmp_path / "TAP002L8"))
    with pytest.raises(MediumChanged):
        drive.write(b"for the first")


def test_a_power_cut_drops_what_was_not_flushed(drive: TapeDrive, lun: DriveLun) -> None:
    drive.locate(Position(0, 0))
    drive.write(b"safe")
    drive.flush()
    drive.write(b"buffered")
    lun.power_cut()
    with pytest.raises(PositionLost):
        drive.write(b"next")
    drive.locate(Position(0, 0))
    assert [read(drive), read(drive)] == [b"safe", Met.END_OF_DATA]


def test_what_was_buffered_over_old_data_is_dropped_and_they_are_there_again(drive: TapeDrive, lun: DriveLun) -> None:
    drive.locate(Position(0, 0))
    for text in (b"a", b"b", b"c"):
        drive.write(text)
    drive.locate(Position(0, 1))
    drive.write(b"X")
    lun.power_cut()
    drive.wait_ready()
    drive.locate(Position(0, 0))
    assert [read(drive) for _ in range(4)] == [b"a", b"b", b"c", Met.END_OF_DATA]


def test_the_end_is_announced_twice_and_then_reached(drive: TapeDrive, lun: DriveLun) -> None:
    select = bytes(8) + bytes((0x50, 0x01, 0, 28, 0, 0)) + (8).to_bytes(2, "big") + bytes(24)
    drive.unit.run(cdb.mode_select(len(select)), "mode select", data_out=select)
    drive.locate(Position(0, 0))
    block = bytes(1 << 20)
    seen: list[EndWarning] = []

    def fill() -> None:
        while True:
            seen.append(drive.write(block))

    with pytest.raises(VolumeOverflow):
        fill()
    assert seen.count(EndWarning.PROGRAMMABLE) == 1
    first_early = seen.index(EndWarning.EARLY)
    assert seen.index(EndWarning.PROGRAMMABLE) == first_early - 8  # 8 MiB before
    assert set(seen[first_early:]) == {EndWarning.EARLY}
    assert len(seen) == 100, "every block that was announced as written is on the tape"
    drive.locate(Position(0, 99))
    assert read(drive) == block


def test_the_cartridges_memory_keeps_what_is_written_into_it(drive: TapeDrive, tape: Cartridge) -> None:
    assert memory.read(drive, 0, Id.BARCODE) is None
    memory.write(
        drive, 0, [memory.ascii_value(Id.BARCODE, "TAP001L8", 32), memory.text_value(Id.MEDIA_POOL, "Nächte", 160)]
    )
    assert (found := memory.read(drive, 0, Id.BARCODE)) is not None
    assert found.text == "TAP001L8"
    assert (pool := memory.read(drive, 0, Id.MEDIA_POOL)) is not None
    assert pool.text == "Nächte"
    assert (tape.folder / "attr_0_806").read_bytes()[5:].rstrip() == b"TAP001L8"


def test_the_volume_change_reference_moves_on_the_first_write_after_each_reading(drive: TapeDrive) -> None:
    def reference() -> int:
        found = memory.read(drive, 0, Id.VOLUME_CHANGE_REFERENCE)
        assert found is not None
        return found.number

    drive.locate(Position(0, 0))
    drive.write(b"x")
    before = reference()
    assert reference() == before
    drive.write(b"y")
    drive.write(b"z")
    assert reference() == before + 1


def test_capacity_is_told_for_each_partition(drive: TapeDrive) -> None:
    drive.partition_in_two()
    assert (found := logs.capacity(drive)) is not None
    assert found.maximum_mib == (5, 95)
    drive.locate(Position(1, 0))
    drive.write(bytes(8 << 20))
    assert (found := logs.capacity(drive)) is not None
    assert found.remaining_mib == (5, 87)


def test_alerts_are_told_once(drive: TapeDrive, lun: DriveLun) -> None:
    lun.alerts |= {20, 4}
    assert logs.alerts(drive) == (4, 20)
    assert logs.alerts(drive) == ()


def test_a_cartridge_that_is_held_cannot_be_taken(drive: TapeDrive) -> None:
    with drive.held(), pytest.raises(RemovalPrevented):
        drive.unload()
    drive.unload()


def test_what_went_wrong_first_is_told_also_when_letting_go_fails(drive: TapeDrive, lun: DriveLun) -> None:
    def fail(_lun: object, command: bytes) -> None:
        if command == cdb.prevent_removal(False):
            raise Check(Key.HARDWARE_ERROR, 0x44)

    lun.before = fail
    with pytest.raises(KeyError, match="first"), drive.held():
        raise KeyError("first")


@pytest.mark.parametrize("kind", [Kind(write_protected=True), Kind(worm=True)])
def test_what_takes_no_writing_is_left_alone(tmp_path: Path, lun: DriveLun, kind: Kind) -> None:
    tape = Cartridge.create(tmp_path / "WRM001L8", kind)
    if kind.worm:
        tape.tracks[0].write(0, b"for ever")
    lun.insert(tape)
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    drive.load()
    with pytest.raises(WriteProtected):
        drive.write(b"over it")


def test_a_folder_is_looked_at_anew_as_it_was_left(tmp_path: Path) -> None:
    tape = Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=100, generation="L7", density=0x5C))
    tape.tracks[0].write(0, b"one")
    tape.tracks[0].write_filemark(1)
    tape.tracks[1].write(0, b"data")
    tape.flush()
    (tmp_path / "TAP001L8" / "0_5_R").write_bytes(b"behind a gap")
    again = Cartridge(tmp_path / "TAP001L8")
    assert again.kind == tape.kind
    assert (again.tracks[0].end, again.tracks[1].end, again.tracks[0].has_end) == (2, 1, True)
    assert again.tracks[0].read(0) == b"one"
    assert again.tracks[0].is_filemark(1)
    assert again.partitions == 2


def test_a_reset_that_another_command_was_told_of_is_not_forgotten(drive: TapeDrive, lun: DriveLun) -> None:
    """The drive tells it once: whoever asked for counters just then took it away from the next write."""
    drive.write(b"one")
    drive.write(b"two")
    lun.rewound_by_reset()
    assert logs.capacity(drive) is not None
    with pytest.raises(PositionLost, match="at block 0 of partition 0, not at block 2"):
        drive.write(b"three")
    with pytest.raises(PositionLost, match="at a place that nobody knows, not at one that is known"):
        drive.write(b"three")
    drive.locate(Position(0, 2))
    drive.write(b"three")
    drive.rewind()
    assert [read(drive) for _ in range(4)] == [b"one", b"two", b"three", Met.END_OF_DATA]


def test_a_reset_that_moved_nothing_is_passed_over_whoever_was_told_of_it(drive: TapeDrive, lun: DriveLun) -> None:
    drive.write(b"one")
    lun.reset()
    assert logs.capacity(drive) is not None
    drive.write(b"two")
    drive.rewind()
    assert [read(drive) for _ in range(3)] == [b"one", b"two", Met.END_OF_DATA]


def test_another_cartridge_is_not_written_to_unasked(drive: TapeDrive, lun: DriveLun, tmp_path: Path) -> None:
    drive.write(b"one")
    lun.take_out()
    lun.insert(Cartridge.create(tmp_path / "TAP002L8", Kind(capacity_mib=100)))
    with pytest.raises(MediumChanged):
        drive.write(b"two")
    with pytest.raises(PositionLost, match="nobody knows"):
        drive.write(b"two")
    with pytest.raises(PositionLost, match="nobody knows"):
        drive.write_filemarks()


def interrupted(lun: DriveLun) -> None:
    """Ctrl-C comes when the next command has been carried out, and before anybody has heard of it."""

    def once(_lun: Lun, _command: bytes) -> None:
        lun.after = None
        raise KeyboardInterrupt

    lun.after = once


@pytest.mark.parametrize("by", [lambda drive: drive.write(b"two"), lambda drive: drive.write_filemarks()])
def test_after_an_interruption_nobody_claims_to_know_where_the_tape_stands(
    drive: TapeDrive, lun: DriveLun, by: Callable[[TapeDrive], object]
) -> None:
    drive.write(b"one")
    interrupted(lun)
    with pytest.raises(KeyboardInterrupt):
        by(drive)
    assert drive.expected is None
    with pytest.raises(PositionLost):
        drive.write(b"three")


class Answering(LoopTransport):
    """A way to a drive by which some commands are answered as one says."""

    def __init__(self, lun: DriveLun) -> None:
        super().__init__(lun)
        self.answers: dict[int, Reply] = {}

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        reply = super().execute(cdb, data_out=data_out, data_in=data_in, timeout_s=timeout_s)
        return self.answers.get(cdb[0], reply)


def sense_of(flags: int, information: int | None) -> bytes:
    valid = 0 if information is None else 0x80
    return bytes((0x70 | valid, 0, flags)) + (information or 0).to_bytes(4, "big") + bytes((10,)) + bytes(10)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(0, b"", 60),  # the adapter lost the rest
        Reply(2, sense_of(0x20, 20), 60),  # a block of 80 bytes, of which 60 came
        Reply(2, sense_of(0x20, None), 100),  # of another length, and the drive does not tell which
    ],
)
def test_a_block_that_did_not_come_whole_is_none(lun: DriveLun, tape: Cartridge, reply: Reply) -> None:
    lun.insert(tape)
    transport = Answering(lun)
    drive = TapeDrive(transport, sleep=lambda _: None)
    drive.load()
    drive.write(bytes(100))
    drive.rewind()
    transport.answers[0x08] = reply
    with pytest.raises(TapeError):
        read(drive, 100)


@pytest.mark.parametrize("reply", [Reply(0, b"", 60), Reply(2, sense_of(0x40, 40), 60)])
def test_a_block_that_was_not_taken_whole_is_not_written(lun: DriveLun, tape: Cartridge, reply: Reply) -> None:
    lun.insert(tape)
    transport = Answering(lun)
    drive = TapeDrive(transport, sleep=lambda _: None)
    drive.load()
    transport.answers[0x0A] = reply
    with pytest.raises(TapeError, match="of a block of 100 bytes 40 were not written"):
        drive.write(bytes(100))
    assert drive.expected is None
