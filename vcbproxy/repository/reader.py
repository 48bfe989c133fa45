"""Reading one restore point: its manifest, its files, its disks at any position."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.device import read
from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.repository import browse, manifest
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind, Buffer
from vcbproxy.repository.manifest import Contents, DiskEntry
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.stored import StoredFile
from vcbproxy.repository.tree import Node
from vcbproxy.repository.vouched import Vouched, looked_up


class PointReader:
    """A restore point being read; holds a shared lock (unless opened without) until it is closed."""

    def __init__(self, repository: Repository, summary: PointSummary, stack: ExitStack) -> None:
        """Read the manifest.

        Raises:
            IntegrityError: the restore point's trees or its manifest are damaged.
        """
        self._repository = repository
        self._stack = stack
        self.summary = summary
        self.contents: Contents = self._read_contents()

    @classmethod
    def unlocked(cls, repository: Repository, summary: PointSummary) -> Self:
        """A reader for who holds a lock already, and has loaded the index; needs no closing.

        Raises:
            IntegrityError: the restore point's trees or its manifest are damaged.
        """
        return cls(repository, summary, ExitStack())

    @property
    def manifest(self) -> dict[str, Any]:
        """What the backup recorded, as it was given to ``commit``."""
        return self.contents.manifest

    @property
    def disks(self) -> tuple[DiskEntry, ...]:
        """Its disks, in the order in which they were backed up."""
        return self.contents.disks

    def file(self, name: str) -> bytes:
        """A small file, by its true name.

        Raises:
            UsageError: no such file.
            IntegrityError: it is damaged.
        """
        entry = next((file for file in self.contents.files if file.key == name), None)
        if entry is None:
            names = ", ".join(file.key for file in self.contents.files) or "none"
            raise UsageError(f"{self.summary.name} has no file {name!r}; there are: {names}")
        data = self._read_file(entry.name)
        if len(data) != entry.size_bytes:
            raise IntegrityError(
                f"{self.summary.name}: {name} has {len(data)} bytes, the manifest says {entry.size_bytes}"
            )
        return data

    def vm_json(self) -> bytes:
        """``vm.json`` as it is stored, which is as any restic restores it.

        Raises:
            IntegrityError: it is damaged.
        """
        return self._read_file(manifest.FILE_NAME, manifest.BYTES_MAX)

    def disk(self, key: str) -> StoredFile:
        """A disk as a device: read at any position, chunks checked and cached.

        Raises:
            UsageError: no such disk.
            IntegrityError: its list is damaged, or a chunk is in no index.
        """
        ids, lengths = self.disk_content(key)
        return StoredFile(self._repository, f"{self.summary.name}:{key}", ids, lengths)

    def disk_content(self, key: str) -> tuple[Ids, NDArray[np.uint32]]:
        """A disk's chunks: ids uint8 (n, 32) and their lengths uint32 (n).

        Raises:
            UsageError: no such disk.
            IntegrityError: its list is damaged, or a chunk is in no index.
        """
        entry = self._entry(key)
        ids, _ = self._disk_list(entry)
        return ids, self._tiling(entry, self._repository.lengths(ids))

    def base_list(self, key: str) -> tuple[Ids, NDArray[np.uint32]]:
        """As ``disk_content``, but the lengths are those of its ``.lengths`` file: a base for an incremental.

        Whether its chunks are still stored is not asked of the index, which is to be asked of the new list anyway.

        Raises:
            UsageError: no such disk.
            IntegrityError: its list, or that of its lengths, is damaged.
        """
        entry = self._entry(key)
        ids, sidecar = self._disk_list(entry)
        if sidecar is None:  # somebody's `restic rewrite --exclude` took it away
            return ids, self._tiling(entry, self._repository.lengths(ids))
        if sidecar.content is None or sidecar.size_bytes != 4 * len(ids):
            raise IntegrityError(f"{self.summary.name}: disk {key}: its .lengths file is not that of its chunks")
        stored = browse.open_file(self._repository, sidecar, f"{self.summary.name}: {sidecar.name}")
        lengths = np.frombuffer(read(stored, 0, stored.size_bytes), "<u4")
        return ids, self._tiling(entry, lengths.astype(np.uint32, copy=False))

    def vouched(self, key: str) -> Vouched:
        """A disk's list looked up: what an incremental may build on, and which chunks are lost.

        Raises:
            UsageError: no such disk.
            IntegrityError: its list, or that of its lengths, is damaged.
        """
        return looked_up(self._repository.index, *self.base_list(key))

    def _disk_list(self, entry: DiskEntry) -> tuple[Ids, Node | None]:
        """The chunks' ids, and the file of their lengths if it is there; both lie in one tree, which is long."""
        nodes = {node.name: node for node in browse.children(self._repository, self._node(entry.name))}
        raw = nodes.get(f"{entry.name}.raw")
        if raw is None or raw.content is None or (raw.size_bytes, len(raw.content)) != (entry.size_bytes, entry.chunks):
            what = f"{self.summary.name}: disk {entry.key}"
            raise IntegrityError(f"{what}: the tree's file and the manifest do not agree on it")
        return raw.content, nodes.get(f"{entry.name}.lengths")

    def _tiling(self, entry: DiskEntry, lengths: NDArray[np.uint32]) -> NDArray[np.uint32]:
        total = int(lengths.sum(dtype=np.uint64))
        if total != entry.size_bytes:
            what = f"{self.summary.name}: disk {entry.key}"
            raise IntegrityError(f"{what}: its chunks come to {total} bytes, it has {entry.size_bytes}")
        return lengths

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> Buffer:
        """A chunk, checked; what the restore's workers call."""
        return self._repository.load_blob(kind, blob_id)

    def verify(self) -> None:
        """Hold manifest, trees, sidecars and index against each other; read every small file, but no disk's chunks.

        Raises:
            IntegrityError: anything does not fit.
        """
        for file in self.contents.files:
            self.file(file.key)
        for disk in self.contents.disks:
            _, lengths = self.disk_content(disk.key)
            sidecar = self._read_file(f"{disk.name}/{disk.name}.lengths")
            if sidecar != lengths.astype("<u4").tobytes():
                raise IntegrityError(f"{self.summary.name}: disk {disk.key}: its .lengths file differs from the index")

    def close(self) -> None:
        """Release the lock."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _read_contents(self) -> Contents:
        what = f"{self.summary.name}: {manifest.FILE_NAME}"
        contents = manifest.decode(self.vm_json(), what)
        if contents.instance_uuid != self.summary.instance_uuid:
            raise IntegrityError(f"{what} is of another VM: {contents.instance_uuid}")
        return contents

    def _read_file(self, path: str, size_max: int = 1 << 30) -> bytes:
        node = self._node(path)
        what = f"{self.summary.name}: {path}"
        if node.content is None or node.size_bytes > size_max:
            raise IntegrityError(f"{what}: not a file, or {node.size_bytes} bytes, which are not sane")
        stored = browse.open_file(self._repository, node, what)
        return read(stored, 0, stored.size_bytes)

    def _node(self, path: str) -> Node:
        """A node that the manifest says is there; `restic rewrite --exclude` may have taken it out.

        Raises:
            IntegrityError: it is not.
        """
        try:
            return browse.find(self._repository, self.summary.tree, f"{self.summary.path}/{path}")
        except UsageError as error:
            raise IntegrityError(f"{self.summary.name}: {error}") from error

    def _entry(self, key: str) -> DiskEntry:
        entry = self.contents.disk(key)
        if entry is None:
            keys = ", ".join(disk.key for disk in self.contents.disks) or "none"
            raise UsageError(f"{self.summary.name} has no disk {key!r}; there are: {keys}")
        return entry
