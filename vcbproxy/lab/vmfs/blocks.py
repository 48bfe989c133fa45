"""What a file's block pointers mean: which blocks, to be zeroed or not, and where in the volume. Changes nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vcbproxy.lab.vmfs.address import LARGE_BLOCKS, Kind, Pointers
from vcbproxy.lab.vmfs.node import Node, Zla
from vcbproxy.lab.vmfs.store import Store

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Blocks:
    """Questions about the pointers of one volume's files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = store.codec

    def is_large(self, pointers: Pointers) -> Mask:
        """Which pointers are to large blocks."""
        return np.asarray((pointers & np.uint64(7)) == np.uint64(Kind.LARGE))

    def is_tbz(self, node: Node, pointers: Pointers) -> Mask:
        """Which blocks are allocated and still to be zeroed."""
        if node.zla is Zla.SUB_BLOCKS:
            return np.zeros(len(pointers), dtype=np.bool_)
        return np.asarray((pointers & np.uint64(self._codec.tbz)) != 0)

    def pinned(self, pointers: Pointers, indexes: Numbers, first: int) -> Mask:
        """Slots of a large block that is only partly behind ``first``: it cannot be freed."""
        return self.is_large(pointers) & (indexes - indexes % LARGE_BLOCKS < first)

    def numbers(self, first: int, pointers: Pointers) -> Numbers:
        """The block numbers of consecutive pointers from index ``first`` of the file."""
        return self._codec.numbers(pointers, np.arange(first, first + len(pointers), dtype=np.int64))

    def places(self, node: Node, first: int, pointers: Pointers) -> Numbers:
        """Volume offset of each block; negative, and no two in a row, for what reads as zeroes."""
        if node.zla is Zla.SUB_BLOCKS:
            return np.array([self._store.locate(int(p)) if p else -1 for p in pointers], dtype=np.int64)
        zero = (pointers == 0) | self.is_tbz(node, pointers)
        places = self.numbers(first, pointers) * node.block_bytes
        places[zero] = -2 * node.block_bytes * (np.arange(int(zero.sum())) + 1)
        return places
