"""A sparse extent as a layer: its map, and the grains that the map leads to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np

from vcbproxy.device import Device
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.grains import GrainMap, Grains
from vcbproxy.vmdk.layer import Gap, State, Tile, joined, zero
from vcbproxy.vmdk.witness import Witness


class GrainReader(Protocol):
    """Reads grains from where the map says they lie."""

    @property
    def stride_bytes(self) -> int:
        """How far apart two grains must lie to be read as one; 0 if never."""

    def read_into(self, at: int, grain: int, skip: int, buf: memoryview) -> None:
        """Fill ``buf`` from ``skip`` bytes into grain number ``grain``, which lies at ``at``.

        Raises:
            SourceError: it cannot be read, or is not that grain.
        """


class PlainGrains:
    """Grains that lie in the file as they are: neighbours on the disk that are neighbours in the file are one read."""

    def __init__(self, file: Device, grain_bytes: int) -> None:
        self._file = file
        self._grain_bytes = grain_bytes

    @property
    def stride_bytes(self) -> int:
        """One grain."""
        return self._grain_bytes

    def read_into(self, at: int, grain: int, skip: int, buf: memoryview) -> None:
        """Read from the file."""
        self._file.read_into(at + skip, buf)


class SparseLayer:
    """A sparse extent. Tables come through the cache; of each, 8 bytes are held for the second look."""

    def __init__(self, file_name: str, grain_map: GrainMap, grains: GrainReader, cache: Cache) -> None:
        self._map = grain_map
        self._shape = grain_map.shape
        self._reader = grains
        self._cache = cache
        self._witness = Witness(file_name, "grain table")

    @property
    def size_bytes(self) -> int:
        """What the descriptor says."""
        return self._shape.size_bytes

    def tiles(self) -> Iterator[Tile]:
        """Table by table; ranges without a table are one tile."""
        shape, index = self._shape, 0
        while index < shape.table_count:
            present = self._map.present(index)[: shape.table_count - index]
            absent = int(np.argmax(present)) if present.any() else len(present)
            if absent:
                start = index * shape.table_bytes
                stop = min((index + absent) * shape.table_bytes, shape.size_bytes)
                yield Tile(start, stop - start, State.BELOW)
                index += absent
                continue
            yield from self._table_tiles(index)
            index += 1

    def _table_tiles(self, index: int) -> Iterator[Tile]:
        grains = self._table(index)
        base, grain_bytes = index * self._shape.table_bytes, self._shape.grain_bytes
        cuts = np.flatnonzero(np.diff(grains.state)) + 1
        bounds = [0, *cuts.tolist(), len(grains.state)]
        for first, last in pairwise(bounds):
            start = base + first * grain_bytes
            stop = min(base + last * grain_bytes, self._shape.size_bytes)
            yield Tile(start, stop - start, State(int(grains.state[first])))

    def fill(self, offset: int, buf: memoryview) -> list[Gap]:
        """Read the grains that are here; a run of them that lies in one piece is one read."""
        gaps: list[Gap] = []
        position, end = offset, offset + len(buf)
        while position < end:
            index = position // self._shape.table_bytes
            stop = min(end, (index + 1) * self._shape.table_bytes)
            gaps += self._fill_from(index, position, buf[position - offset : stop - offset])
            position = stop
        return joined(gaps)

    def _fill_from(self, index: int, offset: int, buf: memoryview) -> list[Gap]:
        """Fill a range that one table covers."""
        grains, grain_bytes = self._table(index), self._shape.grain_bytes
        base, end = index * self._shape.table_bytes, offset + len(buf)
        first, last = (offset - base) // grain_bytes, -(-(end - base) // grain_bytes)
        gaps = []
        for run_first, run_last in self._runs(grains, first, last):
            start = max(offset, base + run_first * grain_bytes)
            stop = min(end, base + run_last * grain_bytes)
            part = buf[start - offset : stop - offset]
            match State(int(grains.state[run_first])):
                case State.BELOW:
                    gaps.append(Gap(start, stop - start))
                case State.ZERO:
                    zero(part)
                case State.HERE:
                    grain = index * self._shape.grains_per_table + run_first
                    self._reader.read_into(int(grains.at[run_first]), grain, start - grain * grain_bytes, part)
        return gaps

    def _runs(self, grains: Grains, first: int, last: int) -> list[tuple[int, int]]:
        """Cut [first, last) where the state changes, and where grains do not lie behind each other in the file."""
        state, at = grains.state[first:last], grains.at[first:last]
        cut = (state[1:] != state[:-1]) | ((state[1:] == State.HERE) & (np.diff(at) != self._reader.stride_bytes))
        bounds = [first, *(np.flatnonzero(cut) + first + 1).tolist(), last]
        return list(pairwise(bounds))

    def _table(self, index: int) -> Grains:
        return self._cache.get((id(self), index), Grains, lambda: self._load(index))

    def recheck(self) -> None:
        """Header, directory, and every table that was looked at: past the cache."""
        self._map.recheck()
        for index in self._witness.seen():
            self._load(index)

    def _load(self, index: int) -> Grains:
        grains = self._map.table(index)
        if grains is not None:
            self._witness.saw(index, grains.state.data, grains.at.data)
            return grains
        count = self._shape.grains_in(index)
        return Grains(np.zeros(count, dtype=np.uint8), np.zeros(count, dtype=np.int64))
