"""Walks a disk, or a stretch of it, from start to end and says where the chunks lie.

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


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a disk that is cut by itself: what is seen, what of it becomes pieces, where cuts are looked for.

        seen_from      start   cuts_from                     cuts_to   end      seen_to
        ├┄┄ context ┄┄┄┼━━━━━━━━━┿━━━━━ looked for here ━━━━━━━━━┿━━━━━━┼┄┄ context ┄┤

    All in bytes. ``seen_from`` and ``seen_to`` lie on the granule grid or at the disk's end, the others on blocks.
    Natural cuts count only behind ``cuts_from`` and up to ``cuts_to``: elsewhere the cutter sees too little to judge
    them, and somebody else knows that there are none.
    """

    seen_from: int
    start: int
    cuts_from: int
    cuts_to: int
    end: int
    seen_to: int

    @classmethod
    def whole(cls, size_bytes: int) -> Stretch:
        """All of a disk."""
        return cls(0, 0, 0, size_bytes, size_bytes, size_bytes)


class Cutter:
    """Cuts one stretch of a disk. Feed or skip every byte of it, then finish. Not for several threads."""

    def __init__(self, rule: Rule, size_bytes: int, stretch: Stretch | None = None) -> None:
        """Cut a stretch of a disk of this size; all of it, if none is given."""
        stretch = stretch or Stretch.whole(size_bytes)
        self._rule = rule
        self._size_bytes = size_bytes
        self._seen_to = stretch.seen_to
        self._window = rule.window
        self._blocks_max = rule.max_bytes // BLOCK
        # Counted in blocks from here on.
        self._position = stretch.seen_from // BLOCK
        self._piece_start = stretch.start // BLOCK
        self._piece_hole = False
        self._cuts_from = stretch.cuts_from // BLOCK
        self._cuts_to = -(-stretch.cuts_to // BLOCK)
        self._end = -(-stretch.end // BLOCK)
        # The last 2w blocks: w that are decided, for those to look back on, and w undecided. Before the disk: +∞.
        self._h = np.full(2 * self._window, INFINITY, np.uint64)
        self._hole = np.zeros(2 * self._window, np.bool_)

    @property
    def position(self) -> int:
        """Up to where the disk has been seen, in bytes."""
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
        """The stretch has ended; return the last pieces."""
        assert self.position == self._seen_to, f"cut up to {self.position} instead of {self._seen_to}"
        end = self._position
        pieces = list(self._advance(*_zeroes(self._window, hole=bool(self._hole[-1]))))
        self._position = end
        return pieces

    def _check(self, length: int) -> None:
        end = self._position * BLOCK + length
        aligned = length % GRANULE == 0 and self._position * BLOCK % GRANULE == 0
        assert length >= 0, f"{length} bytes"
        assert end == self._seen_to or (aligned and end < self._seen_to), (
            f"{length} bytes at {self._position * BLOCK}, up to {self._seen_to}"
        )

    def _advance(self, h: chunker.U64, hole: chunker.Flags) -> Iterator[Piece]:
        window = self._window
        decided = self._position - window  # the first block to be decided now
        h = np.concatenate((self._h, h))
        hole = np.concatenate((self._hole, hole))
        count = len(h) - 2 * window
        natural = chunker.natural_cuts(h, window)
        natural[: max(self._cuts_from - decided, 0)] = False
        natural[max(self._cuts_to - decided, 0) :] = False
        edges = hole[window : window + count] != hole[window + 1 : window + 1 + count]
        cuts = np.flatnonzero(natural | edges)
        self._h, self._hole, self._position = h[count:].copy(), hole[count:].copy(), self._position + count
        next_is_hole = hole[cuts + window + 1]
        for end, is_hole in zip((cuts + decided + 1).tolist(), next_is_hole.tolist(), strict=True):
            if end >= self._end:
                break
            yield from self._up_to(end)
            self._piece_hole = is_hole
        seen = min(decided + count, self._end)
        yield from self._up_to(seen) if seen == self._end else self._split(seen)

    def _up_to(self, end: int) -> Iterator[Piece]:
        """A cut lies at ``end``: all before it is pieces now. Cuts in the context before the first piece make none."""
        yield from self._split(end)
        if end > self._piece_start:
            yield self._piece(self._piece_start, end)
            self._piece_start = end

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
