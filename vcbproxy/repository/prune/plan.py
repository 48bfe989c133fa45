"""Every pack's fate: a pure function from columns to decisions.

    nothing of it is used                                              remove
    missing, and nothing of it is used                                 remove (from the index)
    damaged, and something of it is used                               repack, whatever it costs
    all of it is used, one kind of blob, not small                     keep
    all else                                                           a candidate: in the order below, until what
                                                                       stays unused is little enough

    trees and mixed packs ─▶ small packs ─▶ the emptiest first

Trees are repacked whatever the limit is: each reader keeps all of them in its cache. Small packs are joined only when
there are ten of them: fewer would be as many afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.pack import header_size
from vcbproxy.repository.prune.options import PruneOptions

SMALL_PACKS_MIN = 10
_SMALL_SHARE = 25  # of the usual pack's size
_EMPTY_PACK_BYTES = header_size(())


class Fate(IntEnum):
    """What becomes of a pack."""

    KEEP = 0
    REPACK = 1
    REMOVE = 2


@dataclass(frozen=True, slots=True)
class PackFacts:
    """What decides a pack's fate, as columns.

    Attributes:
        size_bytes: as the index has it.
        blobs: how many copies lie in it.
        trees: how many of them are trees.
        used_blobs: how many are kept.
        used_bytes: what these take.
        damaged: something in it is known not to be whole, but all that is kept of it may be.
    """

    size_bytes: NDArray[np.int64]
    blobs: NDArray[np.int64]
    trees: NDArray[np.int64]
    used_blobs: NDArray[np.int64]
    used_bytes: NDArray[np.int64]
    damaged: NDArray[np.bool_]

    @property
    def unused_bytes(self) -> NDArray[np.int64]:
        """What is not needed; an empty pack's own bytes are, as long as something lies in it."""
        own = np.where(self.used_blobs > 0, _EMPTY_PACK_BYTES, 0)
        return self.size_bytes - self.used_bytes - own


def decide(packs: PackFacts, options: PruneOptions) -> NDArray[np.uint8]:
    """Each pack's ``Fate``."""
    fates = np.full(len(packs.blobs), Fate.KEEP, np.uint8)
    needed = packs.used_blobs > 0
    fates[~needed] = Fate.REMOVE
    fates[needed & packs.damaged] = Fate.REPACK
    candidates = _ordered(packs, _candidates(packs, needed, options), options)
    unused = packs.unused_bytes
    left = int(unused[candidates].sum())
    limit = options.max_unused.limit_bytes(int(packs.used_bytes.sum()))
    room = np.inf if options.max_repack_bytes is None else options.max_repack_bytes
    always = (packs.trees > 0)[candidates]
    for pack, must, size in zip(
        candidates.tolist(), always.tolist(), packs.size_bytes[candidates].tolist(), strict=True
    ):
        small = _is_small(size, options)
        if not must and not small and left <= limit:
            break
        if size > room:
            break
        room -= size
        left -= int(unused[pack])
        fates[pack] = Fate.REPACK
    return _without_lonely(packs, fates, options)


def _is_small(size_bytes: int, options: PruneOptions) -> bool:
    return size_bytes < options.pack_bytes // _SMALL_SHARE


def _candidates(packs: PackFacts, needed: NDArray[np.bool_], options: PruneOptions) -> NDArray[np.intp]:
    partly = packs.used_blobs < packs.blobs
    mixed = (packs.trees > 0) & (packs.trees < packs.blobs)
    small = packs.size_bytes < options.pack_bytes // _SMALL_SHARE
    wanted = needed & ~packs.damaged & (partly | mixed)
    for of_kind in (packs.trees > 0, packs.trees == 0):
        joinable = needed & ~packs.damaged & of_kind & small
        if np.count_nonzero(joinable) >= SMALL_PACKS_MIN:
            wanted |= joinable
    return np.flatnonzero(wanted)


def _ordered(packs: PackFacts, candidates: NDArray[np.intp], options: PruneOptions) -> NDArray[np.intp]:
    small = packs.size_bytes[candidates] < options.pack_bytes // _SMALL_SHARE
    empty = packs.unused_bytes[candidates] / packs.used_bytes[candidates]
    return candidates[np.lexsort((candidates, -empty, ~small, packs.trees[candidates] == 0))]


def _without_lonely(packs: PackFacts, fates: NDArray[np.uint8], options: PruneOptions) -> NDArray[np.uint8]:
    """One whole small pack alone, which a limit left over, would only be written again."""
    whole = (packs.used_blobs == packs.blobs) & ~packs.damaged
    for of_kind in (packs.trees == packs.blobs, packs.trees == 0):
        chosen = np.flatnonzero((fates == Fate.REPACK) & of_kind)
        if len(chosen) == 1 and whole[chosen[0]]:
            fates[chosen] = Fate.KEEP
    return fates
