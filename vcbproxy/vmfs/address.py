"""Addresses: what the numbers in directories and pointer arrays say, one at a time or a whole array at once.

In: raw pointers, u32 on VMFS-3/5, u64 on VMFS-6. Out: their parts. The low three bits are the type; 0 as a whole is
a hole.

    32 bit  FB       type 0-2 │ 4 COW │ 5 TBZ │ 6-31 block
            SB       type 0-2 │ 3-4 item, high bits │ 5 COW │ 6-27 cluster │ 28-31 item, low bits
            PB PB2   type 0-2 │ 5 COW │ 6-27 cluster │ 28-31 item
    FD (always 32)   type 0-2 │ 6-21 cluster │ 22-31 item
    64 bit  SFB      type 0-2 │ 5 COW │ 7-14 TBZ │ 15-45 cluster │ 51-63 item
            SB PB    type 0-2 │ 5 COW │ 6-41 cluster │ 56-63 item
            LFB      type 0-2 │ 5 COW │ 7-14 TBZ │ 15-45 large block

TBZ, to be zeroed: allocated, never written by its owner, still holding what a deleted file left there. It reads as
zeroes. COW matters to writers only. The low bits that the descriptions call unused are ignored, as hosts do. The
bits between two numbers must be clear: set, they might be more of a number than is known.

Facts: VMFS-5 and -6 volumes made by ESXi; LFB and the TBZ bits of VMFS-6 from public descriptions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from vcbproxy.vmfs.layout import Offsets

Raw = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class Kind(IntEnum):
    """The type in an address's low three bits."""

    FILE_BLOCK = 1
    SUB_BLOCK = 2
    POINTER_BLOCK = 3
    DESCRIPTOR = 4
    POINTER_BLOCK_2 = 5
    JOURNAL_BLOCK = 6
    LARGE_BLOCK = 7


_NAMES = {
    0: "hole",
    Kind.FILE_BLOCK: "file block",
    Kind.SUB_BLOCK: "sub-block",
    Kind.POINTER_BLOCK: "pointer block",
    Kind.DESCRIPTOR: "file descriptor",
    Kind.POINTER_BLOCK_2: "second-level pointer block",
    Kind.JOURNAL_BLOCK: "journal block",
    Kind.LARGE_BLOCK: "large block",
}

_TYPE = 0x7
_TBZ_32 = 1 << 5
TBZ_64_FIRST, TBZ_64_ALL = 0x01, 0xFF


def _bits(low: int, high: int) -> int:
    return (1 << (high + 1)) - (1 << low)


# Every bit whose meaning is known, or that is known to have none, by (pointer bytes, kind).
_KNOWN = {
    (4, Kind.FILE_BLOCK): _bits(0, 31),
    (4, Kind.SUB_BLOCK): _bits(0, 31),
    (4, Kind.POINTER_BLOCK): _bits(0, 31),
    (4, Kind.POINTER_BLOCK_2): _bits(0, 31),
    (8, Kind.FILE_BLOCK): _bits(0, 45) | _bits(51, 63),
    (8, Kind.SUB_BLOCK): _bits(0, 41) | _bits(56, 63),
    (8, Kind.POINTER_BLOCK): _bits(0, 41) | _bits(56, 63),
    (8, Kind.POINTER_BLOCK_2): _bits(0, 41) | _bits(56, 63),
    (8, Kind.LARGE_BLOCK): _bits(0, 45),
}


def name_of(kind: int) -> str:
    """What messages call a type."""
    return _NAMES.get(kind, f"address of unknown type {kind}")


def kinds(raw: Raw) -> npt.NDArray[np.uint8]:
    """The type of each pointer."""
    return (raw & np.uint64(_TYPE)).astype(np.uint8)


def unknown_bits(raw: Raw, kind: Kind, pointer_bytes: int) -> Mask:
    """Which pointers have a bit set that has no meaning known to us."""
    foreign = np.uint64(~_KNOWN[pointer_bytes, kind] & (2**64 - 1))
    unknown: Mask = (raw & foreign) != 0
    return unknown


def resource(raw: Raw, kind: Kind, pointer_bytes: int) -> tuple[Offsets, Offsets]:
    """Cluster and item of sub-block and pointer block addresses."""
    if pointer_bytes == 8:
        return _field(raw, 6, 41), _field(raw, 56, 63)
    item = _field(raw, 28, 31)
    if kind is Kind.SUB_BLOCK:
        item |= _field(raw, 3, 4) << 4
    return _field(raw, 6, 27), item


def file_block_32(raw: Raw) -> tuple[Offsets, Mask]:
    """Block number, and whether it is to be zeroed."""
    return _field(raw, 6, 31), (raw & np.uint64(_TBZ_32)) != 0


def file_block_64(raw: Raw) -> tuple[Offsets, Offsets, Offsets]:
    """Cluster, item and TBZ bitmap of a small file block."""
    return _field(raw, 15, 45), _field(raw, 51, 63), _field(raw, 7, 14)


def large_block(raw: Raw) -> tuple[Offsets, Offsets]:
    """Number and TBZ bitmap of a large file block."""
    return _field(raw, 15, 45), _field(raw, 7, 14)


def _field(raw: Raw, low: int, high: int) -> Offsets:
    return ((raw >> np.uint64(low)) & np.uint64((1 << (high - low + 1)) - 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class DescriptorAddress:
    """The address of a file descriptor, in parts."""

    cluster: int
    item: int

    @classmethod
    def decode(cls, address: int) -> DescriptorAddress | None:
        """None when the number is not the address of a file descriptor."""
        if address & _TYPE != Kind.DESCRIPTOR:
            return None
        return cls((address >> 6) & 0xFFFF, address >> 22)

    def encode(self) -> int:
        """The number."""
        return Kind.DESCRIPTOR | self.cluster << 6 | self.item << 22
