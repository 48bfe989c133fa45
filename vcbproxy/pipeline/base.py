"""The base of an incremental: the list of chunks of an older restore point, laid out on the disk.

    lengths   ├──────┼────┼────────┼──────────────┼──────────────┼───┤
    holes                          ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒            chunks of zeroes, on the granule grid
    edges     0      1    2        3              4              5   6

An edge is *firm* when a cut lies there whatever changes elsewhere: where a hole begins or ends, and behind a chunk that
is shorter than the longest. Behind a longest one it may be a natural cut or merely a split of a long piece, which the
list does not tell apart; inside of a hole, the edges follow from where the hole begins. Lists hold millions of chunks:
all here is columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.pipeline.areas import Areas, merged
from vcbproxy.pipeline.chunker import BLOCK, GRANULE, HOLE_STEP, Rule
from vcbproxy.pipeline.content import Lengths, zero_id
from vcbproxy.repository import pages
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.vouched import Vouched

_BATCH = 1 << 16

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A disk's chunks in a restore point, cut by the rule that cuts the new one.

    Attributes:
        ids: uint8[n, 32].
        lengths: uint32[n].
        lost: rows of chunks that are not whole in the target any more: they are read again, as if they had changed.
        vouched: the same list as the target looked it up, if it was asked.
    """

    ids: Ids
    lengths: Lengths
    lost: Rows | None = None
    vouched: Vouched | None = None

    @classmethod
    def of(cls, vouched: Vouched) -> Self:
        """A list that the target has looked up."""
        return cls(vouched.ids, vouched.lengths, vouched.lost, vouched)

    def lost_areas(self, size_bytes: int) -> Areas:
        """Where the lost chunks lie on the disk."""
        if self.lost is None or not len(self.lost):
            return Areas.none(size_bytes)
        ends = np.cumsum(self.lengths, dtype=np.int64)[self.lost]
        taken = self.lengths[self.lost].astype(np.int64)
        return Areas.of(np.stack([ends - taken, taken], axis=1), size_bytes)


class _ZeroIds:
    """Tells the ids of zeroes: for each number of granules one, the last of them cut short or not."""

    def __init__(self) -> None:
        self._begins = np.zeros(HOLE_STEP // GRANULE + 1, np.uint64)  # how the id of so many granules begins
        self._known = np.zeros(len(self._begins), np.bool_)

    def match(self, lengths: Lengths, ids: Ids, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows have the id of as many zeroes as they are long."""
        whole = lengths & (GRANULE - 1) == 0
        granules = lengths >> np.uint32(GRANULE.bit_length() - 1)
        for number in np.flatnonzero(np.bincount(granules[whole], minlength=1)).tolist():
            if not self._known[number]:
                self._begins[number] = np.frombuffer(zero_id(number * GRANULE), np.uint64)[0]
                self._known[number] = True
        begins = ids[rows, :8].view(np.uint64).ravel()
        matches: NDArray[np.bool_] = ~whole | (begins == self._begins[granules])
        likely = np.flatnonzero(matches)  # the rest of the id decides; for data, next to none get here
        different, which = np.unique(lengths[likely], return_inverse=True)
        zeroes = np.frombuffer(b"".join(map(zero_id, different.tolist())), np.uint8).reshape(-1, ID_BYTES)
        matches[likely] = (ids[rows[likely]] == zeroes[which]).all(axis=1)
        return matches


class Layout:
    """Where a base's chunks lie, and which of its edges can be relied upon."""

    def __init__(self, base: Base, size_bytes: int, rule: Rule) -> None:
        """Hold the list against the disk and the rule.

        Raises:
            IntegrityError: the list does not fit this disk, or was not cut by this rule.
        """
        count = len(base.lengths)
        if base.ids.shape != (count, ID_BYTES):
            raise IntegrityError(f"the base lists {len(base.ids)} chunks and {count} lengths; back the disk up in full")
        self.base = base
        self.size_bytes = size_bytes
        self.edges: Rows = np.zeros(count + 1, np.int64)
        np.cumsum(base.lengths, dtype=np.int64, out=self.edges[1:])
        if int(self.edges[-1]) != size_bytes:
            reason = f"the base's chunks come to {self.edges[-1]} bytes, the disk has {size_bytes}"
            raise IntegrityError(f"{reason}; back the disk up in full")
        self.holes = self._find_holes()
        self._hold_rule(rule)
        borders = np.flatnonzero(np.diff(np.concatenate([[False], self.holes, [False]])))
        self._hole_first, self._hole_behind = borders[0::2], borders[1::2]  # rows
        longest = np.flatnonzero(base.lengths[:-1] == rule.max_bytes) + 1
        unfirm = longest[~self.holes[longest - 1] & ~self.holes[longest]]
        last = np.flatnonzero(np.diff(unfirm, append=-1) != 1)
        self._unfirm_first = unfirm[np.concatenate([[0], last[:-1] + 1]).astype(np.int64)] if len(unfirm) else unfirm
        self._unfirm_last = unfirm[last]

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self.base.lengths)

    def hole_areas(self) -> Areas:
        """Its holes."""
        ranges = np.stack([self.edges[self._hole_first], self.edges[self._hole_behind]], axis=1)
        return Areas(merged(ranges), self.size_bytes)

    def hole_bytes(self, first: int, behind: int) -> int:
        """How many bytes of holes lie in the rows [first, behind)."""
        return int(self.base.lengths[first:behind][self.holes[first:behind]].sum(dtype=np.int64))

    def edges_before(self, offsets: NDArray[np.int64]) -> Rows:
        """The last edge up to each offset at which a chunk begins whatever lies behind it; never inside of a hole."""
        rows = np.searchsorted(self.edges, offsets, side="right") - 1
        which, inside = self._in_holes(rows)
        rows[inside] = self._hole_first[which[inside]]
        return rows

    def edges_behind(self, offsets: NDArray[np.int64]) -> tuple[Rows, NDArray[np.int64]]:
        """The first firm edge from each offset on; and the position of the last unfirm one passed over, or -1."""
        rows = np.searchsorted(self.edges, offsets, side="left")
        which, inside = self._in_holes(rows)
        rows[inside] = self._hole_behind[which[inside]]
        run = np.searchsorted(self._unfirm_first, rows, side="right") - 1
        passed = np.full(len(rows), -1, np.int64)
        unfirm = np.flatnonzero(run >= 0)
        unfirm = unfirm[rows[unfirm] <= self._unfirm_last[run[unfirm]]]
        passed[unfirm] = self.edges[self._unfirm_last[run[unfirm]]]
        rows[unfirm] = self._unfirm_last[run[unfirm]] + 1
        return rows, passed

    def row_of(self, start: int, length: int) -> int | None:
        """Which chunk lies exactly there, if one does."""
        row = int(np.searchsorted(self.edges, start, side="left"))
        if row < len(self) and self.edges[row] == start and self.base.lengths[row] == length:
            return row
        return None

    def _in_holes(self, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """In which hole each edge lies, and whether it lies inside of one."""
        which = np.searchsorted(self._hole_first, rows, side="left") - 1  # the last hole that begins before the edge
        inside = which >= 0
        inside[inside] = rows[inside] < self._hole_behind[which[inside]]
        return which, inside

    def _find_holes(self) -> NDArray[np.bool_]:
        """Chunks that are whole granules and have the id of so many zeroes."""
        ids, lengths = self.base.ids, self.base.lengths
        holes = np.zeros(len(lengths), np.bool_)
        known = _ZeroIds()
        for start in range(0, len(lengths), _BATCH):
            batch = slice(start, start + _BATCH)
            edges = self.edges[start : start + _BATCH + 1]
            on_grid = (edges & (GRANULE - 1) == 0) | (edges == self.size_bytes)
            rows = start + np.flatnonzero(on_grid[:-1] & on_grid[1:] & (lengths[batch] <= HOLE_STEP))
            holes[rows] = known.match(lengths[rows], ids, rows)
            pages.let_go(ids[batch])
        return holes

    def _hold_rule(self, rule: Rule) -> None:
        lengths = self.base.lengths
        off_grid = bool((lengths[:-1] & (BLOCK - 1)).any())
        if off_grid or not lengths.all() or bool((lengths[~self.holes] > rule.max_bytes).any()):
            raise IntegrityError("the base was not cut as this repository cuts; back the disk up in full")
