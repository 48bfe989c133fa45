"""An open volume: devices in, files by path out. The front door of the reader.

    with Lun ... as lun:
        volume = Volume.open([lun])
        disk = volume.open_file("/web01/web01-flat.vmdk")
        ... read disk by its extents ...
        disk.recheck()

What a ``Volume`` holds on to is what never changes while it is open: which device holds which part, and the
descriptor's geometry. Everything else is read afresh for each call, because hosts are at work on the volume.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vcbproxy.device import Device
from vcbproxy.errors import LvmError, PathNotFound, Unreadable, VmfsError
from vcbproxy.vmfs import descriptor, lvm, span
from vcbproxy.vmfs.descriptor import FileSystem
from vcbproxy.vmfs.directory import Entry
from vcbproxy.vmfs.file import FileInfo, Found, VmfsFile
from vcbproxy.vmfs.inode import FileType, Inode
from vcbproxy.vmfs.mapping import RawMapping
from vcbproxy.vmfs.span import LogicalVolume
from vcbproxy.vmfs.tree import Tree
from vcbproxy.vmfs.view import View

_TRIES = 3
_T = TypeVar("_T")


class Volume:
    """A VMFS-3, -5 or -6 volume. The devices stay the caller's, who keeps them open as long as the volume is used."""

    def __init__(self, logical: LogicalVolume, fs: FileSystem) -> None:
        self.logical = logical
        self.fs = fs

    @classmethod
    def open(cls, devices: Sequence[Device]) -> Volume:
        """Open a volume from all of its devices, in any order: whole LUNs, partitions or images.

        Raises:
            LvmError: a device is missing, foreign, given twice or damaged, or holds no VMFS.
            VmfsError: the file system on it is unknown or damaged.
        """
        if not devices:
            raise LvmError(device="volume", reason="no devices were given")
        members = [lvm.find(device) for device in devices]
        found = [member for member in members if member is not None]
        if len(found) == len(devices):
            return cls._of(span.assemble(found))
        if len(devices) == 1 and descriptor.present(devices[0]):
            logical = span.whole(devices[0])
        else:
            stranger = devices[members.index(None)]
            raise LvmError(device=stranger.name, reason="no VMFS volume starts here, nor in one of its partitions")
        return cls._of(logical)

    @classmethod
    def open_named(cls, devices: Sequence[Device], uuid: str) -> Volume:
        """Open the volume of that UUID, in whichever partitions of the devices it lies; if in none, the first there is.

        Most LUNs have one VMFS; on the command line of a host more can be made, each a datastore.

        Raises:
            LvmError: as for ``open``.
            VmfsError: as for ``open``.
        """
        try:
            first = cls.open(devices)
        except (LvmError, VmfsError):
            if (other := cls._further(devices, uuid)) is None:
                raise
            return other
        return first if first.uuid == uuid else cls._further(devices, uuid) or first

    @classmethod
    def _further(cls, devices: Sequence[Device], uuid: str) -> Volume | None:
        """Look for it behind the first VMFS partition: a volume that each device has one part of.

        What else lies there may be damaged, and is not asked for.
        """
        parts: dict[str, list[lvm.Member]] = {}
        for device in devices:
            with contextlib.suppress(LvmError):
                for member in lvm.members(device):
                    parts.setdefault(member.volume_uuid, []).append(member)
        for members in parts.values():
            if len(members) == len({id(member.device) for member in members}) == len(devices):
                with contextlib.suppress(LvmError, VmfsError):
                    volume = cls._of(span.assemble(members))
                    if volume.uuid == uuid:
                        return volume
        return None

    @classmethod
    def _of(cls, logical: LogicalVolume) -> Volume:
        fs = descriptor.load(logical)
        if logical.members and fs.lv_uuid != logical.members[0].volume_uuid:
            outer = logical.members[0].volume_uuid
            reason = f"the file system belongs to logical volume {fs.lv_uuid}, its devices to {outer}"
            raise VmfsError(volume=fs.name, file="file system descriptor", reason=reason, offset=0x200000)
        return cls(logical, fs)

    @property
    def label(self) -> str:
        """The datastore's name when the volume was last renamed."""
        return self.fs.label

    @property
    def uuid(self) -> str:
        """The file system's UUID: the one in ``/vmfs/volumes/<uuid>``."""
        return self.fs.uuid

    @property
    def lvm_uuid(self) -> str:
        """The logical volume's UUID, which every device of it carries."""
        return self.fs.lv_uuid

    @property
    def major(self) -> int:
        """3, 5 or 6."""
        return self.fs.major

    @property
    def version(self) -> str:
        """As VMware prints it: ``6.82``."""
        return self.fs.version

    @property
    def block_size_bytes(self) -> int:
        """The size of a (small) file block."""
        return self.fs.block_size_bytes

    @property
    def size_bytes(self) -> int:
        """All devices together."""
        return self.logical.size_bytes

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices in the order of the volume; runs refer to them by index."""
        return self.logical.devices

    def tree(self) -> Tree:
        """The volume's names as of now, for looking at many files at one moment."""
        return Tree(self.logical, self.fs, View(self.logical, self.fs))

    def open_file(self, path: str) -> VmfsFile:
        """Open a file (not a directory) and map it; links are followed.

        Raises:
            PathNotFound: there is none.
            Unreadable: a raw device mapping, or a link off the volume.
            VmfsError: a self-check failed.
        """
        found = self._find(path)
        if found[0].is_directory:
            raise VmfsError(volume=self.fs.name, file=path, reason="is a directory", offset=found[0].offset)
        return VmfsFile(found[0].name, self.fs.name, self.devices, found, lambda: self._find_again(path))

    def open_mapping(self, path: str) -> RawMapping:
        """Open a raw device mapping: which LUN the disk's bytes lie on.

        Raises:
            PathNotFound: there is none.
            VmfsError: it is another kind of file, or damaged.
        """

        def look(tree: Tree) -> Inode:
            return tree.find(path)

        inode = self._tried(look)
        if inode.type is not FileType.RDM:
            reason = f"is no raw device mapping but a {inode.type.name.lower()}"
            raise VmfsError(volume=self.fs.name, file=inode.name, reason=reason, offset=inode.offset)
        return RawMapping(self.fs.name, inode, lambda: self._tried(look))

    def _find(self, path: str) -> Found:
        """Look up and map, afresh."""

        def look(tree: Tree) -> Found:
            inode = tree.find(path)
            return inode, self.logical.place(tree.view.map_of(inode))

        return self._tried(look)

    def _find_again(self, path: str) -> Found:
        """As ``_find``, on devices that are still what they were."""
        self.logical.recheck()
        return self._find(path)

    def _tried(self, look: Callable[[Tree], _T]) -> _T:
        """A host may be in the middle of a change: what fails a check is looked at again, from the start."""
        for _ in range(_TRIES - 1):
            try:
                return look(self.tree())
            except (PathNotFound, Unreadable):
                raise
            except VmfsError:
                continue
        return look(self.tree())

    def entries(self, path: str) -> Iterator[Entry]:
        """The entries of a directory, without ``.`` and ``..``.

        Raises:
            PathNotFound: there is none.
            VmfsError: not a directory, or damaged.
        """

        def look(tree: Tree) -> list[Entry]:
            return [entry for entry in tree.entries(tree.find(path)) if entry.name not in (".", "..")]

        return iter(self._tried(look))

    def stat(self, path: str, follow: bool = True) -> FileInfo:
        """What the file descriptor at a path says.

        Raises:
            PathNotFound: there is none.
            VmfsError: damaged.
        """
        inode = self._tried(lambda tree: tree.find(path, follow))
        return FileInfo.of(inode, inode.name)
