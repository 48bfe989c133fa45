"""Reads one file descriptor, and holds it to what it says about itself.

    VMFS-3/5   0 lock │ 512 metadata │ 1024 pointers (256 × u32) or resident data                      2048
    VMFS-6     0 lock │ 4096 metadata │ 4608 resident data ... │ 0x1600 pointers (320 × u64)           8192

In: the volume, the descriptor's address and where it lies. Out: ``Inode``. Promised: magic, own address, own
offset, link count and generation are as they must be, so that a torn read, a stale directory entry or a wrong map
cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np

from vcbproxy.device import Device, read
from vcbproxy.errors import VmfsError
from vcbproxy.vmfs import address as addresses
from vcbproxy.vmfs import c_vmfs, layout
from vcbproxy.vmfs.descriptor import FileSystem

_E = TypeVar("_E", bound=IntEnum)


class FileType(IntEnum):
    """What a file is, in its descriptor and in directory entries."""

    DIRECTORY = 2
    FILE = 3
    SYMLINK = 4
    SYSTEM = 5
    RDM = 6


class Layout(IntEnum):
    """How a file's pointer array is to be read; the vendor's name is ZLA, zero-level address type."""

    NONE = 0
    BLOCKS = 1
    SUB_BLOCKS = 2
    POINTERS = 3
    POINTERS_2 = 5
    DOUBLE = 0x10D0
    RESIDENT = 0x10D1


@dataclass(frozen=True, slots=True)
class Stamp:
    """What must not move while a file is read: any change means that someone wrote, moved, grew or replaced it.

    The lock's token is not part of it: it rises with every lock cycle, also when a host takes over a running VM and
    opens its frozen disks for reading.
    """

    generation: int
    length: int
    blocks: int
    mtime: int


class LockMode(IntEnum):
    """How a file is locked. A host keeps the disks under a VM snapshot READ_ONLY while the VM runs."""

    FREE = 0
    EXCLUSIVE = 1
    READ_ONLY = 2
    WRITERS = 3


@dataclass(frozen=True, slots=True)
class Inode:
    """A file descriptor, decoded. ``name`` is what messages call the file."""

    name: str
    address: int
    offset: int  # in the volume
    token: int
    lock_mode: int
    generation: int
    links: int
    type: FileType
    flags: int
    length: int
    block_size_bytes: int
    blocks: int
    blocks_tbz: int
    mtime: int
    ctime: int
    atime: int
    uid: int
    gid: int
    mode: int
    layout: Layout
    blocks_large: int  # numLFB
    tbz_shift: int
    raw: bytes = field(repr=False)
    resident: bytes = field(repr=False)  # the file's own bytes, if they lie here; of a raw device mapping, which LUN

    @property
    def stamp(self) -> Stamp:
        """What ``VmfsFile.recheck`` compares."""
        return Stamp(self.generation, self.length, self.blocks, self.mtime)

    @property
    def is_directory(self) -> bool:
        """Directories, and the one system file (.sdd.sf) that is a directory."""
        return self.type is FileType.DIRECTORY or (self.type is FileType.SYSTEM and self.mode & 0o170000 == 0o040000)

    def pointers(self, fs: FileSystem) -> addresses.Raw:
        """The pointer array, widened to u64."""
        array = np.frombuffer(self.raw, dtype=f"<u{fs.pointer_bytes}", offset=fs.pointers_offset)
        if not fs.alignment:
            array = array[: c_vmfs.FS3_POINTERS_PER_FD]
        return array.astype(np.uint64)


def load(volume: Device, fs: FileSystem, offset: int, address: int, name: str, generation: int | None = None) -> Inode:
    """Read and check the descriptor at ``offset``; ``generation`` is the directory entry's.

    Raises:
        VmfsError: a self-check failed, or its type or layout is unknown.
    """

    def fail(reason: str) -> VmfsError:
        return VmfsError(volume=fs.name, file=name, reason=reason, offset=offset)

    if offset + fs.fd_bytes > volume.size_bytes:
        raise fail("its file descriptor lies past the end of the volume")
    raw = read(volume, offset, fs.fd_bytes)
    lock = layout.Fields(c_vmfs.FS3_DiskLock, raw)
    meta = layout.Fields(c_vmfs.FS3_FileMetadata, raw, fs.metadata_offset)
    _hold_right(lock, meta, offset, address, generation, fail)
    known = _known(Layout, meta["zla"], "block layout (ZLA)", fail)
    kind = _known(FileType, meta["type"], "type", fail)
    return Inode(
        name=name,
        address=address,
        offset=offset,
        token=lock["token"],
        lock_mode=lock["mode"],
        generation=meta["generation"],
        links=meta["linkCount"],
        type=kind,
        flags=meta["flags"],
        length=meta["length"],
        block_size_bytes=meta["blockSize"],
        blocks=meta["numBlocks"],
        blocks_tbz=meta["numTBZLo"] | (meta["numTBZHi"] << 32 if fs.alignment else 0),
        mtime=meta["mtime"],
        ctime=meta["ctime"],
        atime=meta["atime"],
        uid=meta["uid"],
        gid=meta["gid"],
        mode=meta["mode"],
        layout=known,
        blocks_large=meta["numLFB"] if fs.alignment else 0,
        tbz_shift=meta["tbzGranularityShift"] if fs.alignment else 0,
        raw=raw,
        resident=raw[fs.resident_offset :][: _resident_bytes(kind, known, meta["length"])],
    )


def _hold_right(
    lock: layout.Fields,
    meta: layout.Fields,
    offset: int,
    address: int,
    generation: int | None,
    fail: Callable[[str], VmfsError],
) -> None:
    """It is a descriptor, the one that was looked for, and in use.

    Raises:
        VmfsError: it is not.
    """
    if lock["type"] != c_vmfs.FS3_FD_MAGIC:
        raise fail(f"no file descriptor here: magic {lock['type']:#x} instead of {c_vmfs.FS3_FD_MAGIC:#x}")
    if lock["address"] != offset:
        raise fail(f"its file descriptor says it lies at {lock['address']:#x}")
    if meta["fdAddr"] != address:
        raise fail(f"its file descriptor says its address is {meta['fdAddr']:#x}, the one looked for is {address:#x}")
    if meta["linkCount"] == 0:
        raise fail("it is deleted: link count 0")
    if generation is not None and meta["generation"] != generation:
        raise fail(f"generation {meta['generation']} in its file descriptor, {generation} in its directory")


def _resident_bytes(kind: FileType, known: Layout, length: int) -> int:
    if kind is FileType.RDM:
        return c_vmfs.SCSI_DISK_ID_SIZE
    return length if known is Layout.RESIDENT else 0


def _known(kind: type[_E], value: int, what: str, fail: Callable[[str], VmfsError]) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise fail(f"its {what} {value} is unknown") from None


def damaged(fs: FileSystem, inode: Inode, reason: str, offset: int | None = None) -> VmfsError:
    """The error for a file that contradicts itself; ``offset`` is where, if not in its descriptor."""
    at = inode.offset if offset is None else offset
    return VmfsError(volume=fs.name, file=inode.name, reason=reason, offset=at)
