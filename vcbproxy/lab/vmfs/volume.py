"""A VMFS volume on image files, made and kept changing like a host would.

Comes in: calls by path, from several threads; paths are absolute inside the volume, ``/vm1/vm1-flat.vmdk``. Goes out:
small writes on the images in a host's order (see ``files``). ``read`` tells the truth that a reader of the images must
find. Lock order: the tree's, a node's, the store's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.device import Device, FileDevice
from vcbproxy.errors import PathNotFound, TargetError, UsageError
from vcbproxy.lab.vmfs import identity, layouts, record
from vcbproxy.lab.vmfs.copyin import copy_in
from vcbproxy.lab.vmfs.directory import NAME_MAX_BYTES, Directory, Entry
from vcbproxy.lab.vmfs.files import Files
from vcbproxy.lab.vmfs.fill import Preallocation
from vcbproxy.lab.vmfs.make import ROOT, make, new_directory
from vcbproxy.lab.vmfs.node import FileKind, Node, Zla
from vcbproxy.lab.vmfs.spec import Allocation, Layout, VolumeSpec
from vcbproxy.lab.vmfs.store import Store

Ranges = list[tuple[int, int]]
"""(offset, length) in order."""


class LabVolume:
    """A volume that is being written. A context manager; ``close`` closes the image files."""

    def __init__(self, paths: Sequence[Path], store: Store, directories: dict[int, Directory]) -> None:
        self.paths = tuple(paths)
        self.store = store
        """The record, for those who damage it on purpose (``corrupt``) and for measurements."""
        self._files = Files(store)
        self._directories = directories
        self._tree = threading.RLock()

    @classmethod
    def create(cls, paths: Sequence[Path], spec: VolumeSpec, clock: Clock | None = None) -> Self:
        """Make the image files (sparse; they must not exist) and an empty volume on them.

        Raises:
            UsageError: the spec does not fit together.
        """
        store, directories = make(paths, spec, clock or SystemClock())
        return cls(paths, store, directories)

    @classmethod
    def load(cls, state_path: Path, clock: Clock | None = None) -> Self:
        """Go on with a volume whose record was saved, perhaps by another process that has closed it."""
        paths, store, directories = record.load(state_path, clock or SystemClock())
        return cls(paths, store, directories)

    def save(self, state_path: Path) -> None:
        """Write the record, atomically. It holds absolute paths of the images."""
        with self._tree:
            record.save(state_path, self.paths, self.store, self._directories)

    def close(self) -> None:
        """Close the image files."""
        self.store.images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def uuid(self) -> str:
        """The UUID under /vmfs/volumes."""
        return str(self.store.who.volume)

    @property
    def lvm_uuid(self) -> str:
        """The logical volume's UUID."""
        return str(self.store.who.lvm)

    @property
    def label(self) -> str:
        """The datastore's name."""
        return self.store.spec.label

    @property
    def wwns(self) -> tuple[str, ...]:
        """Bare NAA hex of each device."""
        return self.store.who.wwns

    @property
    def identity(self) -> identity.Identity:
        """All UUIDs."""
        return self.store.who

    @property
    def free_bytes(self) -> int:
        """What is left in whole file blocks."""
        return self.store.space.free * self.store.geometry.block_bytes

    # names

    def mkdir(self, path: str) -> None:
        """Make a directory; the one above it must exist."""
        with self._tree:
            parent, name = self._parent_of_new(path)
            node = self.store.new_node(FileKind.DIRECTORY, Zla.SUB_BLOCKS, parent.address, 0o755)
            if self.store.geometry.wide:
                node.sub_blocks_max = self.store.geometry.pointers_direct
            node.links = 2
            directory = new_directory(self.store, node, parent)
            self._directories[node.address] = directory
            self._files.patch(node, directory.initial())
            parent.links += 1
            self._link(parent, name, node)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        with self._tree:
            parent, name = self._parent_of_new(path)
            node = self.store.new_node(FileKind.SYMLINK, layouts.smallest(self.store.geometry), parent.address, 0o777)
            self._files.write(node, 0, target.encode())
            self._link(parent, name, node)

    def rdm(self, path: str, wwn: str, size_bytes: int) -> None:
        """Make a raw device mapping: a name for another LUN, without data of its own."""
        with self._tree:
            parent, name = self._parent_of_new(path)
            node = self.store.new_node(FileKind.RDM, Zla.RDM, parent.address, 0o600)
            node.small = identity.mapped_id(wwn, b"Virtua")
            node.length = size_bytes
            self.store.write_descriptor(node, data=True)
            self._link(parent, name, node)

    def create_file(
        self,
        path: str,
        size_bytes: int = 0,
        data: bytes = b"",
        *,
        layout: Layout = Layout.AUTO,
        allocation: Allocation = Allocation.THIN,
        use_lfb: bool = False,
        materialise: bool = True,
    ) -> None:
        """Make a file of ``size_bytes`` (at least the data's) that starts with ``data``.

        ``use_lfb`` takes large file blocks (VMFS-6) as far as there are whole free ones. Without ``materialise`` the
        data blocks are not touched: a huge fully allocated map costs nothing then.

        Raises:
            UsageError: the path is taken, or version, layout and size do not fit.
            TargetError: the volume is full; the file is gone again.
        """
        size_bytes = max(size_bytes, len(data))
        with self._tree:
            parent, name = self._parent_of_new(path)
            zla = layouts.choose(self.store.geometry, size_bytes, layout, allocation)
            node = self.store.new_node(FileKind.FILE, zla, parent.address, 0o600)
            node.sub_blocks_max = max(1, -(-size_bytes // node.block_bytes)) if zla is Zla.SUB_BLOCKS else 1
            if size_bytes > self._files.limit(node):
                self.store.release_descriptor(node)
                raise UsageError(f"{path}: {size_bytes} bytes do not fit layout {layout.value}")
            node.length = size_bytes
            if zla is Zla.RESIDENT:
                node.small = bytes(size_bytes)
            self.store.write_descriptor(node, data=True)
            self._link(parent, name, node)
        try:
            if allocation is not Allocation.THIN and zla not in (Zla.RESIDENT, Zla.SUB_BLOCKS):
                self._files.preallocate(node, Preallocation(allocation, use_lfb, materialise))
            self._files.write(node, 0, data)
        except TargetError:
            self.delete(path)
            raise

    def rename(self, old: str, new: str) -> None:
        """Move a file or directory; a file at the new name is replaced."""
        with self._tree:
            node = self._find(old)
            if self.exists(new):
                self.delete(new)
            parent, name = self._parent_of_new(new)
            before = self._find(old.rpartition("/")[0] or "/")
            self._link(parent, name, node)
            self._unlink(before, old.rpartition("/")[2])
            if parent is not before:
                node.parent = parent.address
                if node.kind is FileKind.DIRECTORY:
                    above = Entry("..", parent.kind, parent.address, parent.generation)
                    self._files.patch(node, self._directories[node.address].add(above))
                    before.links -= 1
                    parent.links += 1
                    self.store.write_descriptor(before, data=False)
                    self.store.write_descriptor(parent, data=False)
                self.store.write_descriptor(node, data=False)

    def delete(self, path: str) -> None:
        """Remove a file, link or empty directory; its blocks are freed, their bytes stay on disk."""
        with self._tree:
            node = self._find(path)
            parent = self._find(path.rpartition("/")[0] or "/")
            if node.kind is FileKind.DIRECTORY:
                if node.address == ROOT or self._directories[node.address].entries:
                    raise UsageError(f"{path}: not an empty directory")
                del self._directories[node.address]
                parent.links -= 1
            self._unlink(parent, path.rpartition("/")[2])
            self._files.release(node)

    def exists(self, path: str) -> bool:
        """Whether there is something at the path."""
        try:
            self._find(path)
        except PathNotFound:
            return False
        return True

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted, without ``.`` and ``..``."""
        with self._tree:
            return sorted(self._directory(self._find(path), path).entries)

    # content

    def write(self, path: str, offset: int, data: bytes | memoryview) -> None:
        """Write as a host does: data, then bitmaps, pointer blocks, and the descriptor last."""
        self._files.write(self._file(path), offset, data)

    def write_from(self, path: str, source: Device | Path, *, keep_holes: bool = True) -> None:
        """Copy a whole device or local file in from offset 0.

        With ``keep_holes`` blocks of zeroes that read as zeroes already are left alone: thin stays thin.
        """
        if isinstance(source, Path):
            with FileDevice(source) as device:
                self.write_from(path, device, keep_holes=keep_holes)
            return
        copy_in(self._files, self._file(path), source, keep_holes=keep_holes)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """The truth, from the record and the image; ends at the file's end."""
        return self._files.read(self._find(path), offset, length)

    def size(self, path: str) -> int:
        """The file's length."""
        return self._find(path).length

    def truncate(self, path: str, size_bytes: int) -> None:
        """Shrink, or grow with a hole."""
        self._files.truncate(self._file(path), size_bytes)

    def data_ranges(self, path: str) -> Ranges:
        """(offset, length) of what is allocated and written, in whole blocks, clipped to the file's length."""
        return self._files.written(self._find(path))

    def lock(self, path: str, mode: int, host: str = "") -> None:
        """Set the lock as a host does: 0 free, 1 exclusive (a running VM's disk), 2 read-only, 3 shared by writers.

        The token rises; the file itself, its time of modification too, stays as it is.
        """
        node = self._find(path)
        with node.guard:
            node.lock_mode = mode
            node.lock_owner = hashlib.sha256(host.encode()).digest()[:16] if host else b""
            self.store.write_lock(node)

    def node(self, path: str) -> Node:
        """The record of one file, for those who damage it on purpose."""
        return self._find(path)

    # within

    def _find(self, path: str) -> Node:
        with self._tree:
            node = self.store.nodes[ROOT]
            for name in filter(None, path.split("/")):
                entry = self._directory(node, path).entries.get(name)
                if entry is None:
                    raise PathNotFound(volume=self.store.name, file=path, reason="no such name", offset=0)
                node = self.store.nodes[entry.address]
            return node

    def _file(self, path: str) -> Node:
        node = self._find(path)
        if node.kind is not FileKind.FILE:
            raise UsageError(f"{path}: not a file")
        return node

    def _directory(self, node: Node, path: str) -> Directory:
        found = self._directories.get(node.address)
        if found is None:
            raise PathNotFound(volume=self.store.name, file=path, reason="not a directory", offset=0)
        return found

    def _parent_of_new(self, path: str) -> tuple[Node, str]:
        above, _, name = path.rpartition("/")
        if not path.startswith("/") or not name or name in (".", "..") or len(name.encode()) > NAME_MAX_BYTES:
            raise UsageError(f"not a path for a new file: {path!r}; write it like /vm1/vm1.vmx")
        parent = self._find(above or "/")
        if name in self._directory(parent, above).entries:
            raise UsageError(f"{path}: there already")
        return parent, name

    def _link(self, parent: Node, name: str, node: Node) -> None:
        entry = Entry(name, node.kind, node.address, node.generation)
        self._files.patch(parent, self._directories[parent.address].add(entry))

    def _unlink(self, parent: Node, name: str) -> None:
        directory = self._directories[parent.address]
        self._files.patch(parent, directory.remove(name))
        if directory.length < parent.length:
            self._files.truncate(parent, directory.length)
