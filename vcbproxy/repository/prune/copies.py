"""Of each blob that is used exactly one copy is kept; which, is decided pack by pack.

A copy in a pack that stays anyway costs nothing, so such packs come first; so do packs in which there is nothing
superfluous, the new ones of a prune that was cut short: the old ones can then go as a whole. What is damaged or missing
comes last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.prune.buckets import Rows
from vcbproxy.repository.prune.survey import Packs, Survey
from vcbproxy.repository.prune.table import ID, BlobTable, Flags, entry_bytes

BlobPlace = tuple[bytes, BlobKind, bytes]
"""A copy that is known to be damaged: pack, kind, blob."""


@dataclass(slots=True)
class Kept:
    """What is kept.

    Attributes:
        flags: for both tables, for each bucket, which copies.
        bytes: what the kept copies of each pack take there.
        blobs: how many they are.
        lost: copies that had to be chosen although they are damaged or their pack is, at most a few.
        lost_count: how many of them there are.
    """

    flags: dict[BlobKind, list[Flags]]
    bytes: NDArray[np.int64]
    blobs: NDArray[np.int64]
    lost: list[Rows]
    lost_count: int = 0


def choose(found: Survey, damaged: Collection[BlobPlace]) -> Kept:
    """Choose one copy of each used blob.

    Args:
        found: the survey, with everything used marked.
        damaged: copies that are known not to be whole.
    """
    count = len(found.packs)
    single, shared, used = (np.zeros(count, np.int64) for _ in range(3))
    for table in found.tables:
        for number in range(len(table)):
            rows = table.rows(number)
            wanted, several = _used_copies(table, number, rows)
            taken = entry_bytes(rows)
            single += _sums(rows["pack"], taken, wanted & ~several, count)
            shared += _sums(rows["pack"], taken, wanted & several, count)
            used += np.bincount(rows["pack"][wanted], minlength=count)
    rank = _ranks(found.packs, single, shared, used)
    kept = Kept({table.kind: [] for table in found.tables}, np.zeros(count, np.int64), np.zeros(count, np.int64), [])
    for table in found.tables:
        bad = _Damaged(found, table.kind, damaged)
        for number in range(len(table)):
            _choose_in(table, number, rank, bad, kept)
    return kept


def whole(packs: Packs) -> NDArray[np.bool_]:
    """Which packs are there and as long as they must be."""
    same: NDArray[np.bool_] = packs.real_bytes == packs.indexed_bytes
    return same


def _used_copies(table: BlobTable, number: int, rows: Rows) -> tuple[Flags, Flags]:
    """Which rows are copies of used blobs, and which of blobs with several copies."""
    starts = table.groups(rows)
    sizes = np.diff(np.append(starts, len(rows)))
    return np.repeat(table.used[number][starts], sizes), np.repeat(sizes > 1, sizes)


def _sums(packs: NDArray[np.uint32], taken: NDArray[np.int64], which: Flags, count: int) -> NDArray[np.int64]:
    return np.bincount(packs[which], taken[which], count).astype(np.int64)  # exact below 2**53


def _ranks(
    packs: Packs, single: NDArray[np.int64], shared: NDArray[np.int64], used: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The order in which packs are preferred: 0 is the best."""
    stays = (single > 0) | (used == packs.blobs)
    share = (single + shared) / np.maximum(packs.indexed_bytes, 1)
    order = np.lexsort((np.arange(len(packs)), -share, ~stays, ~whole(packs)))
    rank = np.empty(len(packs), np.int64)
    rank[order] = np.arange(len(packs))
    return rank


class _Damaged:
    """Which rows are known to be damaged, or lie in a pack that is not whole."""

    def __init__(self, found: Survey, kind: BlobKind, damaged: Collection[BlobPlace]) -> None:
        self._broken = ~whole(found.packs)
        places = [(found.packs.number(pack), blob) for pack, of, blob in damaged if of is kind]
        self._places = {(pack, blob) for pack, blob in places if pack is not None}
        self._ids = np.unique(np.frombuffer(b"".join(blob for _, blob in self._places), ID))

    def flags(self, rows: Rows) -> Flags:
        bad: Flags = self._broken[rows["pack"]]
        if len(self._ids):
            for at in np.flatnonzero(np.isin(rows["id"], self._ids)).tolist():
                bad[at] |= (int(rows["pack"][at]), rows["id"][at : at + 1].tobytes()) in self._places
        return bad


def _choose_in(table: BlobTable, number: int, rank: NDArray[np.int64], damaged: _Damaged, kept: Kept) -> None:
    rows = table.rows(number)
    wanted, several = _used_copies(table, number, rows)
    bad = damaged.flags(rows)
    chosen = wanted & ~several
    open_rows = np.flatnonzero(wanted & several)
    if len(open_rows):
        few = rows[open_rows]
        group = np.cumsum(np.concatenate([[True], few["id"][1:] != few["id"][:-1]]))
        order = np.lexsort((rank[few["pack"]], bad[open_rows], group))
        best = order[np.concatenate([[True], group[order][1:] != group[order][:-1]])]
        chosen[open_rows[best]] = True
    kept.flags[table.kind].append(chosen)
    kept.bytes += _sums(rows["pack"], entry_bytes(rows), chosen, len(rank))
    kept.blobs += np.bincount(rows["pack"][chosen], minlength=len(rank))
    lost = np.flatnonzero(chosen & bad)
    kept.lost_count += len(lost)
    if len(lost) and len(kept.lost) < _LOST_SHOWN:
        kept.lost.append(rows[lost[:_LOST_SHOWN]])


_LOST_SHOWN = 5
