"""An open file: a device that knows where on the LUNs each of its bytes lies, and that can tell whether it changed.

In: an inode and its runs. Out: bytes, extents, runs. Promised: what it reads are the bytes of the file as mapped
when it was opened; whether that map still held at the end of a copy is what ``recheck`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vcbproxy.device import Device
from vcbproxy.errors import Changed, LvmError, Relocked, VmfsError
from vcbproxy.vmfs import runs
from vcbproxy.vmfs.inode import FileType, Inode, Layout, LockMode, Stamp

Found = tuple[Inode, runs.RunMap]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file descriptor says of its file. Times are seconds since 1970."""

    path: str
    type: FileType
    size_bytes: int
    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    ctime: int
    atime: int
    layout: Layout
    block_size_bytes: int
    blocks: int
    blocks_tbz: int
    address: int
    generation: int

    @classmethod
    def of(cls, inode: Inode, path: str) -> FileInfo:
        """The public part of an inode."""
        return cls(
            path=path,
            type=inode.type,
            size_bytes=inode.length,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            links=inode.links,
            mtime=inode.mtime,
            ctime=inode.ctime,
            atime=inode.atime,
            layout=inode.layout,
            block_size_bytes=inode.block_size_bytes,
            blocks=inode.blocks,
            blocks_tbz=inode.blocks_tbz,
            address=inode.address,
            generation=inode.generation,
        )


class VmfsFile(runs.Mapped):
    """A file of a volume, opened by ``Volume.open_file``; a ``MappedDevice``."""

    def __init__(
        self, path: str, volume_label: str, devices: Sequence[Device], found: Found, again: Callable[[], Found]
    ) -> None:
        inode, placed = found
        super().__init__(f"[{volume_label}] {path.lstrip('/')}", placed, devices)
        self.info = FileInfo.of(inode, path)
        self.stamp: Stamp = inode.stamp
        self._inode = inode
        self._again = again

    def recheck(self) -> None:
        """Read the file descriptor and all its pointers again, and what the volume's devices say that they are.

        Raises:
            Changed: someone wrote, moved or deleted the file since it was opened, or opened it for writing, or a device
                is another one now; nothing read of it may be kept.
            Relocked: all is as it was, but for the lock, and nobody holds it for writing.
        """
        try:
            inode, placed = self._again()
        except (LvmError, VmfsError) as error:
            raise Changed(file=self.name, reason=f"it can no longer be read: {error}") from error
        if inode.address != self.info.address:
            raise Changed(file=self.name, reason="another file bears its name now")
        for name in Stamp.__dataclass_fields__:
            before, after = getattr(self.stamp, name), getattr(inode.stamp, name)
            if before != after:
                raise Changed(file=self.name, reason=f"its {name} was {before} and is {after}")
        if inode.resident != self._inode.resident:
            raise Changed(file=self.name, reason="its bytes, which lie in its file descriptor, were rewritten")
        if not placed.same_as(self._runs):
            raise Changed(file=self.name, reason="its blocks moved")
        self._check_lock(inode)

    def _check_lock(self, inode: Inode) -> None:
        """A token that rose without a writer: the file was closed, or another host opened it for reading.

        Raises:
            Changed: it was opened for writing.
            Relocked: it was not.
        """
        before = self._inode
        if (inode.token, inode.lock_mode) == (before.token, before.lock_mode):
            return
        if inode.lock_mode not in (LockMode.FREE, LockMode.READ_ONLY):
            reason = f"its token was {before.token} and is {inode.token}, and it is open for writing"
            raise Changed(file=self.name, reason=reason)
        raise Relocked(file=self.name, token=inode.token)
