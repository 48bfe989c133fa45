"""Files as the record keeps them, and as a descriptor (inode) on disk holds them.

A node's block pointers lie in *leaves*, arrays as long as a pointer block. In a direct file there is one leaf and it
lies in the descriptor; with pointer blocks each leaf has an address; with double indirection the leaves' addresses lie
in outer pointer blocks:

    BLOCKS     descriptor [ b b b ... ]
    POINTERS   descriptor [ p . p ... ] ──▶ leaf [ b b . b ... ]          a dot is a hole, also where a leaf would be
    DOUBLE     descriptor [ o . . ... ] ──▶ outer [ p . p ... ] ──▶ leaf
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from vcbproxy.lab.vmfs.address import Codec, Pointers
from vcbproxy.lab.vmfs.geometry import Geometry
from vcbproxy.lab.vmfs.identity import Identity

DESCRIPTOR_MAGIC = 0x10C00001
_SIGNATURE = 0x66646D64


class FileKind(IntEnum):
    """What a descriptor describes."""

    DIRECTORY = 2
    FILE = 3
    SYMLINK = 4
    SYSTEM = 5
    RDM = 6


class Zla(IntEnum):
    """Zero-level address: how to read a descriptor's pointer array."""

    RDM = 0
    BLOCKS = 1
    SUB_BLOCKS = 2
    POINTERS = 3
    POINTERS_2 = 5
    DOUBLE = 0x10D0
    RESIDENT = 0x10D1


INDIRECT = frozenset({Zla.POINTERS, Zla.POINTERS_2, Zla.DOUBLE})


@dataclass(slots=True, eq=False)
class Node:
    """One file, directory, link or mapping."""

    address: int
    kind: FileKind
    zla: Zla
    block_bytes: int
    generation: int
    mode: int
    parent: int
    length: int = 0
    links: int = 1
    token: int = 0
    lock_mode: int = 0
    lock_owner: bytes = b""
    """The host's UUID; without, the volume's first host."""
    modified_s: int = 0
    sub_blocks_max: int = 1
    """How far it may grow in sub-blocks."""
    small: bytes = b""
    """Resident content, or a mapping's disk id."""
    leaves: dict[int, Pointers] = field(default_factory=dict)
    leaf_addresses: dict[int, int] = field(default_factory=dict)
    outer_addresses: dict[int, int] = field(default_factory=dict)
    blocks: int = 0
    tbz: int = 0
    large: int = 0
    deleted: bool = False
    guard: threading.RLock = field(default_factory=threading.RLock)

    def leaf_length(self, geometry: Geometry) -> int:
        """Pointers in one leaf."""
        return geometry.pointers_block if self.zla in INDIRECT else geometry.pointers_direct

    def gather(self, first: int, count: int, geometry: Geometry) -> Pointers:
        """Pointers of ``count`` blocks from ``first``; holes are 0."""
        length = self.leaf_length(geometry)
        found = np.zeros(count, dtype=np.uint64)
        done = 0
        while done < count:
            leaf, slot = divmod(first + done, length)
            step = min(count - done, length - slot)
            held = self.leaves.get(leaf)
            if held is not None:
                found[done : done + step] = held[slot : slot + step]
            done += step
        return found

    def scatter(self, first: int, pointers: Pointers, geometry: Geometry) -> list[tuple[int, int, int]]:
        """Put pointers back; returns the slices that changed: (leaf, first slot, end slot)."""
        length = self.leaf_length(geometry)
        touched = []
        done = 0
        while done < len(pointers):
            leaf, slot = divmod(first + done, length)
            step = min(len(pointers) - done, length - slot)
            held = self.leaves.get(leaf)
            if held is None:
                held = self.leaves[leaf] = np.zeros(length, dtype=np.uint64)
            part = pointers[done : done + step]
            changed = np.flatnonzero(held[slot : slot + step] != part)
            if len(changed):
                touched.append((leaf, slot + int(changed[0]), slot + int(changed[-1]) + 1))
                held[slot : slot + step] = part
            done += step
        return touched


def encode_lock(node: Node, volume_offset: int, who: Identity) -> bytes:
    """The lock sector: where it lies, and the token that rises with every change."""
    sector = bytearray(512)
    struct.pack_into("<IQQQQI", sector, 0, DESCRIPTOR_MAGIC, volume_offset, 0, 0, node.token, node.lock_mode)
    if node.lock_mode:
        sector[0x28:0x38] = node.lock_owner or who.host.raw
    struct.pack_into("<Q", sector, 0x38, node.modified_s & 0xFFFFFFFF)
    return bytes(sector)


def encode_metadata(node: Node, geometry: Geometry) -> bytes:
    """The metadata sector."""
    sector = bytearray(512)
    counters = (node.length, node.block_bytes, node.blocks)
    flags = (
        0x9 if geometry.wide and node.kind is FileKind.FILE and node.zla not in (Zla.RESIDENT, Zla.SUB_BLOCKS) else 0
    )
    struct.pack_into("<IIIII", sector, 0, node.address, node.generation, node.links, node.kind, flags)
    struct.pack_into("<QQQ", sector, 0x14, *counters)
    struct.pack_into("<IIIIII", sector, 0x2C, *[node.modified_s] * 3, 0, 0, node.mode)
    struct.pack_into("<IIII", sector, 0x44, node.zla, node.tbz & 0xFFFFFFFF, 0, node.blocks & 0xFFFFFFFF)
    struct.pack_into("<II", sector, 0x54, node.tbz >> 32, 0)
    shift = node.block_bytes.bit_length() - 1
    if geometry.version != 3:
        struct.pack_into("<II", sector, 0x68, node.address, shift)
        sector[0x89] = shift
    if geometry.wide:
        struct.pack_into("<I", sector, 0x5C, len(node.leaf_addresses) + len(node.outer_addresses))
        struct.pack_into("<I", sector, 0x64, _SIGNATURE)
        struct.pack_into("<I", sector, 0x70, node.parent)
        struct.pack_into("<I", sector, 0x8C, node.large)
    return bytes(sector)


def encode_data(node: Node, geometry: Geometry, codec: Codec) -> bytes:
    """What follows the metadata: resident bytes, a disk id or the pointer array."""
    room = geometry.descriptor_bytes - geometry.resident_offset
    if node.zla in (Zla.RESIDENT, Zla.RDM):
        return node.small.ljust(room, b"\0")
    array = np.zeros(geometry.pointers_direct, dtype=np.uint64)
    if node.zla in INDIRECT:
        for index, address in (node.outer_addresses if node.zla is Zla.DOUBLE else node.leaf_addresses).items():
            array[index] = address
    elif 0 in node.leaves:
        array[:] = node.leaves[0]
    packed = array.astype(codec.dtype).tobytes()
    return packed.rjust(room, b"\0")
