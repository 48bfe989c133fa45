"""Extents: what is known of a range of a virtual disk before any of it is read.

    disk    0        1M        2M        3M        4M
            ├─ DATA ──┼─ ZERO ──┼─ DATA ────────────┤

    DATA  must be read
    ZERO  reads as zeroes; never read it

A device's extents *tile* it: in order, no gap, no overlap, from 0 to its size. ``ZERO`` is a promise by whoever made
the map (a VMFS hole, a to-be-zeroed block, an unallocated grain without parent); whoever is not sure says ``DATA``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What is known of a range."""

    DATA = "data"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes from ``start``, all of one kind."""

    start: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.length


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind; drop empty ones."""
    held: Extent | None = None
    for extent in extents:
        if extent.length == 0:
            continue
        if held is not None and held.kind is extent.kind and held.end == extent.start:
            held = Extent(held.start, held.length + extent.length, held.kind)
            continue
        if held is not None:
            yield held
        held = extent
    if held is not None:
        yield held


def tiled(extents: Iterable[Extent], size_bytes: int, start: int = 0) -> Iterator[Extent]:
    """Pass extents through, holding them to their promise to tile [0, size), or what of it lies behind ``start``.

    Raises:
        AssertionError: a gap, an overlap or a wrong end. That is a bug of ours, never an operator's error.
    """
    position = start
    for extent in extents:
        assert extent.start == position, f"extents do not tile: {extent} after {position}"
        assert extent.length > 0, f"empty extent {extent}"
        position = extent.end
        yield extent
    assert position == size_bytes, f"extents end at {position}, device at {size_bytes}"
