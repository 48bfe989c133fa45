"""Making a state of the volume the one that the next mount finds. Each step is on tape before the next begins.

    data flushed ─▶ index on the data partition ─▶ index on the index partition ─▶ the cartridge's memory
                    │ no room: only on the other     over the one before it: its twin is safe
                    └────────────────────────────▶ behind the one before it: nothing else holds the state

A power cut between any two of them leaves a volume that mounts with the old state or the new one. Errors of data that
the drive had buffered come out at the first flush: before any index says that they are there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tape.errors import PositionLost, RefusedCommand, VolumeOverflow
from tape.ltfs import coherency, indexxml
from tape.ltfs.coherency import Coherency
from tape.ltfs.index import Index, Pointer
from tape.ltfs.label import FIRST_CONTENT_BLOCK
from tape.ltfs.layout import Layout
from tape.sequential import Position, SequentialDrive


def commit(
    drive: SequentialDrive, layout: Layout, index: Index, data_index: Pointer, data_end: int
) -> tuple[Pointer, int]:
    """Write an index to both partitions.

    Args:
        drive: the drive.
        layout: of the volume.
        index: its new state, generation and time set; its location and back pointer are set here.
        data_index: where the data partition's last index begins.
        data_end: the block behind all that is recorded there.

    Returns:
        Where the data partition's last index begins now, and its new end.

    Raises:
        PositionLost: the data partition does not end where it must: somebody else wrote.
        TapeError: an index could not be written; the state before is still there.
    """
    end = drive.locate_end(layout.data_partition)
    if end.block != data_end:
        raise PositionLost(device=drive.name, expected=Position(layout.data_partition, data_end), found=end)
    drive.flush()
    index.previous = data_index
    index.location = Pointer(layout.label.data_partition, data_end + 1)
    try:
        data_end = write_index(drive, layout, index, end)
    except VolumeOverflow:
        # The last blocks belong to an index that is cut off. The other partition's says what is whole.
        _write_small(drive, layout, index, drive.locate_end(layout.index_partition))
        remember(drive, layout, index, index.generation - 1)
        return data_index, drive.locate_end(layout.data_partition).block
    data_index = index.location
    write_small(drive, layout, index, data_index)
    return data_index, data_end


def write_small(drive: SequentialDrive, layout: Layout, index: Index, data_index: Pointer) -> None:
    """Bring the index partition up to date with the data partition's last index.

    Raises:
        TapeError: it could not be written.
    """
    index.previous = data_index
    _write_small(drive, layout, index, Position(layout.index_partition, FIRST_CONTENT_BLOCK))
    remember(drive, layout, index)


def _write_small(drive: SequentialDrive, layout: Layout, index: Index, place: Position) -> None:
    index.location = Pointer(layout.label.index_partition, place.block + 1)
    write_index(drive, layout, index, place)


def write_index(drive: SequentialDrive, layout: Layout, index: Index, place: Position) -> int:
    """Write an index construct: filemark, index, filemark; on tape when this returns. Gives the block behind it.

    Raises:
        VolumeOverflow: there is no room for it.
        TapeError: it could not be written.
    """
    drive.locate(place)
    drive.write_filemarks()
    for block in blocks(indexxml.encode(index), layout.label.block_bytes):
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
