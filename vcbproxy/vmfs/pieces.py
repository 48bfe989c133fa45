"""Pieces: where parts of a file lie in the volume, before they are checked against one another and become a run map.

    file     0      1M     2M     3M     4M          in: three pieces (one of them to be zeroed), a hole between
             ├──────┼──────┤      ├──────┤           out: runs that tile [0, length): data, zeroes, data

In: columns, in file order. Out: a run map over the volume (device 0). Promised: no two pieces share a byte of the
volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vcbproxy.vmfs import runs
from vcbproxy.vmfs.address import Mask
from vcbproxy.vmfs.layout import Offsets


@dataclass(frozen=True, slots=True)
class Pieces:
    """Columns, one row a piece."""

    start: Offsets  # in the file
    length: Offsets
    place: Offsets  # in the volume
    zeroed: Mask  # allocated, and to be read as zeroes

    def __len__(self) -> int:
        return len(self.start)


def of_rows(rows: Sequence[tuple[int, int, int]]) -> Pieces:
    """Pieces of (start, length, place), none to be zeroed."""
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Pieces(columns[:, 0], columns[:, 1], columns[:, 2], np.zeros(len(rows), bool))


def of_blocks(numbers: Offsets, places: Offsets, zeroed: Mask, size: int) -> Pieces:
    """Pieces of blocks of one size; blocks that follow one another in file and volume are one piece."""
    apart = np.ones(len(numbers), bool)
    apart[1:] = (np.diff(numbers) != 1) | (np.diff(places) != size) | (zeroed[1:] != zeroed[:-1])
    first = np.flatnonzero(apart)
    return Pieces(numbers[first] * size, np.diff(first, append=len(numbers)) * size, places[first], zeroed[first])


def chained(parts: Iterable[Pieces]) -> Pieces:
    """One after the other."""
    held = [of_rows([]), *parts]
    return Pieces(
        np.concatenate([part.start for part in held]),
        np.concatenate([part.length for part in held]),
        np.concatenate([part.place for part in held]),
        np.concatenate([part.zeroed for part in held]),
    )


def shared(pieces: Pieces) -> int | None:
    """A place in the volume that two pieces use, or None."""
    order = np.argsort(pieces.place, kind="stable")
    places = pieces.place[order]
    twice = np.flatnonzero(places[:-1] + pieces.length[order][:-1] > places[1:])
    return int(places[twice[0] + 1]) if len(twice) else None


def end(pieces: Pieces) -> int:
    """One past the last place in the volume that they use."""
    return int((pieces.place + pieces.length).max()) if len(pieces) else 0


def holes(pieces: Pieces, length: int) -> tuple[Offsets, Offsets]:
    """Where in [0, length) no piece lies: starts and ends."""
    inside = pieces.start < length
    starts = pieces.start[inside]
    ends = np.minimum(starts + pieces.length[inside], length)
    before = np.concatenate((np.zeros(1, np.int64), ends))
    after = np.concatenate((starts, np.full(1, length, np.int64)))
    return before[before != after], after[before != after]


def tiled(pieces: Pieces, length: int) -> runs.RunMap:
    """Put zeroes where no piece lies, and cut off what lies past the file's length."""
    if length == 0:
        return runs.nothing()
    gaps, _ = holes(pieces, length)
    inside = pieces.start < length
    starts = np.concatenate((pieces.start[inside], gaps))
    zero = np.concatenate((pieces.zeroed[inside], np.ones(len(gaps), bool)))
    places = np.concatenate((pieces.place[inside], np.zeros(len(gaps), np.int64)))
    order = np.argsort(starts, kind="stable")
    devices = np.where(zero, runs.ZERO, 0).astype(np.int16)
    return runs.joined(starts[order], devices[order], places[order], length)
