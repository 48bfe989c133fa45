"""Giving a file blocks before anything is written to it, as thick disks get them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vcbproxy.lab.vmfs.address import LARGE_BLOCKS, Pointers, Wide
from vcbproxy.lab.vmfs.blocks import Blocks, Numbers
from vcbproxy.lab.vmfs.node import Node
from vcbproxy.lab.vmfs.resource import runs
from vcbproxy.lab.vmfs.spec import Allocation
from vcbproxy.lab.vmfs.store import Store

POISON = b"STALE BYTES OF A DELETED FILE. "
_POISON_PAGE = (POISON * 133)[:4096]


_STEP_BLOCKS = 1 << 18
"""Blocks given at a time, to bound memory."""


@dataclass(frozen=True, slots=True)
class Preallocation:
    """How to give a file its blocks before anything is written."""

    allocation: Allocation
    use_large: bool = False
    materialise: bool = True
    """Without it nothing is written to the data blocks, neither zeroes nor poison."""


def preallocate(store: Store, node: Node, how: Preallocation) -> None:
    """Give every block of the node's length a place; the caller holds its guard."""
    count = -(-node.length // node.block_bytes)
    for first in range(0, count, _STEP_BLOCKS):
        _give(store, node, first, min(_STEP_BLOCKS, count - first), how)


def _give(store: Store, node: Node, first: int, count: int, how: Preallocation) -> None:
    pointers = node.gather(first, count, store.geometry)
    with store.guard:
        store.require_leaves(node, first, count)
        store.space.require(int(np.count_nonzero(pointers == 0)))
        if how.use_large and isinstance(store.codec, Wide):
            _take_large(store, node, first, pointers, store.codec)
        holes = pointers == 0
        pointers[holes] = store.codec.blocks(store.space.take(int(np.count_nonzero(holes))))
    numbers = Blocks(store).numbers(first, pointers)
    thick = how.allocation is Allocation.ZEROEDTHICK
    if thick:
        pointers |= np.uint64(store.codec.tbz)
    if how.materialise:
        _fill(store, numbers, node.block_bytes, poison=thick)
    node.blocks += count
    node.tbz += count if thick else 0
    store.write_pointers(node, node.scatter(first, pointers, store.geometry))
    store.write_descriptor(node, data=True)


def _take_large(store: Store, node: Node, first: int, pointers: Pointers, codec: Wide) -> None:
    """Large blocks for every aligned 512 slots, as far as free ones exist."""
    start = -first % LARGE_BLOCKS
    for slot in range(start, len(pointers) - LARGE_BLOCKS + 1, LARGE_BLOCKS):
        number = store.space.take_large()
        if number is None:
            return
        pointers[slot : slot + LARGE_BLOCKS] = codec.large(number)
        node.large += 1


def _fill(store: Store, numbers: Numbers, step: int, *, poison: bool) -> None:
    if poison:
        for number in numbers.tolist():
            for place in (0, step // 2, step - len(_POISON_PAGE)):
                store.images.write(number * step + place, _POISON_PAGE)
        store.space.stale[numbers] = True
        return
    for _, number, count in runs(numbers[store.space.stale[numbers]]):
        store.images.zero(number * step, count * step)
