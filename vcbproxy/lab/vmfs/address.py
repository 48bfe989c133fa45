"""Addresses of resources, as the volume stores them. Pure arithmetic.

    32 bits, VMFS-3 and -5                          64 bits, VMFS-6
    file block  ttt-C Z nnnn...  (number from 6)    small block  ttt--C- ZZZZZZZZ cluster(15-45) item(51-63)
    sub-block   tttII-C.cluster(6-27) item(28-31)   large block  ttt--C- ZZZZZZZZ number(15-45)
    others      ttt---  cluster(6-27) item(28-31)   others       ttt---  cluster(6-41) item(56-63)
    descriptor  ttt---  cluster(6-21) item(22-31)   descriptor   as in 32 bits

``t`` type, ``C`` copy-on-write, ``Z`` to be zeroed, ``I`` bits 4-5 of the item (dense sub-blocks only). As on volumes
made by ESXi 6 to 8, and in the public descriptions of vmfs-tools and dissect.vmfs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pointers = NDArray[np.uint64]
"""Pointers as the record keeps them: 64 bits wide whatever the version, so that one code handles both."""

LARGE_BLOCKS = 512
"""Small blocks of 1 MiB in a large one."""


class Kind(IntEnum):
    """The type in an address's low three bits."""

    HOLE = 0
    BLOCK = 1
    SUB_BLOCK = 2
    POINTERS = 3
    DESCRIPTOR = 4
    POINTERS_2 = 5
    JOURNAL = 6
    LARGE = 7


def descriptor(cluster: int, item: int) -> int:
    """The address of a file descriptor."""
    return Kind.DESCRIPTOR | cluster << 6 | item << 22


class Codec(Protocol):
    """How one version writes its pointers."""

    dtype: np.dtype[np.unsignedinteger]
    tbz: int
    """The bits that say: to be zeroed."""

    def blocks(self, numbers: NDArray[np.int64]) -> Pointers:
        """Pointers to small file blocks."""

    def numbers(self, pointers: Pointers, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which small block each pointer means; a large one counts on by the index in the file."""

    def item(self, kind: Kind, cluster: int, item: int) -> int:
        """The address of a sub-block or pointer block."""

    def place(self, address: int) -> tuple[int, int]:
        """(cluster, item) of such an address."""


class Narrow:
    """The 32-bit addresses of VMFS-3 and VMFS-5."""

    dtype: np.dtype[np.unsignedinteger] = np.dtype("<u4")
    tbz = 1 << 5

    def blocks(self, numbers: NDArray[np.int64]) -> Pointers:
        """Pointers to file blocks."""
        return (numbers.astype(np.uint64) << np.uint64(6)) | np.uint64(Kind.BLOCK)

    def numbers(self, pointers: Pointers, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which block each pointer means."""
        assert len(pointers) == len(indexes)
        return (pointers >> np.uint64(6)).astype(np.int64)

    def item(self, kind: Kind, cluster: int, item: int) -> int:
        """The address of a sub-block or pointer block."""
        high = item >> 4
        assert cluster < 1 << 22
        assert high == 0 or (kind is Kind.SUB_BLOCK and high < 4)
        return kind | high << 3 | cluster << 6 | (item & 15) << 28

    def place(self, address: int) -> tuple[int, int]:
        """(cluster, item) of such an address."""
        high = (address >> 3) & 3 if address & 7 == Kind.SUB_BLOCK else 0
        return (address >> 6) & 0x3FFFFF, high << 4 | address >> 28


class Wide:
    """The 64-bit addresses of VMFS-6."""

    dtype: np.dtype[np.unsignedinteger] = np.dtype("<u8")
    tbz = 0xFF << 7

    def blocks(self, numbers: NDArray[np.int64]) -> Pointers:
        """Pointers to small file blocks."""
        cluster, item = np.divmod(numbers.astype(np.uint64), np.uint64(LARGE_BLOCKS))
        return (cluster << np.uint64(15)) | (item << np.uint64(51)) | np.uint64(Kind.BLOCK)

    def large(self, number: int) -> int:
        """A pointer to a large file block."""
        return Kind.LARGE | number << 15

    def numbers(self, pointers: Pointers, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which small block each pointer means; a large one counts on by the index in the file."""
        cluster = ((pointers >> np.uint64(15)) & np.uint64((1 << 31) - 1)).astype(np.int64)
        item = (pointers >> np.uint64(51)).astype(np.int64)
        large = (pointers & np.uint64(7)) == np.uint64(Kind.LARGE)
        return cluster * LARGE_BLOCKS + np.where(large, indexes % LARGE_BLOCKS, item)

    def item(self, kind: Kind, cluster: int, item: int) -> int:
        """The address of a sub-block or pointer block."""
        return kind | cluster << 6 | item << 56

    def place(self, address: int) -> tuple[int, int]:
        """(cluster, item) of such an address."""
        return (address >> 6) & ((1 << 36) - 1), address >> 56
