"""Reads directories: an array of entries on VMFS-3/5, blocks with bitmaps behind a hash table on VMFS-6.

    VMFS-3/5   entry × n, 140 bytes each                               unused: address 0
    VMFS-6     header, 64 KiB │ block 0 │ block 1 │ ...                blocks of 4 KiB, numbered
               a map block says of each block what it is (4 bits)      entries, links or map; not written
               an entry block: 64-byte header with a bitmap, 14 slots  bit set: free, whatever the slot still holds

In: an open directory's bytes. Out: ``Entry`` values in the order they lie. Promised: freed entries never come back,
and neither do empty ones, whatever a bitmap says of them; sizes and counts are bounded before anything is read. The
hash table is for finding names fast and is not needed to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vcbproxy.device import Device, read
from vcbproxy.errors import VmfsError
from vcbproxy.units import MiB, align_up
from vcbproxy.vmfs import c_vmfs, layout
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.inode import FileType, Inode

_LENGTH_MAX = 256 * MiB
_NIBBLES_HEADER = c_vmfs.FS6_DIR_BLOCK_HEADER_SIZE
_ENTRIES, _MAP = 1, 3
_NOT_WRITTEN = 8
_TYPES = {int(kind): kind for kind in FileType}


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory. ``type`` is None when the number on disk is not a known one."""

    name: str
    address: int
    generation: int
    type: FileType | None


def entries(fs: FileSystem, inode: Inode, content: Device) -> Iterator[Entry]:
    """All entries, ``.`` and ``..`` among them.

    Raises:
        VmfsError: the directory contradicts itself.
    """
    if inode.length > _LENGTH_MAX:
        reason = f"a directory of {inode.length} bytes is more than the {_LENGTH_MAX} that are read"
        raise VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=inode.offset)
    return _hashed(fs, inode, content) if fs.alignment else _flat(fs, inode, content)


def _type(number: int) -> FileType | None:
    return _TYPES.get(number)


def _flat(fs: FileSystem, inode: Inode, content: Device) -> Iterator[Entry]:
    size = c_vmfs.FS3_DirEntry.itemsize
    count, rest = divmod(content.size_bytes, size)
    if rest and any(read(content, count * size, rest)):
        reason = f"a directory of {content.size_bytes} bytes is not a whole number of {size}-byte entries"
        raise VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=inode.offset)
    batch = MiB // size
    for first in range(0, count, batch):
        raw = read(content, first * size, min(batch, count - first) * size)
        for record in np.frombuffer(raw, c_vmfs.FS3_DirEntry):
            if record["type"] and record["fdAddr"]:
                yield _entry(record)


def _entry(record: np.void) -> Entry:
    name = layout.text(record["name"].tobytes())
    return Entry(name, int(record["fdAddr"]), int(record["generation"]), _type(int(record["type"])))


def _hashed(fs: FileSystem, inode: Inode, content: Device) -> Iterator[Entry]:
    def fail(reason: str) -> VmfsError:
        return VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=inode.offset)

    if content.size_bytes < c_vmfs.FS6_DIR_HEADER_SIZE:
        raise fail(f"a directory of {content.size_bytes} bytes is too short for its header")
    raw = read(content, 0, align_up(c_vmfs.FS6_DirHeader.itemsize, 512))
    header = layout.Fields(c_vmfs.FS6_DirHeader, raw)
    if header["version"] not in c_vmfs.FS6_DIR_VERSIONS:
        raise fail(f"directory version {header['version']:#x} is unknown")
    maps = header["numMapBlocks"]
    if maps > c_vmfs.FS6_DIR_MAX_MAPS:
        raise fail(f"{maps} allocation maps; at most {c_vmfs.FS6_DIR_MAX_MAPS} are possible")
    for name in ("self", "parent"):
        record = np.frombuffer(header.raw(name), c_vmfs.FS6_DirEntry)[0]
        if record["fdAddr"]:
            yield _entry(record)
    blocks = _Blocks(fs, content, fail)
    numbers = np.frombuffer(header.raw("mapBlocks"), "<u4")[:maps].tolist()
    if len(set(numbers)) != len(numbers):
        raise fail("it uses one allocation map twice")
    for index, number in enumerate(numbers):
        yield from blocks.entries_by_map(index, number)


class _Blocks:
    """The numbered blocks behind the header of one VMFS-6 directory."""

    def __init__(self, fs: FileSystem, content: Device, fail: Callable[[str], VmfsError]) -> None:
        self._size = fs.alignment
        self._content = content
        self._fail = fail

    def entries_by_map(self, index: int, number: int) -> Iterator[Entry]:
        """Entries of all blocks that map block ``number``, the directory's ``index``-th, says hold some."""
        block = self._read(number, _MAP)
        nibbles = np.frombuffer(block, np.uint8, offset=_NIBBLES_HEADER)
        kinds = np.stack((nibbles >> 4, nibbles & 0xF), axis=1).reshape(-1)
        holding = np.flatnonzero((kinds & 3 == _ENTRIES) & (kinds & _NOT_WRITTEN == 0))
        for place in holding.tolist():
            yield from self._entries(index * len(kinds) + place)

    def _entries(self, number: int) -> Iterator[Entry]:
        block = self._read(number, _ENTRIES)
        header = layout.Fields(c_vmfs.FS6_DirBlockHeader, block)
        room = (self._size - _NIBBLES_HEADER) // c_vmfs.FS6_DirEntry.itemsize
        slots = header["totalSlots"]
        if slots > room:
            raise self._fail(f"directory block {number} says it has {slots} slots, there is room for {room}")
        free = np.unpackbits(np.frombuffer(header.raw("bitmap"), np.uint8), bitorder="little")
        records = np.frombuffer(block, c_vmfs.FS6_DirEntry, count=slots, offset=_NIBBLES_HEADER)
        for slot, record in enumerate(records):
            if not free[slot] and record["fdAddr"]:
                yield _entry(record)

    def _read(self, number: int, kind: int) -> bytes:
        start = c_vmfs.FS6_DIR_HEADER_SIZE + number * self._size
        if start + self._size > self._content.size_bytes:
            raise self._fail(f"directory block {number} lies past the end of the directory")
        block = read(self._content, start, self._size)
        found = layout.Fields(c_vmfs.FS6_DirBlockHeader, block)["type"]
        if found != kind:
            names = c_vmfs.FS6_DIR_BLOCK_TYPES
            what = names.get(found, f"unknown type {found}")
            raise self._fail(f"directory block {number} holds {what} where {names[kind]} belong")
        return block
