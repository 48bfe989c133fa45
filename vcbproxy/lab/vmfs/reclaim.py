"""Taking blocks back: the descriptor forgets them first, then the bitmaps call them free. Their bytes stay on disk."""

from __future__ import annotations

import numpy as np

from vcbproxy.lab.vmfs.address import LARGE_BLOCKS, Pointers
from vcbproxy.lab.vmfs.blocks import Blocks, Numbers
from vcbproxy.lab.vmfs.node import Node, Zla
from vcbproxy.lab.vmfs.resource import runs
from vcbproxy.lab.vmfs.store import Store


def zero_tail(store: Store, node: Node, length: int) -> None:
    """Zero what lies behind ``length`` in its block, for a file that may grow again."""
    blocks = Blocks(store)
    index, used = divmod(length, node.block_bytes)
    if not used:
        return
    place = int(blocks.places(node, index, node.gather(index, 1, store.geometry))[0])
    if place >= 0:
        store.images.zero(place + used, node.block_bytes - used)


def free_from(store: Store, node: Node, index: int) -> None:
    """Free a node's blocks from an index on; a large block only when all of it goes, else its rest is zeroed."""
    gone = _Gone()
    touched = [piece for leaf in sorted(node.leaves) if (piece := _forget(store, node, leaf, index, gone))]
    node.large -= len(gone.large)
    dead = [leaf for leaf, held in node.leaves.items() if not held.any()]
    if node.deleted:
        store.write_descriptor(node, data=False)
    else:
        store.write_pointers(node, [piece for piece in touched if piece[0] not in dead])
    gone.items.extend(store.drop_leaves(node, dead))
    if not node.deleted:
        store.write_descriptor(node, data=True)
    with store.guard:
        for numbers in gone.blocks:
            store.space.give_back(numbers)
        for number in sorted(gone.large):
            store.space.give_back_large(number)
        for address in gone.items:
            store.give_back(address)
        store.flush_bitmaps()


class _Gone:
    """What pointers led to that are forgotten and not yet free."""

    def __init__(self) -> None:
        self.blocks: list[Numbers] = []
        self.large: set[int] = set()
        self.items: list[int] = []
        """Addresses of sub-blocks and pointer blocks."""


def _forget(store: Store, node: Node, leaf: int, index: int, gone: _Gone) -> tuple[int, int, int] | None:
    """Zero a leaf's pointers from a file index on; returns the slice that changed."""
    blocks = Blocks(store)
    held = node.leaves[leaf]
    base = leaf * len(held)
    slots = np.arange(min(max(0, index - base), len(held)), len(held))
    slots = slots[held[slots] != 0]
    pinned = blocks.pinned(held[slots], base + slots, index)
    _zero_pinned(store, node, held[slots[pinned]], base + slots[pinned])
    slots = slots[~pinned]
    if not len(slots):
        return None
    pointers = held[slots]
    node.tbz -= int(np.count_nonzero(blocks.is_tbz(node, pointers)))
    node.blocks -= len(pointers)
    if node.zla is Zla.SUB_BLOCKS:
        gone.items.extend(pointers.tolist())
    else:
        large = blocks.is_large(pointers)
        numbers = store.codec.numbers(pointers, base + slots)
        gone.large.update((numbers[large] // LARGE_BLOCKS).tolist())
        gone.blocks.append(numbers[~large])
    held[slots] = 0
    return leaf, int(slots[0]), int(slots[-1]) + 1


def _zero_pinned(store: Store, node: Node, pointers: Pointers, indexes: Numbers) -> None:
    written = ~Blocks(store).is_tbz(node, pointers)
    numbers = store.codec.numbers(pointers[written], indexes[written])
    for _, number, count in runs(numbers):
        store.images.zero(number * node.block_bytes, count * node.block_bytes)
