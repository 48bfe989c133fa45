"""Directories of VMFS-6: a hash table in front, then blocks of 4 KiB.

    file   0                    0x5F8                  64 KiB       +4 KiB         ...
           ├─ header, . and .. ─┼─ table, 16001 × u32 ─┼─ block 0 ──┼─ block 1 ────┼─ ...
                                                         the map      dirents | links

A table slot leads to a dirent, or, once two names share it, to a chain of link groups, each leading to twelve. The map
says of every block what it is and whether it has room. Freed dirents keep their bytes; only the block's bitmap says
that they are free. As seen on directories made by ESXi 7 and 8, one of them full of names that collide.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs.directory import Entry, Patch
from vcbproxy.lab.vmfs.namehash import name_hash

HEADER_BYTES = 0x10000
BLOCK_BYTES = 4096
BLOCK_HEADER = 64
VERSION = 0xF50001
DIRENT_BYTES = 0x120
DIRENTS = 14
LINK_BYTES = 0x54
LINK_GROUPS = 48
LINKS = 12
TABLE = 0x5F8
TABLE_SLOTS = 16001
ROOT_SLOTS = 15973
SELF, PARENT = 0x3B8, 0x4D8
_SYSTEM_SLOT = 0x3E66
_SYSTEM_NAMES = (
    ".fbb.sf",
    ".fdc.sf",
    ".pbc.sf",
    ".sbc.sf",
    ".vh.sf",
    ".pb2.sf",
    ".sdd.sf",
    ".jbc.sf",
    ".unmap.sf",
    ".dfd.sf",
)
_DIRENT, _LINK, _MAP = 1, 2, 3
_HAS_ROOM, _NOT_WRITTEN = 4, 8
_MAP_BLOCKS = 2 * (BLOCK_BYTES - BLOCK_HEADER)


@dataclass(frozen=True, slots=True)
class Spot:
    """A slot of a block: what a table slot, a link or a chain leads to."""

    kind: int
    block: int
    slot: int

    def encode(self) -> int:
        """As it stands in the table."""
        return self.kind | self.block << 2 | self.slot << 24


class HashedDirectory:
    """The directory's whole content, and where each name lies in it."""

    def __init__(self, own: Entry, parent: Entry, *, root: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self._root = root
        self._spots: dict[str, Spot] = {}
        self._content = bytearray(HEADER_BYTES + BLOCK_BYTES)
        self._dirty: list[tuple[int, int]] = []
        struct.pack_into("<IIIII", self._content, 0, VERSION, 2, 2, 1, 0)
        self._put(SELF, _dirent(own, SELF, 0))
        self._put(PARENT, _dirent(parent, PARENT, 0))
        struct.pack_into("<HHHH", self._content, HEADER_BYTES, 0, _MAP, 0, 0)
        start = HEADER_BYTES + BLOCK_HEADER
        self._content[start : start + _MAP_BLOCKS // 2] = b"\x88" * (_MAP_BLOCKS // 2)
        self._set_map(0, _MAP)

    @property
    def length(self) -> int:
        """Header and blocks."""
        return len(self._content)

    def initial(self) -> list[Patch]:
        """All of it."""
        self._dirty.clear()
        return [
            Patch(0, bytes(self._content[:HEADER_BYTES])),
            Patch(HEADER_BYTES, bytes(self._content[HEADER_BYTES:])),
        ]

    def add(self, entry: Entry) -> list[Patch]:
        """A new name, or a new target of one (``..`` too)."""
        if entry.name in (".", ".."):
            place = SELF if entry.name == "." else PARENT
            self._put(place, _dirent(entry, place, 0))
            return self._patches()
        fresh = entry.name not in self._spots
        spot = self._take(_DIRENT) if fresh else self._spots[entry.name]
        self._spots[entry.name] = spot
        self.entries[entry.name] = entry
        bucket, link_hash, stored = self._hashes(entry.name)
        self._put(self._place(spot), _dirent(entry, self._place(spot), stored))
        if fresh:
            self._insert(bucket, link_hash, spot)
        self._count()
        return self._patches()

    def remove(self, name: str) -> list[Patch]:
        """Unhook the name, then free its slot."""
        spot = self._spots.pop(name)
        del self.entries[name]
        self._unhook(self._hashes(name)[0], spot)
        self._give_back(spot)
        self._count()
        return self._patches()

    def state(self) -> object:
        """Content and spots, as JSON."""
        packed = base64.b64encode(zlib.compress(bytes(self._content), 1)).decode()
        spots = {name: [spot.block, spot.slot] for name, spot in self._spots.items()}
        entries = [[entry.name, entry.kind, entry.address, entry.generation] for entry in self.entries.values()]
        return {"content": packed, "spots": spots, "entries": entries, "root": self._root}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> HashedDirectory:
        """From a record."""
        nobody = Entry(".", 0, 0, 0)
        found = cls(nobody, nobody, root=state["root"])
        found._content = bytearray(zlib.decompress(base64.b64decode(state["content"])))
        found._spots = {name: Spot(_DIRENT, block, slot) for name, (block, slot) in state["spots"].items()}
        found.entries = {row[0]: Entry(*row) for row in state["entries"]}
        found._dirty.clear()
        return found

    # bytes

    def _put(self, offset: int, data: bytes) -> None:
        self._content[offset : offset + len(data)] = data
        self._dirty.append((offset, len(data)))

    def _patches(self) -> list[Patch]:
        """What changed, blocks before the table that leads to them."""
        order = sorted(self._dirty, key=lambda piece: (piece[0] < HEADER_BYTES, piece[0]))
        self._dirty = []
        return [Patch(offset, bytes(self._content[offset : offset + length])) for offset, length in order]

    def _u32(self, offset: int) -> int:
        return int.from_bytes(self._content[offset : offset + 4], "little")

    def _count(self) -> None:
        count = len(self.entries) + 2
        self._put(4, struct.pack("<II", count, count))

    def _hashes(self, name: str) -> tuple[int, int, int]:
        """Table slot, link hash, and the hash that the dirent stores."""
        if self._root and name in _SYSTEM_NAMES:
            slot = _SYSTEM_SLOT + _SYSTEM_NAMES.index(name)
            return slot, slot, 0
        value = name_hash(name)
        return value % (ROOT_SLOTS if self._root else TABLE_SLOTS), (value >> 16) & 0xFFFF, value & 0xFFFFFFFF

    # blocks and their slots

    def _place(self, spot: Spot) -> int:
        size = DIRENT_BYTES if spot.kind == _DIRENT else LINK_BYTES
        return HEADER_BYTES + spot.block * BLOCK_BYTES + BLOCK_HEADER + spot.slot * size

    def _set_map(self, block: int, nibble: int) -> None:
        at, low = divmod(block, 2)
        place = HEADER_BYTES + BLOCK_HEADER + at
        byte = self._content[place]
        self._put(place, bytes([byte & 0xF0 | nibble if low else byte & 0x0F | nibble << 4]))

    def _get_map(self, block: int) -> int:
        at, low = divmod(block, 2)
        byte = self._content[HEADER_BYTES + BLOCK_HEADER + at]
        return byte & 15 if low else byte >> 4

    def _take(self, kind: int) -> Spot:
        blocks = (len(self._content) - HEADER_BYTES) // BLOCK_BYTES
        for block in range(1, blocks):
            if self._get_map(block) == kind | _HAS_ROOM:
                return self._take_in(block, kind)
        if blocks == _MAP_BLOCKS:
            raise UsageError("a lab directory holds no more than one map's blocks of names")
        self._content.extend(bytes(BLOCK_BYTES))
        slots = DIRENTS if kind == _DIRENT else LINK_GROUPS
        bitmap = ((1 << slots) - 1).to_bytes(56, "little")
        start = struct.pack("<HHHH", 1, kind, slots, slots) + bitmap
        self._put(HEADER_BYTES + blocks * BLOCK_BYTES, start.ljust(BLOCK_BYTES, b"\0"))
        return self._take_in(blocks, kind)

    def _take_in(self, block: int, kind: int) -> Spot:
        start = HEADER_BYTES + block * BLOCK_BYTES
        bitmap = int.from_bytes(self._content[start + 8 : start + 64], "little")
        slot = (bitmap & -bitmap).bit_length() - 1
        self._set_bitmap(block, kind, bitmap & ~(1 << slot))
        return Spot(kind, block, slot)

    def _give_back(self, spot: Spot) -> None:
        start = HEADER_BYTES + spot.block * BLOCK_BYTES
        bitmap = int.from_bytes(self._content[start + 8 : start + 64], "little")
        self._set_bitmap(spot.block, spot.kind, bitmap | 1 << spot.slot)

    def _set_bitmap(self, block: int, kind: int, bitmap: int) -> None:
        start = HEADER_BYTES + block * BLOCK_BYTES
        self._put(start + 6, struct.pack("<H", bitmap.bit_count()) + bitmap.to_bytes(56, "little"))
        self._set_map(block, kind | (_HAS_ROOM if bitmap else 0))

    # the table and its chains

    def _slot(self, bucket: int) -> Spot | None:
        return _decode(self._u32(TABLE + bucket * 4))

    def _set_slot(self, bucket: int, spot: Spot | None) -> None:
        self._put(TABLE + bucket * 4, (spot.encode() if spot else 0).to_bytes(4, "little"))

    def _groups(self, bucket: int) -> list[Spot]:
        """The link groups of a bucket, in chain order."""
        found = []
        spot = self._slot(bucket)
        while spot is not None and spot.kind == _LINK:
            found.append(spot)
            spot = _decode(self._u32(self._place(spot) + 0x4E))
        return found

    def _links(self, group: Spot) -> list[tuple[int, int]]:
        place = self._place(group)
        used = LINKS - self._content[place + 3]
        return [struct.unpack_from("<IH", self._content, place + 6 + 6 * index) for index in range(used)]

    def _write_group(self, group: Spot, bucket: int, links: list[tuple[int, int]], following: int) -> None:
        count = len(links)
        body = b"".join(struct.pack("<IH", *link) for link in links).ljust(6 * LINKS, b"\0")
        start = struct.pack("<HBBBB", bucket, LINKS, LINKS - count, count, 0)
        self._put(self._place(group), start + body + struct.pack("<I", following))

    def _insert(self, bucket: int, link_hash: int, spot: Spot) -> None:
        held = self._slot(bucket)
        if held is None:
            self._set_slot(bucket, spot)
            return
        groups = self._groups(bucket)
        link = (spot.encode(), link_hash)
        for group in groups:
            links = self._links(group)
            if len(links) < LINKS:
                following = self._u32(self._place(group) + 0x4E)
                self._write_group(group, bucket, [*links, link], following)
                return
        group = self._take(_LINK)
        if not groups:
            other = next(name for name, place in self._spots.items() if place == held)
            self._write_group(group, bucket, [(held.encode(), self._hashes(other)[1]), link], 0)
            self._set_slot(bucket, group)
            return
        self._write_group(group, bucket, [link], 0)
        self._put(self._place(groups[-1]) + 0x4E, group.encode().to_bytes(4, "little"))

    def _unhook(self, bucket: int, spot: Spot) -> None:
        groups = self._groups(bucket)
        if not groups:
            self._set_slot(bucket, None)
            return
        for index, group in enumerate(groups):
            links = self._links(group)
            kept = [link for link in links if link[0] != spot.encode()]
            if len(kept) == len(links):
                continue
            following = self._u32(self._place(group) + 0x4E)
            if kept:
                self._write_group(group, bucket, kept, following)
                return
            if index:
                self._put(self._place(groups[index - 1]) + 0x4E, following.to_bytes(4, "little"))
            else:
                self._set_slot(bucket, _decode(following))
            self._give_back(group)
            return


def _decode(code: int) -> Spot | None:
    return Spot(code & 3, (code >> 2) & 0x3FFFFF, code >> 24) if code else None


def _dirent(entry: Entry, offset: int, stored_hash: int) -> bytes:
    name = entry.name.encode("utf-8", "surrogateescape")
    start = struct.pack("<IIIIQ", entry.kind, entry.address, entry.generation, stored_hash, offset)
    return (start + name).ljust(DIRENT_BYTES, b"\0")
