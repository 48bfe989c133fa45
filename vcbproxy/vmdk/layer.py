"""What one VMDK of a chain says about each of its ranges.

    child   ├─ HERE ─┼─ BELOW ─────────┼─ ZERO ─┤      HERE   the bytes lie in this layer's file
    parent  ├─ HERE ───────┼─ BELOW ────────────┤      ZERO   this layer promises zeroes
    disk    ├─ DATA ───────┼─ ZERO ─────────────┤      BELOW  ask the parent; the base has none: zeroes

A layer is read with `fill`, which writes what it holds and returns the gaps that the parent must fill; so a chain is
walked by a loop, whatever its depth, and no layer knows its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np


class State(IntEnum):
    """Where the bytes of a range come from."""

    BELOW = 0
    ZERO = 1
    HERE = 2


@dataclass(frozen=True, slots=True)
class Tile:
    """``length`` bytes from ``start``, all in one state."""

    start: int
    length: int
    state: State

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Gap:
    """A range that the layer below must fill."""

    start: int
    length: int


class Layer(Protocol):
    """One VMDK, or one extent of it. May be used by several threads at once."""

    @property
    def size_bytes(self) -> int:
        """How much of the disk it covers."""

    def tiles(self) -> Iterator[Tile]:
        """Tile [0, size) in order, lazily; neighbours may be of one state."""

    def fill(self, offset: int, buf: memoryview) -> list[Gap]:
        """Write the bytes and zeroes held here into ``buf``; return what is BELOW, in the layer's own offsets.

        Raises:
            SourceError: a byte of it could not be had, or its map is damaged.
        """

    def recheck(self) -> None:
        """Read again what was read of its map.

        Raises:
            Changed: it was rewritten.
            VmdkError: it is damaged now.
        """


def zero(buf: memoryview) -> None:
    """Fill with zeroes."""
    if len(buf):
        np.frombuffer(buf, dtype=np.uint8)[:] = 0


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Join gaps that touch, so that the layer below is asked in long ranges."""
    out: list[Gap] = []
    for gap in gaps:
        if out and out[-1].start + out[-1].length == gap.start:
            out[-1] = Gap(out[-1].start, out[-1].length + gap.length)
        else:
            out.append(gap)
    return out
