"""Follows a file's pointers down to the lowest level, whole pointer blocks at a time.

    BLOCKS      array[i]
    POINTERS    array[i / n]  → pointer block, entry i mod n              n pointers to a pointer block
    DOUBLE      array[i / n²] → block, entry (i / n) mod n → block, entry i mod n

In: an inode, and the resource files that hold pointer blocks. Out: batches of (number of the block in the file,
pointer), in file order, holes left out. Pointer blocks are read in batches, neighbours on disk with one read, each
once. Promised: memory is one batch a level; a pointer of a wrong type, or a pointer block used twice, raises.

The type of a pointer says which resource file holds its block. On VMFS-5 either .pbc.sf or .pb2.sf may hold the
outer blocks of a doubly indirect file: ESXi 8 was seen to use .pbc.sf, descriptions of older ones say .pb2.sf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from vcbproxy.device import Device
from vcbproxy.units import MiB
from vcbproxy.vmfs import address
from vcbproxy.vmfs.address import Kind, Raw
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.inode import Inode, Layout, damaged
from vcbproxy.vmfs.layout import Offsets
from vcbproxy.vmfs.resource import Resource

_BATCH_BYTES = MiB

Resources = Callable[[Kind], Resource]
Leaves = Iterator[tuple[Offsets, Raw]]


class Descent:
    """One pass over one file's pointers."""

    def __init__(self, volume: Device, fs: FileSystem, inode: Inode, resources: Resources) -> None:
        self._volume = volume
        self._fs = fs
        self._inode = inode
        self._resources = resources
        self._array = inode.pointers(fs)
        self._levels = {Layout.BLOCKS: 0, Layout.DOUBLE: 2}.get(inode.layout, 1)
        self._allowed = self._allowed_kinds()
        self._block_bytes = self._pointer_block_bytes() if self._levels else 0
        self._seen: set[int] = set()  # where in the volume pointer blocks lie

    @property
    def slots(self) -> int:
        """How many blocks a file of this layout can have."""
        slots: int = len(self._array) * (self._block_bytes // self._fs.pointer_bytes) ** self._levels
        return slots

    def leaves(self) -> Leaves:
        """The pointers to the file's own blocks, and their numbers in the file."""
        return self._down(np.arange(len(self._array), dtype=np.int64), self._array, self._levels)

    def _allowed_kinds(self) -> tuple[Kind, ...]:
        """The kinds of blocks that may hold pointers; the usual one first."""
        if self._inode.layout is Layout.POINTERS_2:
            return (Kind.POINTER_BLOCK_2,)
        return (Kind.SUB_BLOCK if self._fs.alignment else Kind.POINTER_BLOCK, Kind.POINTER_BLOCK_2)

    def _pointer_block_bytes(self) -> int:
        used = address.kinds(self._array[self._array != 0])
        first = Kind(used[0]) if len(used) and used[0] in self._allowed else self._allowed[0]
        source = self._resources(first)
        size = self._fs.pointer_block_bytes or source.item_bytes
        if size != source.item_bytes or size % self._fs.pointer_bytes or not 512 <= size <= MiB:
            reason = f"pointer blocks of {size} bytes do not fit {source.name}, whose items have {source.item_bytes}"
            raise damaged(self._fs, self._inode, reason)
        return size

    def _down(self, numbers: Offsets, raw: Raw, levels: int) -> Leaves:
        used = np.flatnonzero(raw)
        numbers, raw = numbers[used], raw[used]
        if not len(raw):
            return
        if levels == 0:
            yield numbers, raw
            return
        check_kinds(self._fs, self._inode, raw, self._allowed)
        per_block = self._block_bytes // self._fs.pointer_bytes
        batch = max(1, _BATCH_BYTES // self._block_bytes)
        for first in range(0, len(raw), batch):
            part = slice(first, first + batch)
            below = numbers[part, None] * per_block + np.arange(per_block, dtype=np.int64)
            yield from self._down(below.reshape(-1), self._read(raw[part]), levels - 1)

    def _read(self, raw: Raw) -> Raw:
        """The contents of pointer blocks, one after the other."""
        pieces: list[tuple[int, int, int]] = []  # where in the volume, how long, where in the buffer
        kinds = address.kinds(raw)
        for kind in np.unique(kinds).tolist():
            source = self._resources(Kind(kind))
            if source.item_bytes != self._block_bytes:
                size = source.item_bytes
                reason = f"{source.name} has items of {size} bytes, its other pointer blocks {self._block_bytes}"
                raise damaged(self._fs, self._inode, reason)
            mine = np.flatnonzero(kinds == kind)
            cluster, item = address.resource(raw[mine], Kind(kind), self._fs.pointer_bytes)
            places = source.offsets(cluster, item, self._inode.name)
            for number, place in zip(mine.tolist(), places.tolist(), strict=True):
                target = number * self._block_bytes
                for piece in source.pieces(place, self._inode.name):
                    pieces.append((piece.device_offset, piece.length, target + piece.file_offset))
        for place, _, _ in pieces:
            if place in self._seen:
                raise damaged(self._fs, self._inode, "one of its pointer blocks is used twice", place)
            self._seen.add(place)
        buf = bytearray(len(raw) * self._block_bytes)
        self._gather(sorted(pieces), memoryview(buf))
        return np.frombuffer(buf, dtype=f"<u{self._fs.pointer_bytes}").astype(np.uint64, copy=False)

    def _gather(self, pieces: list[tuple[int, int, int]], view: memoryview) -> None:
        """Read pieces, sorted by place, into their targets; neighbours with one read."""
        first = 0
        while first < len(pieces):
            last = first
            start, length, _ = pieces[first]
            end = start + length
            while last + 1 < len(pieces) and pieces[last + 1][0] == end:
                last += 1
                end += pieces[last][1]
            if end > self._volume.size_bytes:
                raise damaged(self._fs, self._inode, "a pointer block lies past the end of the volume", start)
            raw = bytearray(end - start)
            self._volume.read_into(start, memoryview(raw))
            for place, size, target in pieces[first : last + 1]:
                view[target : target + size] = raw[place - start : place - start + size]
            first = last + 1


def check_kinds(fs: FileSystem, inode: Inode, raw: Raw, allowed: tuple[Kind, ...]) -> None:
    """Hold that every pointer is of an allowed type and has no bits set that are not understood.

    Raises:
        VmfsError: one is not.
    """
    kinds = address.kinds(raw)
    wrong = ~np.isin(kinds, allowed)
    if wrong.any():
        worst = int(np.argmax(wrong))
        found, wanted = address.name_of(int(kinds[worst])), " or ".join(address.name_of(kind) for kind in allowed)
        raise damaged(fs, inode, f"pointer {int(raw[worst]):#x} is a {found}, where a {wanted} belongs")
    for kind in allowed:
        unknown = address.unknown_bits(raw, kind, fs.pointer_bytes) & (kinds == kind)
        if unknown.any():
            worst = int(raw[np.argmax(unknown)])
            raise damaged(fs, inode, f"pointer {worst:#x} to a {address.name_of(kind)} has unknown bits set")
