"""What to read of a disk, in which order, into which memory.

Comes in: a disk's extents. Goes out: a plan of *segments* (to be filled: read where there are data, wiped where there
are a few zeroes between) and *gaps* (long zeroes: not read, not even wiped), in order, tiling the disk.

    extents   ├─DATA─┼ZERO┼──DATA──┼────────ZERO────────┼──DATA──┤        segments end at absolute multiples of their
    plan      ├─────segment────────┼────────gap─────────┼segment─┤        size and at gaps; gaps lie on 64 KiB granules

Each buffer has head room before its body, for the bytes of the chunk that the previous segment left unfinished: so that
every chunk is contiguous in memory, and nothing else is ever copied.

    buffer    │ head room ┆ tail │ body: one segment │
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vcbproxy.device import Device
from vcbproxy.extent import Extent, Kind, tiled
from vcbproxy.pipeline.channel import Channel
from vcbproxy.pipeline.chunker import GRANULE
from vcbproxy.repository import pages
from vcbproxy.units import align_down, align_up


@dataclass(frozen=True, slots=True)
class Gap:
    """``length`` zeroes from ``start``, long enough not to be bothered with."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes from ``start``, made of ``fills``: DATA to be read, ZERO to be wiped."""

    start: int
    length: int
    fills: tuple[Extent, ...]


def plan(
    extents: Iterable[Extent], end: int, segment_bytes: int, gap_min: int, start: int = 0
) -> Iterator[Gap | Segment]:
    """Turn extents that tile [start, end) into gaps and segments, lazily: a map may have millions of extents.

    Both lie on the granule grid, unless the disk ends with ``end``.
    """
    assert segment_bytes % GRANULE == 0
    fills: list[Extent] = []
    for part in _gaps_apart(tiled(extents, end, start), end, gap_min):
        if isinstance(part, Gap):
            if fills:
                yield _segment(fills)
                fills = []
            yield part
            continue
        for fill in _split(part, segment_bytes):
            fills.append(fill)
            if fill.end % segment_bytes == 0:
                yield _segment(fills)
                fills = []
    if fills:
        yield _segment(fills)


def _gaps_apart(extents: Iterable[Extent], end_of_all: int, gap_min: int) -> Iterator[Gap | Extent]:
    for extent in extents:
        start = align_up(extent.start, GRANULE)
        end = extent.end if extent.end == end_of_all else align_down(extent.end, GRANULE)
        if extent.kind is Kind.DATA or end - start < gap_min:
            yield extent
            continue
        if extent.start < start:
            yield Extent(extent.start, start - extent.start, Kind.ZERO)
        yield Gap(start, end - start)
        if end < extent.end:
            yield Extent(end, extent.end - end, Kind.ZERO)


def _split(extent: Extent, step: int) -> Iterator[Extent]:
    start = extent.start
    while start < extent.end:
        end = min(align_down(start, step) + step, extent.end)
        yield Extent(start, end - start, extent.kind)
        start = end


def _segment(fills: list[Extent]) -> Segment:
    start, end = fills[0].start, fills[-1].end
    assert start % GRANULE == 0, f"a segment at {start} is off the granule grid"
    return Segment(start, end - start, tuple(fills))


class Buffer:
    """Memory for one segment, shared by those who still need a chunk in it; goes back when the last lets go."""

    def __init__(self, head_bytes: int, body_bytes: int, home: Channel[Buffer]) -> None:
        self.memory = pages.buffer(head_bytes + body_bytes)
        self.head_bytes = head_bytes
        self._home = home
        self._holders = 0
        self._lock = threading.Lock()

    def hold(self) -> None:
        """One more needs it."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """One less needs it."""
        with self._lock:
            self._holders -= 1
            free = self._holders == 0
        if free:
            self._home.put(self)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A segment in memory. Who gets it holds its buffer."""

    start: int
    length: int
    buffer: Buffer

    @property
    def body(self) -> memoryview:
        """The segment's bytes."""
        head = self.buffer.head_bytes
        return self.buffer.memory[head : head + self.length]

    def view(self, start: int, length: int) -> memoryview:
        """Bytes at a position of the disk, which may begin in the head room."""
        at = self.buffer.head_bytes + start - self.start
        assert at >= 0, f"{start} lies before the head room"
        assert at + length <= self.buffer.head_bytes + self.length, f"{start}+{length} lies behind the segment"
        return self.buffer.memory[at : at + length]


def load(source: Device, segment: Segment, buffer: Buffer) -> int:
    """Fill a buffer's body with a segment; say how many bytes were read."""
    head, read = buffer.head_bytes, 0
    for fill in segment.fills:
        at = head + fill.start - segment.start
        target = buffer.memory[at : at + fill.length]
        if fill.kind is Kind.DATA:
            source.read_into(fill.start, target)
            read += fill.length
        else:
            np.frombuffer(target, np.uint8).fill(0)
    return read
