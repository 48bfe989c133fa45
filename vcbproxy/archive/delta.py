r"""Delta images: what changed of a disk since its base, packed one range behind the other.

    disk     ├──────▓▓▓▓──────▓▓──────────────▓▓▓▓▓▓──┤       ▓ changed
    map      7 4 / 17 2 / 33 6                                 a line for each range: offset and length, in bytes
    image    ├▓▓▓▓┼▓▓┼▓▓▓▓▓▓┤                                  an image like any other, of this shorter disk

Whoever has the base's disk as a file needs no program of ours to bring it up to date:

    zstd -dc disk.delta.raw.zst | while read -r offset length <&3; do
        dd of=disk.raw bs=1M iflag=fullblock,count_bytes count="$length" \
           oflag=seek_bytes seek="$offset" conv=notrunc status=none
    done 3< disk.delta.map

What became zeroes is in the image as zeroes: they cost next to nothing there, and must overwrite what the base has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcbproxy.device import MappedDevice, check_range
from vcbproxy.errors import IntegrityError
from vcbproxy.extent import Extent, Kind, merged

_LINE = re.compile(rb"(0|[1-9][0-9]{0,18}) ([1-9][0-9]{0,18})\n")
_BATCH = 4096


class DeltaMap:
    """Which ranges of a disk a delta image has, in order: int64[n, 2], as [offset, offset + length)."""

    def __init__(self, ranges: NDArray[np.int64]) -> None:
        assert ranges.ndim == 2, ranges.shape
        self.ranges = ranges
        lengths = ranges[:, 1] - ranges[:, 0]
        assert (lengths > 0).all(), "an empty range"
        assert (ranges[1:, 0] >= ranges[:-1, 1]).all(), "ranges overlap or are out of order"
        self._ends: NDArray[np.int64] = np.cumsum(lengths, dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Of all ranges together."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def places(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Where on the disk a part of the image lies: offsets and lengths, in order.

        Raises:
            IntegrityError: the image has more than the map.
        """
        if offset + length > self.size_bytes:
            raise IntegrityError(f"a delta image reaches byte {offset + length}, its map names {self.size_bytes}")
        row = int(np.searchsorted(self._ends, offset, side="right"))
        while length:
            left = int(self._ends[row]) - offset
            count = min(left, length)
            yield int(self.ranges[row, 1]) - left, count
            offset, length, row = offset + count, length - count, row + 1

    def encode(self) -> Iterator[bytes]:
        """The map file's text, in pieces."""
        for start in range(0, len(self.ranges), _BATCH):
            rows = self.ranges[start : start + _BATCH].tolist()
            yield "".join(f"{begin} {end - begin}\n" for begin, end in rows).encode("ascii")


def parse_map(text: bytes, disk_bytes: int, name: str) -> DeltaMap:
    """Read a map file.

    Args:
        text: all of it.
        disk_bytes: the disk's size; no range lies behind it.
        name: what messages call it.

    Raises:
        IntegrityError: a line is none, or the ranges are not in order within the disk.
    """
    rows: list[tuple[int, int]] = []
    at = end = 0
    while at < len(text):
        match = _LINE.match(text, at)
        if match is None:
            line = text[at : at + 60].split(b"\n")[0].decode("ascii", "replace")
            raise IntegrityError(f"{name}, line {len(rows) + 1}: {line!r} is no offset and length")
        start, length = int(match[1]), int(match[2])
        if start < end or start + length > disk_bytes:
            raise IntegrityError(
                f"{name}, line {len(rows) + 1}: {length} bytes at {start}, behind {end} on a disk of {disk_bytes}"
            )
        end = start + length
        rows.append((start, end))
        at = match.end()
    return DeltaMap(np.array(rows, np.int64).reshape(-1, 2))


class DeltaDevice:
    """The changed ranges of a disk, packed: what a delta image is made of. A MappedDevice."""

    def __init__(self, source: MappedDevice, changed: DeltaMap) -> None:
        """The ranges lie within the disk."""
        assert not len(changed.ranges) or int(changed.ranges[-1, 1]) <= source.size_bytes, "a range behind the disk"
        self._source = source
        self._map = changed

    @property
    def name(self) -> str:
        """The disk's."""
        return self._source.name

    @property
    def size_bytes(self) -> int:
        """Of the ranges together."""
        return self._map.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Read from the disk, range by range."""
        check_range(self, offset, len(buf))
        at = 0
        for place, length in self._map.places(offset, len(buf)):
            self._source.read_into(place, buf[at : at + length])
            at += length

    def extents(self) -> Iterator[Extent]:
        """What the disk's map says of the ranges."""
        return merged(self._packed())

    def _packed(self) -> Iterator[Extent]:
        at = 0
        for start, end, kind in _intersected(self._map.ranges, self._source.extents()):
            yield Extent(at, end - start, kind)
            at += end - start


def _intersected(ranges: NDArray[np.int64], extents: Iterable[Extent]) -> Iterator[tuple[int, int, Kind]]:
    """The parts of extents that lie in ranges; both are in order."""
    rows = (row for start in range(0, len(ranges), _BATCH) for row in ranges[start : start + _BATCH].tolist())
    row = next(rows, None)
    for extent in extents:
        while row is not None and row[0] < extent.end:
            yield max(row[0], extent.start), min(row[1], extent.end), extent.kind
            if row[1] > extent.end:
                break
            row = next(rows, None)


class Sink(Protocol):
    """Where a disk's bytes go; for several threads, each writing to other places."""

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Write all of it."""

    def zero_at(self, offset: int, length: int) -> None:
        """So many zeroes belong there."""


class DeltaSink:
    """Puts what comes out of a delta image to its places on the disk."""

    def __init__(self, disk: Sink, changed: DeltaMap) -> None:
        self._disk = disk
        self._map = changed

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Write a part of the image."""
        at = 0
        for place, length in self._map.places(offset, len(plain)):
            self._disk.write_at(place, plain[at : at + length])
            at += length

    def zero_at(self, offset: int, length: int) -> None:
        """A part of the image is zeroes."""
        for place, count in self._map.places(offset, length):
            self._disk.zero_at(place, count)
