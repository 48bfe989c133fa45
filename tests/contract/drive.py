"""What every tape drive promises, whichever way leads to it: one function each, on a drive with a blank cartridge.

Run on the emulated drive by tests/tape/test_promises.py, on the kernel's own devices by the guest's tape suite.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tape.errors import EndOfData, FormatError, PositionLost, RefusedCommand, VolumeOverflow
from tape.sequential import EndWarning, Met, Position, SequentialDrive

CAPACITY_MIB = 24
"""Of the cartridge, so that its end is not far."""
_BLOCK = 512 * 1024


def read(drive: SequentialDrive, size: int = 1 << 20) -> bytes | Met:
    buf = memoryview(bytearray(size))
    found = drive.read(buf)
    return found if isinstance(found, Met) else bytes(buf[:found])


def begin(drive: SequentialDrive) -> None:
    drive.locate(Position(0, 0))


def blocks_and_filemarks_are_read_back(drive: SequentialDrive) -> None:
    begin(drive)
    for block in (b"one", b"two" * 1000):
        assert drive.write(block) is EndWarning.NONE
    drive.write_filemarks()
    drive.write(bytes(_BLOCK))
    drive.flush()
    assert drive.expected == drive.position() == Position(0, 4)
    drive.rewind()
    found = [read(drive) for _ in range(5)]
    assert found == [b"one", b"two" * 1000, Met.FILEMARK, bytes(_BLOCK), Met.END_OF_DATA]
    assert drive.expected == drive.position() == Position(0, 4)


def the_end_of_data_is_no_filemark(drive: SequentialDrive) -> None:
    begin(drive)
    drive.write(b"one")
    drive.write_filemarks(2)
    drive.rewind()
    assert [read(drive) for _ in range(5)] == [b"one", Met.FILEMARK, Met.FILEMARK, Met.END_OF_DATA, Met.END_OF_DATA]
    assert drive.position() == Position(0, 3)
    drive.write(b"behind")
    drive.locate(Position(0, 2))
    assert [read(drive) for _ in range(3)] == [Met.FILEMARK, b"behind", Met.END_OF_DATA]


def a_block_longer_than_the_buffer_is_refused(drive: SequentialDrive) -> None:
    begin(drive)
    drive.write(bytes(5000))
    drive.write(b"next")
    drive.rewind()
    with pytest.raises(FormatError, match="a block of"):
        read(drive, 4096)
    assert read(drive) == b"next"


def places_are_found(drive: SequentialDrive) -> None:
    begin(drive)
    for number in range(6):
        drive.write(b"block %d" % number)
    drive.write_filemarks()
    drive.locate(Position(0, 4))
    assert (drive.expected, read(drive)) == (Position(0, 4), b"block 4")
    drive.locate(Position(0, 1))
    assert read(drive) == b"block 1"
    assert drive.locate_end(0) == Position(0, 7)
    with pytest.raises(EndOfData):
        drive.locate(Position(0, 9))
    with pytest.raises(RefusedCommand):
        drive.locate(Position(1, 0))
    drive.locate(Position(0, 7))
    assert read(drive) is Met.END_OF_DATA


def spacing_goes_over_filemarks_both_ways(drive: SequentialDrive) -> None:
    begin(drive)
    for block in (b"a", b"b", b"c"):
        drive.write(block)
        drive.write_filemarks()
    drive.rewind()
    assert drive.space_filemarks(2) == Position(0, 4)
    assert read(drive) == b"c"
    drive.locate_end(0)
    assert drive.space_filemarks(-1) == Position(0, 5)
    assert drive.space_filemarks(-2) == Position(0, 1)
    assert read(drive) is Met.FILEMARK
    with pytest.raises(EndOfData):
        drive.space_filemarks(5)
    drive.locate(Position(0, 2))
    with pytest.raises(EndOfData):
        drive.space_filemarks(-3)


def writing_over_ends_the_data_there(drive: SequentialDrive) -> None:
    begin(drive)
    for block in (b"a", b"b", b"c"):
        drive.write(block)
    drive.locate(Position(0, 1))
    drive.write(b"B")
    assert drive.locate_end(0) == Position(0, 2)
    drive.rewind()
    assert [read(drive) for _ in range(3)] == [b"a", b"B", Met.END_OF_DATA]


def nothing_is_written_that_nobody_asked_for(drive: SequentialDrive) -> None:
    """No filemark behind blocks when one goes elsewhere, as drivers of a Unix have always done."""
    begin(drive)
    drive.write(b"a")
    drive.rewind()
    assert [read(drive), read(drive)] == [b"a", Met.END_OF_DATA]
    drive.write(b"b")
    drive.locate(Position(0, 0))
    assert drive.locate_end(0) == Position(0, 2)
    drive.write(b"c")
    assert drive.locate_end(0) == Position(0, 3)


def two_partitions_are_two_tapes(drive: SequentialDrive) -> None:
    drive.partition_in_two()
    for partition, block in ((1, b"data"), (0, b"index")):
        drive.locate(Position(partition, 0))
        drive.write(block)
    drive.write_filemarks()
    assert (drive.locate_end(1), drive.locate_end(0)) == (Position(1, 1), Position(0, 2))
    drive.locate(Position(1, 0))
    assert [read(drive), read(drive)] == [b"data", Met.END_OF_DATA]
    drive.locate(Position(0, 0))
    assert [read(drive), read(drive), read(drive)] == [b"index", Met.FILEMARK, Met.END_OF_DATA]


def the_end_is_announced_and_then_reached(drive: SequentialDrive) -> None:
    """What was accepted is there, what was not is not; filemarks find room behind the warning."""
    begin(drive)
    warned_at = written_until(drive, EndWarning.EARLY)
    drive.write_filemarks()
    count = written_until(drive, None, warned_at + 1)
    assert count > warned_at + 3, "some room is left behind the warning"
    assert drive.locate_end(0) == Position(0, count + 1)
    drive.locate(Position(0, 0))
    found = [read(drive) for _ in range(count + 2)]
    assert found[warned_at + 1] is Met.FILEMARK
    assert found[-1] is Met.END_OF_DATA
    blocks = [one for one in found if isinstance(one, bytes)]
    assert [int.from_bytes(block[:4], "big") for block in blocks] == list(range(count))


def written_until(drive: SequentialDrive, warning: EndWarning | None, count: int = 0) -> int:
    """Write blocks until one is answered by a warning, or refused (None); gives its number."""
    for number in range(count, 4 * CAPACITY_MIB):
        try:
            found = drive.write(numbered(number))
        except VolumeOverflow:
            assert warning is None, "the end came unannounced"
            return number
        if found is warning:
            return number
    raise AssertionError("no end")


def numbered(number: int) -> bytes:
    return number.to_bytes(4, "big").ljust(_BLOCK, b".")


def it_is_written_only_where_it_is_known_to_stand(drive: SequentialDrive) -> None:
    with pytest.raises(EndOfData):
        drive.locate(Position(0, 1 << 20))
    with pytest.raises((EndOfData, RefusedCommand)):
        drive.locate(Position(7, 0))
    with pytest.raises(PositionLost):
        drive.write(b"somewhere")
    with pytest.raises(PositionLost):
        drive.write_filemarks()
    drive.flush()
    begin(drive)
    drive.write(b"here")


PROMISES: list[Callable[[SequentialDrive], None]] = [
    blocks_and_filemarks_are_read_back,
    the_end_of_data_is_no_filemark,
    a_block_longer_than_the_buffer_is_refused,
    places_are_found,
    spacing_goes_over_filemarks_both_ways,
    writing_over_ends_the_data_there,
    nothing_is_written_that_nobody_asked_for,
    it_is_written_only_where_it_is_known_to_stand,
    the_end_is_announced_and_then_reached,
    two_partitions_are_two_tapes,  # the last: the cartridge has two from then on
]
