"""Making a state of the volume the one that the next mount finds. Each step is on tape before the next begins.

    data flushed ─▶ index on the data partition ─▶ index on the index partition ─▶ the cartridge's memory
                    │ no room: only on the other     over the one before it: its twin is safe
                    │ it fails: likewise             behind it, where nothing may be written over
                    └────────────────────────────▶ behind the one before it: nothing else holds the state

A power cut between any two of them leaves a volume that mounts with the old state or the new one. Errors of data that
the drive had buffered come out at the first flush: before any index says that they are there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tape.errors import PositionLost, RefusedCommand, VolumeOverflow
from tape.ltfs import coherency, indexwriting
from tape.ltfs.coherency import Coherency
from tape.ltfs.index import Index, Pointer
from tape.ltfs.label import FIRST_CONTENT_BLOCK
from tape.ltfs.layout import Layout
from tape.ltfs.protection import Protection
from tape.sequential import Position, SequentialDrive


def to_data_partition(
    drive: SequentialDrive, layout: Layout, index: Index, data_index: Pointer, data_end: int
) -> tuple[Pointer, int]:
    """Write an index to the end of the data partition.

    Args:
        drive: the drive.
        layout: of the volume.
        index: its new state, generation and time set; its location and back pointer are set here.
        data_index: where that partition's last index begins.
        data_end: the block behind all that is recorded there.

    Returns:
        Where the data partition's last index begins now, and its new end.

    Raises:
        PositionLost: the data partition does not end where it must: somebody else wrote.
        VolumeOverflow: it found no room, or not all of it.
        TapeError: it could not be written; the state before is still there.
    """
    end = drive.locate_end(layout.data_partition)
    if end.block != data_end:
        raise PositionLost(device=drive.name, expected=Position(layout.data_partition, data_end), found=end)
    drive.flush()
    index.previous = data_index
    index.location = Pointer(layout.label.data_partition, data_end + 1)
    return index.location, write_index(drive, layout, index, end)


def to_index_partition(
    drive: SequentialDrive,
    layout: Layout,
    index: Index,
    data_index: Pointer,
    protection: Protection,
    *,
    appended: bool = False,
) -> None:
    """Bring the index partition up to date with the data partition's last index.

    Args:
        drive: the drive.
        layout: of the volume.
        index: the data partition's last index.
        data_index: where that begins.
        protection: of the cartridge.
        appended: behind all that lies there, for that is more than an index.

    Raises:
        TapeError: it could not be written.
    """
    index.previous = data_index
    if appended or protection.worm:
        place = drive.locate_end(layout.index_partition)
    else:
        place = _written_over(drive, layout, protection)
    _write_small(drive, layout, index, place)
    remember(drive, layout, index)


def to_index_partition_alone(
    drive: SequentialDrive,
    layout: Layout,
    index: Index,
    data_index: Pointer,
    older: int,
    protection: Protection,
    *,
    appended: bool,
) -> None:
    """Write a state that found no room on the data partition: behind what the index partition has, if that can be.

    Args:
        drive: the drive.
        layout: of the volume.
        index: the state.
        data_index: where the data partition's last index begins.
        older: the generation of that.
        protection: of the cartridge.
        appended: nothing there may be written over; else the last index may, which the data partition has as well.

    Raises:
        VolumeOverflow: it found no room there either.
        TapeError: it could not be written.
    """
    index.previous = data_index
    try:
        _write_small(drive, layout, index, drive.locate_end(layout.index_partition))
    except VolumeOverflow:
        if appended or protection.worm:
            raise
        _write_small(drive, layout, index, _written_over(drive, layout, protection))
    remember(drive, layout, index, older)


def _written_over(drive: SequentialDrive, layout: Layout, protection: Protection) -> Position:
    """Where the index partition's index lies; the tape stands there, and the drive lets it be written over."""
    place = Position(layout.index_partition, FIRST_CONTENT_BLOCK)
    drive.locate(place)
    protection.may_write_over(drive, place.partition, place.block)
    return place


def _write_small(drive: SequentialDrive, layout: Layout, index: Index, place: Position) -> None:
    index.location = Pointer(layout.label.index_partition, place.block + 1)
    write_index(drive, layout, index, place)


def write_index(drive: SequentialDrive, layout: Layout, index: Index, place: Position) -> int:
    """Write an index construct: filemark, index, filemark; on tape when this returns. Gives the block behind it.

    Raises:
        VolumeOverflow: there is no room for it.
        TapeError: it could not be written.
    """
    if drive.expected != place:
        drive.locate(place)
    drive.write_filemarks()
    for block in blocks(indexwriting.encode(index), layout.label.block_bytes):
        drive.write(block)
    drive.write_filemarks()
    return drive.position().block


def blocks(pieces: Iterator[bytes], block_bytes: int) -> Iterator[bytes]:
    """Pieces as full blocks, and a last one."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= block_bytes:
            yield bytes(held[:block_bytes])
            del held[:block_bytes]
    if held:
        yield bytes(held)


def remember(drive: SequentialDrive, layout: Layout, index: Index, data_generation: int | None = None) -> None:
    """Tell the cartridge's memory where the last indexes are; where it takes nothing, the next mount searches.

    Args:
        drive: the drive.
        layout: of the volume.
        index: the index partition's, as it is on tape.
        data_generation: of the data partition's last index, if that is an older one.
    """
    reference = coherency.reference(drive)
    if reference is None or index.previous is None:
        return
    uuid = layout.label.volume_uuid
    older = index.generation if data_generation is None else data_generation
    both = {
        layout.index_partition: Coherency(reference, index.generation, index.location.block, uuid),
        layout.data_partition: Coherency(reference, older, index.previous.block, uuid),
    }
    for partition, what in both.items():
        try:
            coherency.write(drive, partition, what)
        except RefusedCommand:
            return
