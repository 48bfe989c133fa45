"""Delta files: the grains of a disk that were written after a snapshot, and tables that say where each one lies.

    disk      |g0|g1|g2|g3|g4|g5|...         capacity, cut into grains
    table 0   [ -  5  6  -  Z  - ...]        one entry a grain: PARENT, ZERO, or the slot it lies in
    file      header | tables | slots in the order of first writing

What comes in: writes in whole grains. What goes out: the file on a datastore, current after every call, written in the
order a host keeps (data, then the entry that shows them, then what shows the table). Two kinds of file share this
logic: ``cowd`` and ``sesparse`` say how entries look and where tables and slots lie.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.lab.store import Store

Slots = NDArray[np.int64]

PARENT = -1
ZERO = -2
_TABLES_KEPT = 1024  # of 32 KiB each


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of the disk: in the file at ``file_offset``, all zeroes (ZERO), or not of this file (PARENT)."""

    start: int
    length: int
    file_offset: int


class GrainFile(abc.ABC):
    """One delta file, open for reading and writing."""

    grain_bytes: int
    grains_per_table: int

    def __init__(self, store: Store, path: str, capacity_bytes: int) -> None:
        if capacity_bytes % self.grain_bytes:
            raise ValueError(f"{path}: {capacity_bytes} bytes are not whole grains of {self.grain_bytes}")
        self.store = store
        self.path = path
        self.capacity_bytes = capacity_bytes
        self._tables: dict[int, Slots] = {}

    # What the two formats differ in.

    @abc.abstractmethod
    def _has_table(self, index: int) -> bool:
        """Whether the file has that table."""

    @abc.abstractmethod
    def _load_table(self, index: int) -> Slots:
        """The slots of a table as the file has them."""

    @abc.abstractmethod
    def _add_table(self, index: int) -> None:
        """Give the file an empty table."""

    @abc.abstractmethod
    def _save_entries(self, index: int, first: int, slots: Slots) -> None:
        """Write entries of a table that the file has."""

    @abc.abstractmethod
    def _allocate(self, count: int) -> Slots:
        """So many slots that no grain lies in."""

    @abc.abstractmethod
    def _slot_offset(self, slot: int) -> int:
        """Where a slot lies in the file."""

    @abc.abstractmethod
    def _present_tables(self) -> list[int]:
        """The tables that the file has, in order."""

    # What they share.

    @property
    def _table_bytes(self) -> int:
        """How much of the disk one table describes."""
        return self.grain_bytes * self.grains_per_table

    def write(self, offset: int, data: bytes) -> None:
        """Write whole grains, in place where they exist."""
        self._check(offset, len(data))
        view = memoryview(data)
        for index, first, count in self._pieces(offset, len(data)):
            length = count * self.grain_bytes
            self._write_in_table(index, first, view[:length])
            view = view[length:]

    def _write_in_table(self, index: int, first: int, data: memoryview) -> None:
        count = len(data) // self.grain_bytes
        before = self._slots(index)[first : first + count]
        after = before.copy()
        fresh = np.flatnonzero(before < 0)
        if len(fresh):
            after[fresh] = self._allocate(len(fresh))
        for at, run in _runs(after):
            piece = data[at * self.grain_bytes : (at + run) * self.grain_bytes]
            self.store.write(self.path, self._slot_offset(int(after[at])), bytes(piece))
        if len(fresh):
            self._set(index, first, after)

    def zero(self, offset: int, length: int) -> None:
        """Make whole grains read as zeroes; formats that can say so need no space for it."""
        self.write(offset, bytes(length))

    def segments(self, offset: int, length: int) -> Iterator[Segment]:
        """Tile a range of whole grains in order, as this file alone knows it."""
        self._check(offset, length)
        for index, first, count in self._pieces(offset, length):
            slots = self._slots(index)[first : first + count]
            start = index * self._table_bytes + first * self.grain_bytes
            for at, run in _runs(slots):
                slot = int(slots[at])
                where = slot if slot < 0 else self._slot_offset(slot)
                yield Segment(start + at * self.grain_bytes, run * self.grain_bytes, where)

    def written(self) -> Iterator[Segment]:
        """Only what is of this file, in order; tables that it lacks are not visited."""
        for index in self._present_tables():
            start = index * self._table_bytes
            for segment in self.segments(start, min(self._table_bytes, self.capacity_bytes - start)):
                if segment.file_offset != PARENT:
                    yield segment

    def _slots(self, index: int) -> Slots:
        table = self._tables.get(index)
        if table is None:
            empty = np.full(self.grains_per_table, PARENT, dtype=np.int64)
            table = self._load_table(index) if self._has_table(index) else empty
            if len(self._tables) >= _TABLES_KEPT:
                self._tables.clear()  # All of it is in the file.
            self._tables[index] = table
        return table

    def _set(self, index: int, first: int, slots: Slots) -> None:
        table = self._slots(index)
        if not self._has_table(index):
            self._add_table(index)
        table[first : first + len(slots)] = slots
        self._save_entries(index, first, slots)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range at the borders of tables: (table, first grain in it, grains)."""
        grain, end = offset // self.grain_bytes, (offset + length) // self.grain_bytes
        while grain < end:
            index, first = divmod(grain, self.grains_per_table)
            count = min(self.grains_per_table - first, end - grain)
            yield index, first, count
            grain += count

    def _check(self, offset: int, length: int) -> None:
        if offset % self.grain_bytes or length % self.grain_bytes:
            raise ValueError(f"{self.path}: {length} bytes at {offset} are not whole grains of {self.grain_bytes}")
        if offset < 0 or offset + length > self.capacity_bytes:
            raise ValueError(f"{self.path}: {length} bytes at {offset} are past the end, {self.capacity_bytes}")


def _runs(slots: Slots) -> Iterator[tuple[int, int]]:
    """(first, count) of runs that lie side by side in the file, or are all of one special kind."""
    if not len(slots):
        return
    same_special = (slots[1:] == slots[:-1]) & (slots[1:] < 0)
    side_by_side = (slots[1:] - slots[:-1] == 1) & (slots[:-1] >= 0)
    cuts = np.flatnonzero(~(same_special | side_by_side)) + 1
    bounds = [0, *cuts.tolist(), len(slots)]
    for first, end in itertools.pairwise(bounds):
        yield first, end - first
