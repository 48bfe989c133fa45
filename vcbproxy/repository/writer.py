"""Writing one restore point, from its lock to its snapshot record.

    lock ─▶ index ─▶ chunks ─▶ packs durable ─▶ index ─▶ trees ─▶ packs durable ─▶ index ─▶ snapshot record ─▶ unlock
                                                                                            the commit point

Until the record is durable there is no restore point: a crash leaves packs and index files that the next backup reuses
and the next prune removes. Before it is written, every chunk of every disk is looked up in the index once more. The
trees themselves are `treewriter`'s.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import Error, IntegrityError, UsageError
from vcbproxy.repository import manifest as manifests
from vcbproxy.repository import points, records, snapshot, times
from vcbproxy.repository.chunkproof import ChunkProof
from vcbproxy.repository.diskwriter import DiskWriter
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind, Buffer
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.manifest import DiskEntry, FileEntry
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions, WriteSession
from vcbproxy.repository.treewriter import TreeWriter


def _program_version() -> str:
    try:
        return f"vcbproxy {metadata.version('vcbproxy')}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return "vcbproxy"


@dataclass(frozen=True, slots=True)
class PointInfo:
    """Which restore point is to be written.

    Attributes:
        vm_name: as the manager has it.
        instance_uuid: of the VM; stays when it is renamed.
        time: of the VM snapshot; kept to the second.
        policy: for which policy, if any.
        tags: further ones.
    """

    vm_name: str
    instance_uuid: str
    time: datetime
    policy: str = ""
    tags: tuple[str, ...] = ()


class PointWriter:
    """A restore point being written. Use it in a ``with``: leaving without ``commit`` aborts."""

    def __init__(
        self, repository: Repository, info: PointInfo, options: WriteOptions, held: HeldLock | None = None
    ) -> None:
        """Take a shared lock, unless one is ``held`` for longer than this point, and load the index.

        Raises:
            Busy: someone holds the repository exclusively.
        """
        self._repository = repository
        self._info = info
        self._tags = points.tags_of(info.instance_uuid, info.policy, info.tags)
        self._began = repository.clock.now()
        self._mutex = threading.Lock()
        self._disks: list[DiskEntry] = []
        self._files: list[FileEntry] = []
        self._open_disks = 0
        self._data_blobs = 0
        self._packs: set[bytes] = set()
        self._packs_mutex = threading.Lock()
        self._committed = False
        with ExitStack() as stack:
            self._held: HeldLock = held or stack.enter_context(repository.locked())
            repository.indexing.load()
            repository.indexing.forget_lost_packs(self._held)
            self.session: WriteSession = stack.enter_context(repository.writing(self._held, options))
            self._proof = ChunkProof(repository, self.session)
            self._packer = self.session.packer()
            self._trees = TreeWriter(self._packer, info.vm_name, info.time.replace(microsecond=0))
            self._stack = stack.pop_all()

    @property
    def time(self) -> datetime:
        """The point's time, cut to the second."""
        return self._trees.time

    def taken_at(self, moment: datetime) -> None:
        """Set the point's time to that of the VM snapshot, which is made after the lock is held; before any disk."""
        self._trees.taken_at(moment.replace(microsecond=0))

    def disk(self, key: str, size_bytes: int) -> DiskWriter:
        """Begin a disk. Several may be written at once.

        Raises:
            UsageError: the name is taken.
        """
        name = self._trees.claim_name(key)
        with self._mutex:
            self._open_disks += 1
        entry = DiskEntry(key, name, size_bytes, 0)
        return DiskWriter(self.session, self._proof, entry, self._add_disk, self._drop_disk)

    def file(self, name: str, data: Buffer) -> None:
        """Keep a small file.

        Raises:
            UsageError: the name is taken.
            TargetError: it could not be stored.
        """
        safe = self._trees.claim_name(name)
        self._trees.add_file(safe, data)
        with self._mutex:
            self._files.append(FileEntry(name, safe, len(data)))

    def commit(self, manifest: Mapping[str, Any], *, partial: bool = False) -> points.PointSummary:
        """Make it a restore point.

        Args:
            manifest: what the backup records, as JSON; kept whole in ``vm.json``.
            partial: some disk is not in it; lists show that without opening it.

        Raises:
            TargetError: it could not be stored; there is no restore point then.
            UsageError: a disk was begun and not finished.
        """
        with self._mutex:
            if self._open_disks:
                raise UsageError(f"{self._open_disks} disks of {self._info.vm_name} were begun and not finished")
            root = self._trees.finish(manifests.encode(self._contents(manifest)))
            self._packer.finish()
            self.session.flush()
            if not self._repository.index.has(BlobKind.TREE, root):
                raise IntegrityError(f"the root tree {root.hex()} is not in the index after it was written")
            self._proof.hold_awaited()
            self._renew_locks()
            if method := manifest.get("method"):
                self._tags = (*self._tags, points.method_tag(str(method)))
            if partial:
                self._tags = (*self._tags, points.PARTIAL_TAG)
            summary = self._save_record(root)
            self._committed = True
        self._stack.close()
        return summary

    def suspect(self, earlier: points.PointSummary) -> None:
        """Mark an earlier restore point as not to be relied upon: what is written now has found that out.

        Raises:
            TargetError: it could not be stored.
        """
        with contextlib.suppress(UsageError):  # somebody removed it meanwhile
            records.mark(self._repository, self._held, earlier, points.SUSPECT_TAG)

    def abort(self) -> None:
        """Leave no restore point. What is durable already is listed, if it can be, so that a second try finds it."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = self._stack.pop_all()
        try:
            if not self._committed:
                self._salvage()
        finally:
            stack.__exit__(kind, error, trace)

    def _salvage(self) -> None:
        """List what is durable. It may fail as what failed before: that first error is the one to be seen, not this."""
        with contextlib.suppress(Error):
            self.session.close()
            self._held.check()
            self._repository.indexing.write()

    # ------------------------------------------------------------------ disks that were begun

    def _drop_disk(self) -> None:
        """A disk that was begun will not be finished."""
        with self._mutex:
            self._open_disks -= 1

    def _add_disk(self, entry: DiskEntry, ids: Ids, lengths: NDArray[np.uint32]) -> None:
        """Store a disk's directory."""
        self._trees.add_disk(entry.name, entry.size_bytes, ids, lengths)
        self._rely_on(BlobKind.DATA, ids)
        with self._mutex:
            self._disks.append(replace(entry, chunks=len(ids)))
            self._data_blobs += len(ids)
            self._open_disks -= 1

    # ------------------------------------------------------------------ at commit

    def _rely_on(self, kind: BlobKind, ids: Ids) -> None:
        """Note which packs the point needs, where they are locked against removal. New ones are locked long enough."""
        if self._repository.immutability is None:
            return
        packs = self._repository.index.packs_of(ids, kind)
        with self._packs_mutex:
            self._packs |= packs

    def _renew_locks(self) -> None:
        if self._repository.immutability is None:
            return
        for kind, ids in self._trees.stored:
            self._rely_on(kind, ids)
        self._repository.immutability.cover(self._packs)

    def _contents(self, manifest: Mapping[str, Any]) -> manifests.Contents:
        return manifests.Contents(
            self._info.vm_name,
            self._info.instance_uuid,
            times.canonical(self.time),
            self._repository.chunker,
            tuple(self._disks),
            tuple(self._files),
            dict(manifest),
        )

    def _save_record(self, root: bytes) -> points.PointSummary:
        stats = self.session.stats
        total = sum(disk.size_bytes for disk in self._disks) + sum(file.size_bytes for file in self._files)
        record = snapshot.Snapshot(
            snapshot_id="",
            time=self.time,
            tree=root,
            paths=(f"/{self._trees.directory}",),
            hostname=self._info.vm_name,
            username=self._repository.identity.username,
            tags=self._tags,
            program_version=_program_version(),
            total_bytes=total,
            added_bytes=stats.stored_bytes,
        )
        summary = snapshot.Summary(
            backup_start=self._began,
            backup_end=self._repository.clock.now(),
            files_new=2 * len(self._disks) + len(self._files) + 1,
            dirs_new=len(self._disks) + 2,
            data_blobs=self._data_blobs,
            tree_blobs=len(self._disks) + 2,
            data_added=stats.plain_bytes,
            data_added_packed=stats.stored_bytes,
            total_bytes_processed=total,
        )
        stored = self._repository.save_snapshot(record, summary, self._held)
        made = points.of_snapshot(replace(record, snapshot_id=stored))
        assert made is not None, "a record of ours that is none of ours"
        return made
