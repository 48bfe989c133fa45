"""Mounting: which index is the volume's present state, and whether the volume may be written to.

memory says: nobody wrote since  ─▶ the index that it names
else                             ─▶ the last index of each partition, held against each other:

        index partition   data partition      the volume
        ───────────────   ─────────────────   ──────────────────────────────────────────────
        generation n  ──▶ generation n        consistent
        generation n      n + k, ◀─ … ─ n     consistent, once the index partition is brought up to date
        none, or torn     n                   likewise: a writer died while it wrote over the old one
        n + 1         ──▶ n, data behind it   consistent, and full: there was no room for the index
        n or older        n, data behind it   inconsistent: the writer died; `recover` rolls back
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tape.errors import FormatError, Inconsistent
from tape.ltfs import coherency
from tape.ltfs.index import File, Index, Pointer
from tape.ltfs.label import FIRST_CONTENT_BLOCK
from tape.ltfs.layout import Layout, Tail, read_index, read_layout, read_tail
from tape.sequential import SequentialDrive

_CHAIN_MAX = 100_000
_ANYWHERE = 1 << 62  # the index partition is held when it is written


@dataclass(frozen=True, slots=True)
class Mounted:
    """What a volume is when it is mounted.

    Attributes:
        layout: how it lies on its cartridge.
        index: its present state.
        data_index: where the data partition's last index begins.
        data_generation: of that.
        data_end: the block behind all that is recorded on the data partition.
        index_is_behind: the index partition's copy must be brought up to date before anything else is written.
        shared: the index partition holds more than one index: files, or indexes that must stay.
        full: the data partition has no room, not even for an index.
        by_memory: the cartridge's memory was believed; the tape was not searched.
    """

    layout: Layout
    index: Index
    data_index: Pointer
    data_generation: int
    data_end: int
    index_is_behind: bool
    shared: bool
    full: bool
    by_memory: bool


def mount(drive: SequentialDrive, *, search: bool = False) -> Mounted:
    """Mount the volume in a drive.

    Args:
        drive: with a cartridge, ready.
        search: search the tape even though the memory could be believed.

    Raises:
        FormatError: no LTFS volume, or its metadata are wrong.
        Inconsistent: its last writer did not finish.
        TapeError: it cannot be read.
    """
    layout = read_layout(drive)
    return (None if search else _by_memory(drive, layout)) or _by_search(drive, layout)


def _by_memory(drive: SequentialDrive, layout: Layout) -> Mounted | None:
    reference = coherency.reference(drive)
    kept = {number: coherency.read(drive, number) for number in (layout.index_partition, layout.data_partition)}
    of_index, of_data = kept[layout.index_partition], kept[layout.data_partition]
    if reference is None or of_index is None or of_data is None:
        return None
    for one in (of_index, of_data):
        if one.reference != reference or one.volume_uuid != layout.label.volume_uuid:
            return None
    if of_index.generation < of_data.generation:
        return None
    index = read_index(drive, layout, Pointer(layout.label.index_partition, of_index.block))
    at = Pointer(layout.label.data_partition, of_data.block)
    if index.generation != of_index.generation or index.previous != at:
        raise FormatError(where=drive.name, reason="the cartridge's memory and its index do not agree")
    end = drive.locate_end(layout.data_partition).block
    return Mounted(
        layout,
        index,
        at,
        of_data.generation,
        end,
        index_is_behind=False,
        shared=is_shared(index, index, layout),
        full=index.generation > of_data.generation,
        by_memory=True,
    )


def hold_end(mounted: Mounted, where: str) -> None:
    """Before anything is appended to what the memory vouches for: the tape must not end before what the index names.

    Raises:
        FormatError: it does; what is written there would take the place of it.
    """
    layout = mounted.layout
    ends = {layout.label.data_partition: mounted.data_end, layout.label.index_partition: _ANYWHERE}
    hold_extents(mounted.index, layout, ends, where)
    if mounted.data_end < mounted.data_index.block + 2:  # a block of it, at least, and the filemark that ends it
        reason = f"its last index should lie at {mounted.data_index}, the tape ends at block {mounted.data_end}"
        raise FormatError(where=where, reason=reason)


def _by_search(drive: SequentialDrive, layout: Layout) -> Mounted:
    data = read_tail(drive, layout, layout.label.data_partition)
    small = read_tail(drive, layout, layout.label.index_partition)
    last = hold_consistent(drive, layout, small, data)
    newest = last if small.index is None or small.index.generation < last.generation else small.index
    behind = newest is last or not small.closed
    shared = is_shared(newest, small.index, layout)
    return Mounted(
        layout, newest, last.location, last.generation, data.end, behind, shared, full=not data.closed, by_memory=False
    )


def is_shared(newest: Index, small: Index | None, layout: Layout) -> bool:
    """Whether the index partition holds more than one index, its last one.

    A placement policy may have put files there, which the newest index names, or only older ones, to which the volume
    can be rolled back: either way its last index does not lie at the beginning.
    """
    letter = layout.label.index_partition
    if small is not None and small.location != Pointer(letter, FIRST_CONTENT_BLOCK + 1):
        return True
    files = (entry for _, entry in newest.root.walk() if isinstance(entry, File))
    return any(extent.start.partition == letter for file in files for extent in file.extents)


def hold_consistent(drive: SequentialDrive, layout: Layout, small: Tail, data: Tail) -> Index:
    """Hold how both partitions end against each other; gives the data partition's last index.

    Raises:
        Inconsistent: the last writer did not finish.
        FormatError: the indexes contradict each other.
    """
    where = drive.name
    if data.index is None:
        raise Inconsistent(where=where, reason="no index on its data partition")
    hold_back_pointer(data.index, layout, where)
    ends = {layout.label.data_partition: data.end, layout.label.index_partition: small.end}
    hold_extents(data.index, layout, ends, where)
    if small.index is not None:
        hold_extents(small.index, layout, ends, where)
    if not data.closed and not _continues(small, data.index):
        raise Inconsistent(
            where=where, reason="blocks lie behind the last index of its data partition; `recover` rolls it back"
        )
    if small.index is None:
        return data.index
    if small.index.generation >= data.index.generation:
        if small.index.previous != data.index.location:
            reason = "the index partition's index does not point to the last one of the data partition"
            raise FormatError(where=where, reason=reason)
    elif not _descends(drive, layout, data.index, small.index):
        raise FormatError(where=where, reason="the data partition's index did not grow out of the index partition's")
    return data.index


def _continues(small: Tail, last: Index) -> bool:
    """Whether the index partition has the state after the data partition's last index, which found no room there."""
    index = small.index
    return index is not None and small.closed and index.generation > last.generation and index.previous == last.location


def hold_back_pointer(index: Index, layout: Layout, where: str) -> None:
    """An index of the data partition points back to an earlier one of that partition, or to none.

    Raises:
        FormatError: it points elsewhere.
    """
    back = index.previous
    if back is None:
        return
    if back.partition != layout.label.data_partition or not FIRST_CONTENT_BLOCK < back.block < index.location.block - 2:
        raise FormatError(where=where, reason=f"the index at {index.location} points back to {back}")


def hold_extents(index: Index, layout: Layout, ends: Mapping[str, int], where: str) -> None:
    """No file lies behind the end of its partition.

    Raises:
        FormatError: one does.
    """
    for path, entry in index.root.walk():
        if not isinstance(entry, File):
            continue
        for extent in entry.extents:
            layout.number(extent.start.partition)
            end = ends[extent.start.partition]
            last = extent.start.block + extent.blocks(layout.label.block_bytes)
            if last > end:
                raise FormatError(where=where, reason=f"{path} reaches block {last} of {end}")


def _descends(drive: SequentialDrive, layout: Layout, young: Index, old: Index) -> bool:
    """Whether the old one's state is among those before the young one."""
    here = young
    for _ in range(_CHAIN_MAX):
        if here.generation <= old.generation:
            return here.generation == old.generation
        if here.previous is None:
            return False
        if old.previous == here.previous:
            return True
        here = read_index(drive, layout, here.previous)
        hold_back_pointer(here, layout, drive.name)
    return False
