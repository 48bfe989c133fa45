"""Walks a disk from its start to its end and says where the chunks lie.

Comes in: the bytes in order, fed in pieces of any (granule-aligned) size, and stretches known to be zero, skipped.
Goes out: pieces, in order, tiling the disk: each one chunk of data, or one hole. The result depends on the disk's
content alone, not on how it was fed. No byte is kept: ``needed_from`` says from where on whoever feeds must keep them.

    seen so far   ├──────── decided ────────┼── w blocks, undecided ──┤
    pieces        ├ chunk ┼ chunk ┼ begun …                           ▲ position
                                  ▲ needed_from
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vcbproxy.pipeline import chunker
from vcbproxy.pipeline.chunker import BLOCK, GRANULE, INFINITY, Rule


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes from ``start``: one chunk of data, or one hole (cut further by ``chunker.hole_lengths``)."""

    start: int
    length: int
    hole: bool

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.length


class Cutter:
    """Cuts one disk. Feed or skip every byte of it, then finish. Not for several threads."""

    def __init__(self, rule: Rule, size_bytes: int) -> None:
        self._rule = rule
        self._size_bytes = size_bytes
        self._window = rule.window
        self._blocks_max = rule.max_bytes // BLOCK
        # Counted in blocks from here on.
        self._position = 0
        self._piece_start = 0
        self._piece_hole = False
        # The last 2w blocks: w that are decided, for those to look back on, and w undecided. Before the disk: +∞.
        self._h = np.full(2 * self._window, INFINITY, np.uint64)
        self._hole = np.zeros(2 * self._window, np.bool_)

    @property
    def position(self) -> int:
        """How far the disk has been seen, in bytes."""
        return min(self._position * BLOCK, self._size_bytes)

    @property
    def needed_from(self) -> int:
        """Later pieces of data may begin here, not before. At most ``max_bytes`` + w blocks before ``position``."""
        decided = max(self._position - self._window, 0)
        return min((decided if self._piece_hole else self._piece_start) * BLOCK, self._size_bytes)

    def feed(self, data: memoryview) -> list[Piece]:
        """See the next bytes; return the pieces that are now certain."""
        self._check(len(data))
        if len(data) == 0:
            return []
        return list(self._advance(*chunker.digest(self._rule, data)))

    def skip(self, length: int) -> list[Piece]:
        """The next bytes are known to be zero; return the pieces that are now certain."""
        self._check(length)
        blocks = -(-length // BLOCK)
        shown = min(blocks, 2 * self._window)
        pieces = list(self._advance(*_zeroes(shown, hole=True)))
        # All that is still remembered are blocks of this hole, hence what follows in it can change nothing.
        self._position += blocks - shown
        return pieces

    def finish(self) -> list[Piece]:
        """The disk has ended; return the last pieces."""
        assert self.position == self._size_bytes, f"cut {self.position} of {self._size_bytes} bytes"
        end = self._position
        pieces = list(self._advance(*_zeroes(self._window, hole=bool(self._hole[-1]))))
        self._position = end
        if self._piece_start < end:
            pieces.append(self._piece(self._piece_start, end))
            self._piece_start = end
        return pieces

    def _check(self, length: int) -> None:
        end = self._position * BLOCK + length
        aligned = length % GRANULE == 0 and self._position * BLOCK % GRANULE == 0
        assert length >= 0, f"{length} bytes"
        assert end == self._size_bytes or (aligned and end < self._size_bytes), (
            f"{length} bytes at {self._position * BLOCK} of {self._size_bytes}"
        )

    def _advance(self, h: chunker.U64, hole: chunker.Flags) -> Iterator[Piece]:
        window = self._window
        decided = self._position - window  # the first block to be decided now
        h = np.concatenate((self._h, h))
        hole = np.concatenate((self._hole, hole))
        count = len(h) - 2 * window
        edges = hole[window : window + count] != hole[window + 1 : window + 1 + count]
        cuts = np.flatnonzero(chunker.natural_cuts(h, window) | edges)
        self._h, self._hole, self._position = h[count:].copy(), hole[count:].copy(), self._position + count
        next_is_hole = hole[cuts + window + 1]
        for end, is_hole in zip((cuts + decided + 1).tolist(), next_is_hole.tolist(), strict=True):
            yield from self._split(end)
            if end > self._piece_start:
                yield self._piece(self._piece_start, end)
            self._piece_start, self._piece_hole = end, is_hole
        yield from self._split(decided + count)

    def _split(self, end: int) -> Iterator[Piece]:
        """Cut what is too long off a piece of data that is known to reach ``end``."""
        while not self._piece_hole and end - self._piece_start >= self._blocks_max:
            yield self._piece(self._piece_start, self._piece_start + self._blocks_max)
            self._piece_start += self._blocks_max

    def _piece(self, first: int, last: int) -> Piece:
        start, end = first * BLOCK, min(last * BLOCK, self._size_bytes)
        return Piece(start, end - start, self._piece_hole)


def _zeroes(blocks: int, *, hole: bool) -> tuple[chunker.U64, chunker.Flags]:
    return np.full(blocks, INFINITY, np.uint64), np.full(blocks, hole, np.bool_)


def cut(rule: Rule, data: memoryview) -> list[Piece]:
    """Cut a disk that lies in memory as a whole."""
    cutter = Cutter(rule, len(data))
    return cutter.feed(data) + cutter.finish()
