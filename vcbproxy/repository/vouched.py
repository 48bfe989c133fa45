"""Chunks that were looked up when a list became a base are not looked up again in the list that grew out of it.

    base    ═══════╪══╪═══════════════╪══╪══════    looked up once: stored, and as long as they are said to be
    new     ═══════╪▒▒╪═══════════════╪▒▒╪══════    ═ taken over: the same ids and lengths, compared   ▒ looked up

What was found stays found: while a lock of ours is held nobody else removes packs, and what the index in memory forgets
it counts. Four million chunks cost 0.9 s of CPU to look up, and 0.1 s to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import pages
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.index import Index

_BATCH = 1 << 15

Lengths = NDArray[np.uint32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Vouched:
    """A list of chunks that was looked up.

    Attributes:
        ids: uint8[n, 32].
        lengths: uint32[n].
        lost: rows of chunks that are not stored any more, ascending; all others are, with these lengths.
        index: where they were looked up.
        forgotten: how many packs it had forgotten by then.
    """

    ids: Ids
    lengths: Lengths
    lost: Rows
    index: Index
    forgotten: int


def looked_up(index: Index, ids: Ids, lengths: Lengths) -> Vouched:
    """Look a base's list up: which chunks must not be relied on, since no index lists them or their packs are hurt.

    An incremental reads their ranges again, as if they had changed: the disk still has the very same bytes, most
    likely, and storing them anew heals the older restore points too; where it has others, those are right for the
    new one. Meant for whoever writes: lost packs are forgotten when a restore point is begun
    (``Indexing.forget_lost_packs``). The index is asked in any case: ``restic repair index`` takes lost packs out of
    it, and every incremental would then end in an error. It costs 0.2 s of CPU for each million chunks, half a TiB.

    Args:
        index: where they are looked up.
        ids: uint8 (n, 32).
        lengths: uint32 (n), what they are said to be.

    Raises:
        IntegrityError: one that is stored has another length.
    """
    forgotten = index.forgotten
    known, stored = index.find(ids, BlobKind.DATA)
    wrong = np.flatnonzero(known & (stored != lengths))
    if len(wrong):
        row = int(wrong[0])
        told = f"chunk {ids[row].tobytes().hex()} has {stored[row]} bytes, the base's list says {lengths[row]}"
        raise IntegrityError(f"{told}; back the disk up in full")
    return Vouched(ids, lengths, np.flatnonzero(~known).astype(np.int64), index, forgotten)


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows of a new list that are those of an older one: ``count`` of them, at ``row`` here and at ``of`` there."""

    row: int
    of: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class TakenOver:
    """What a new list has of an older one, as whoever made it claims."""

    older: Vouched
    rows: Sequence[Taken]

    def unvouched(self, index: Index, ids: Ids, lengths: Lengths) -> Rows:
        """The rows of the new list that must be looked up: all that are not, as compared here, vouched for."""
        ask = np.ones(len(ids), np.bool_)
        older = self.older
        if older.index is index and older.forgotten == index.forgotten:
            for taken in self.rows:
                self._compare(taken, ids, lengths, ask)
        return np.flatnonzero(ask).astype(np.int64)

    def _compare(self, taken: Taken, ids: Ids, lengths: Lengths, ask: NDArray[np.bool_]) -> None:
        older = self.older
        for done in range(0, taken.count, _BATCH):
            count = min(_BATCH, taken.count - done)
            here = slice(taken.row + done, taken.row + done + count)
            there = slice(taken.of + done, taken.of + done + count)
            lost = older.lost[np.searchsorted(older.lost, there.start) : np.searchsorted(older.lost, there.stop)]
            if pages.equal(ids[here].data, older.ids[there].data) and np.array_equal(
                lengths[here], older.lengths[there]
            ):
                ask[here] = False
                ask[here.start + lost - there.start] = True
            pages.let_go(ids[here])
            pages.let_go(older.ids[there])
