"""Which frames a disk's image is made of: each to be read, or known to be zeroes.

extents   ├─DATA─┼ZERO┼──DATA──┼────────────────ZERO───────────────┼──DATA──┤
plan      ├─ frame ─┼─ frame ──┼─ frame ──┼── zeroes ──┼─ zeroes ──┼─ frame ─┤   ends: multiples of their size
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vcbproxy.extent import Extent, Kind, tiled
from vcbproxy.units import align_down


@dataclass(frozen=True, slots=True)
class Filled:
    """A frame with data: ``fills`` are to be read where they are DATA, and wiped where they are ZERO."""

    start: int
    length: int
    fills: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Zeroes:
    """``count`` frames of ``frame_bytes`` zeroes each."""

    start: int
    frame_bytes: int
    count: int

    @property
    def length(self) -> int:
        """All of them."""
        return self.frame_bytes * self.count


def plan(extents: Iterable[Extent], size_bytes: int, frame_bytes: int) -> Iterator[Filled | Zeroes]:
    """Turn extents that tile the disk into frames that do, lazily: a map may have millions of extents."""
    fills: list[Extent] = []
    for extent in tiled(extents, size_bytes):
        at = extent.start
        while at < extent.end:
            if extent.kind is Kind.ZERO and not fills and (zeroes := _zeroes(at, extent.end, size_bytes, frame_bytes)):
                yield zeroes
                at += zeroes.length
                continue
            end = min(align_down(at, frame_bytes) + frame_bytes, extent.end)
            fills.append(Extent(at, end - at, extent.kind))
            at = end
            if at % frame_bytes == 0 or at == size_bytes:
                yield Filled(fills[0].start, at - fills[0].start, tuple(fills))
                fills = []


def _zeroes(start: int, end: int, size_bytes: int, frame_bytes: int) -> Zeroes | None:
    """The frames that lie whole in zeroes which begin where a frame does."""
    count = (end - start) // frame_bytes
    if count:
        return Zeroes(start, frame_bytes, count)
    return Zeroes(start, end - start, 1) if end == size_bytes else None
