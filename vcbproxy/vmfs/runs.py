"""Runs: where the bytes of a file lie, or that they read as zeroes. Columns of numbers, because disks have millions.

    file     0      1M     2M             4M     5M        a row:  file_offset, length, device, device_offset
             ├──────┼──────┼──────────────┼──────┤                 device -1: reads as zeroes
    lies     d0@20M  zero   d1@7M          d0@80M

In: pieces in file order. Out: ``RunMap``, which tiles [0, size): neighbours that touch both in the file and on the
device are one run. Promised: memory is 18 bytes a run, and everything that makes or walks a map does so in chunks.
"""

from __future__ import annotations

import itertools
from array import array
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
    device: Columns
    device_offset: Offsets
    size_bytes: int

    def __len__(self) -> int:
        return len(self.file_offset)

    def __iter__(self) -> Iterator[Run]:
        return self.between(0, self.size_bytes)

    @property
    def length(self) -> Offsets:
        """Each run reaches to the next one's start."""
        return np.diff(self.file_offset, append=self.size_bytes)

    def between(self, offset: int, length: int) -> Iterator[Run]:
        """The runs, or parts of runs, that cover a range of the file."""
        end = offset + length
        if length <= 0 or not len(self):
            return
        first = int(np.searchsorted(self.file_offset, offset, side="right")) - 1
        last = int(np.searchsorted(self.file_offset, end, side="left"))
        for row in range(max(0, first), last, _CHUNK_ROWS):
            starts, ends, devices, places = self._rows(row, min(row + _CHUNK_ROWS, last))
            for start, stop, device, place in zip(starts, ends, devices, places, strict=True):
                skip = max(0, offset - start)
                yield Run(start + skip, min(stop, end) - start - skip, device, 0 if device == ZERO else place + skip)

    def _rows(self, first: int, last: int) -> tuple[list[int], list[int], list[int], list[int]]:
        starts = self.file_offset[first : last + 1].tolist()
        if last == len(self):
            starts.append(self.size_bytes)
        part = slice(first, last)
        return starts[:-1], starts[1:], self.device[part].tolist(), self.device_offset[part].tolist()

    def chunks(self) -> Iterator[tuple[Offsets, Offsets, Columns, Offsets]]:
        """All columns (file offset, length, device, device offset), some thousand rows at a time."""
        for row in range(0, len(self), _CHUNK_ROWS):
            part = slice(row, row + _CHUNK_ROWS)
            starts = self.file_offset[part]
            end = int(self.file_offset[row + _CHUNK_ROWS]) if row + _CHUNK_ROWS < len(self) else self.size_bytes
            yield starts, np.diff(starts, append=end), self.device[part], self.device_offset[part]

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
        return (
            self.size_bytes == other.size_bytes
            and np.array_equal(self.file_offset, other.file_offset)
            and np.array_equal(self.device, other.device)
            and np.array_equal(self.device_offset, other.device_offset)
        )

    @property
    def allocated_bytes(self) -> int:
        """How many bytes of the file lie on devices."""
        return sum(int(lengths[devices != ZERO].sum()) for _, lengths, devices, _ in self.chunks())


class Builder:
    """Makes a map of pieces that are added in file order, without a copy of what it already has.

    Pieces that touch both in the file and on the device become one run; what no piece covers reads as zeroes.
    """

    def __init__(self) -> None:
        self._starts = array("q")
        self._devices = array("h")
        self._places = array("q")
        self._end = 0

    def add(self, starts: Offsets, lengths: Offsets, devices: Columns, places: Offsets) -> None:
        """Add pieces; the first starts no earlier than the last one so far ended."""
        if not len(starts):
            return
        ends = starts + lengths
        before = np.concatenate(([self._end], ends[:-1]))
        assert (starts >= before).all(), "pieces out of order"
        assert lengths.min() > 0, "an empty piece"
        holes = np.flatnonzero(starts != before)
        self._end = int(ends[-1])
        if len(holes):
            devices = np.insert(devices, holes, ZERO)
            places = np.insert(places, holes, 0)
            starts = np.insert(starts, holes, before[holes])
        self._join(starts, devices, np.where(devices == ZERO, 0, places))

    def _join(self, starts: Offsets, devices: Columns, places: Offsets) -> None:
        """Append rows that follow one another, leaving out each that goes on where the one before it ends."""
        apart = np.ones(len(starts), bool)
        apart[1:] = (devices[1:] != devices[:-1]) | (
            (devices[1:] != ZERO) & (places[1:] - places[:-1] != starts[1:] - starts[:-1])
        )
        if self._starts and self._devices[-1] == devices[0]:
            goes_on = int(places[0]) - self._places[-1] == int(starts[0]) - self._starts[-1]
            apart[0] = devices[0] != ZERO and not goes_on
        self._starts.frombytes(raw_bytes(starts[apart].astype(np.int64, copy=False)))
        self._devices.frombytes(raw_bytes(devices[apart].astype(np.int16, copy=False)))
        self._places.frombytes(raw_bytes(places[apart].astype(np.int64, copy=False)))

    def finish(self, size_bytes: int) -> RunMap:
        """The map of a file of that size; what was added past its end is cut off."""
        if size_bytes > self._end:
            last = np.array([self._end], np.int64)
            self._join(last, np.array([ZERO], np.int16), np.zeros(1, np.int64))
        starts = np.frombuffer(self._starts, np.int64)
        rows = int(np.searchsorted(starts, size_bytes, side="left"))
        devices, places = np.frombuffer(self._devices, np.int16), np.frombuffer(self._places, np.int64)
        return RunMap(starts[:rows], devices[:rows], places[:rows], size_bytes)


def raw_bytes(column: npt.NDArray[np.generic]) -> memoryview:
    """A column as bytes, to append to an ``array``: that grows in place, where NumPy would copy the whole."""
    return np.ascontiguousarray(column).view(np.uint8).data


def of_one(device: int, place: int, size_bytes: int) -> RunMap:
    """The map of a file in one piece."""
    build = Builder()
    if size_bytes:
        one = np.array([size_bytes], np.int64)
        build.add(np.zeros(1, np.int64), one, np.array([device], np.int16), np.array([place], np.int64))
    return build.finish(size_bytes)


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
