"""Runs: where the bytes of a file lie, or that they read as zeroes. Columns of numbers, because disks have millions.

    file     0      1M     2M             4M     5M        a row:  file_offset, length, device, device_offset
             ├──────┼──────┼──────────────┼──────┤                 device -1: reads as zeroes
    lies     d0@20M  zero   d1@7M          d0@80M

In: pieces in file order. Out: ``RunMap``, which tiles [0, size): neighbours that touch both in the file and on the
device are one run. Promised: memory is 26 bytes a run, and everything that makes or walks a map does so in chunks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vcbproxy.device import Device, check_range
from vcbproxy.extent import Extent, Kind
from vcbproxy.vmfs.layout import Offsets

ZERO = -1
_CHUNK_ROWS = 1 << 14

Columns = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Run:
    """``length`` bytes of a file from ``file_offset``: on a device, or zeroes (``device`` is ``ZERO``)."""

    file_offset: int
    length: int
    device: int
    device_offset: int

    @property
    def is_zero(self) -> bool:
        """Whether it reads as zeroes and lies nowhere."""
        return self.device == ZERO


@dataclass(frozen=True, slots=True, eq=False)
class RunMap:
    """All runs of a file, as columns of equal length. Compare with ``same_as``."""

    file_offset: Offsets
    length: Offsets
    device: Columns
    device_offset: Offsets
    size_bytes: int

    def __len__(self) -> int:
        return len(self.file_offset)

    def __iter__(self) -> Iterator[Run]:
        return self.between(0, self.size_bytes)

    def between(self, offset: int, length: int) -> Iterator[Run]:
        """The runs, or parts of runs, that cover a range of the file."""
        end = offset + length
        if not len(self) or length <= 0:
            return
        first = int(np.searchsorted(self.file_offset, offset, side="right")) - 1
        last = int(np.searchsorted(self.file_offset, end, side="left"))
        for row in range(max(0, first), last, _CHUNK_ROWS):
            for start, size, device, place in zip(*self._rows(row, min(row + _CHUNK_ROWS, last)), strict=True):
                skip = max(0, offset - start)
                size = min(start + size, end) - start - skip
                yield Run(start + skip, size, device, place if device == ZERO else place + skip)

    def _rows(self, first: int, last: int) -> tuple[list[int], list[int], list[int], list[int]]:
        part = slice(first, last)
        return (
            self.file_offset[part].tolist(),
            self.length[part].tolist(),
            self.device[part].tolist(),
            self.device_offset[part].tolist(),
        )

    def extents(self) -> Iterator[Extent]:
        """DATA where a run lies on a device, ZERO elsewhere; neighbours of one kind are merged."""
        zero = self.device == ZERO
        first = np.flatnonzero(np.diff(zero, prepend=~zero[:1]))
        for row in range(0, len(first), _CHUNK_ROWS):
            rows = first[row : row + _CHUNK_ROWS + 1]
            edges = self.file_offset[rows].tolist()
            if row + _CHUNK_ROWS >= len(first):
                edges.append(self.size_bytes)
            kinds = (Kind.ZERO if flag else Kind.DATA for flag in zero[rows].tolist())
            for (start, end), kind in zip(itertools.pairwise(edges), kinds, strict=False):
                yield Extent(start, end - start, kind)

    def same_as(self, other: RunMap) -> bool:
        """Whether both put every byte at the same place."""
        return self.size_bytes == other.size_bytes and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(self._columns(), other._columns(), strict=True)
        )

    def _columns(self) -> tuple[npt.NDArray[np.int64] | Columns, ...]:
        return self.file_offset, self.length, self.device, self.device_offset

    @property
    def allocated_bytes(self) -> int:
        """How many bytes of the file lie on devices."""
        return int(self.length[self.device != ZERO].sum())


def nothing() -> RunMap:
    """The map of an empty file."""
    none = np.empty(0, np.int64)
    return RunMap(none, none, np.empty(0, np.int16), none, 0)


def joined(starts: Offsets, devices: Columns, places: Offsets, size_bytes: int) -> RunMap:
    """Make a map of pieces that follow one another from 0 to ``size_bytes``; those that touch are joined."""
    lengths = np.diff(starts, append=size_bytes)
    assert len(starts), "a map without pieces"
    assert starts[0] == 0, "a map that does not start at 0"
    assert lengths.min() > 0, "pieces out of order"
    apart = np.ones(len(starts), bool)
    same_device = devices[1:] == devices[:-1]
    touching = (devices[1:] == ZERO) | (places[1:] == places[:-1] + lengths[:-1])
    apart[1:] = ~(same_device & touching)
    first = np.flatnonzero(apart)
    starts = starts[first]
    devices = devices[first].astype(np.int16)
    places = np.where(devices == ZERO, 0, places[first])
    return RunMap(starts, np.diff(starts, append=size_bytes), devices, places, size_bytes)


class Mapped:
    """Bytes that lie as a run map says: a ``MappedDevice``, and the base of a volume and of a file."""

    def __init__(self, name: str, runs: RunMap, devices: Sequence[Device]) -> None:
        self._name = name
        self._runs = runs
        self.devices = tuple(devices)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """Where the map ends."""
        return self._runs.size_bytes

    def runs(self) -> RunMap:
        """Where each byte lies; ``device`` is an index into ``devices``."""
        return self._runs

    def extents(self) -> Iterator[Extent]:
        """DATA where bytes lie on a device, ZERO where they read as zeroes."""
        return self._runs.extents()

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``: straight into place from the devices, zeroes where nothing lies.

        Raises:
            DeviceError: outside the map, or a device could not be read.
        """
        check_range(self, offset, len(buf))
        done = 0
        for run in self._runs.between(offset, len(buf)):
            part = buf[done : done + run.length]
            if run.is_zero:
                np.frombuffer(part, np.uint8).fill(0)
            else:
                self.devices[run.device].read_into(run.device_offset, part)
            done += run.length
        assert done == len(buf), "a run map that does not tile its file"
