"""A repository: opened with a password, its blobs found and read, its sessions and locks handed out.

Everything read is checked on the way: mac, length and digest of every blob; digest and mac of every file. A damaged
copy of a blob is passed over when another pack holds a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import Error, IntegrityError, TargetError
from vcbproxy.repository import (
    cachedir,
    crypto,
    identity,
    immutability,
    lock,
)
from vcbproxy.repository import snapshot as snapshots_
from vcbproxy.repository.backend.base import (
    CONFIG,
    PARAMETERS,
    Backend,
    FileKind,
    FileMissing,
    FileName,
    exists,
)
from vcbproxy.repository.blobs import Blobs
from vcbproxy.repository.commit import committed
from vcbproxy.repository.config import ChunkerSettings, RepositoryConfig
from vcbproxy.repository.files import Files, unlocked
from vcbproxy.repository.ids import BlobKind, Buffer, digest
from vcbproxy.repository.index import Index, Location
from vcbproxy.repository.indexing import Indexing
from vcbproxy.repository.indexload import IndexLoader
from vcbproxy.repository.session import WriteOptions, WriteSession

Result = TypeVar("Result")


def _as_it_is(backend: Backend, _repository_id: str) -> Backend:
    return backend


class Repository:
    """An open repository; safe to share between threads."""

    def __init__(
        self,
        backend: Backend,
        key: crypto.Key,
        settings: RepositoryConfig,
        chunker: ChunkerSettings,
        *,
        clock: Clock,
        me: identity.Identity,
        cache_root: Path | None = None,
    ) -> None:
        """Use ``Repository.open`` or ``creation.create``."""
        self.backend = backend
        self.key = key
        self.config = settings
        self.chunker = chunker
        self.clock = clock
        self.identity = me
        self.files = Files(backend, key)
        self.blobs = Blobs(self.files)
        loader = IndexLoader(self.files, settings.repository_id, clock, cache_root)
        self.indexing = Indexing(self.files, loader, clock, me)
        self.immutability = self._immutability()

    # ------------------------------------------------------------------ opening

    @classmethod
    def open(
        cls, backend: Backend, password: str, *, clock: Clock | None = None, me: identity.Identity | None = None
    ) -> Self:
        """Open a repository of ours or of stock restic's. The index is not loaded yet.

        Raises:
            RepositoryMissing: no config there.
            CredentialsError: wrong password.
            IntegrityError: config or keys are damaged.
        """
        return cls.of(unlocked(backend, password), clock=clock, me=me)

    @classmethod
    def of(
        cls,
        files: Files,
        *,
        clock: Clock | None = None,
        me: identity.Identity | None = None,
        cached: Callable[[Backend, str], Backend] = _as_it_is,
        cache_root: Path | None = None,
    ) -> Self:
        """The repository of files that are unlocked already.

        Args:
            files: whose config is read.
            clock: the time; the system's.
            me: who takes locks; this process.
            cached: gives the backend to go on with, once the repository's id is known.
            cache_root: below it, a copy of a large index is kept for the next time (``cachedir``).

        Raises:
            IntegrityError: its config is damaged.
        """
        backend = files.backend
        what = f"{backend.location}: config"
        settings = RepositoryConfig.decode(files.load_sealed(CONFIG), what)
        chunker = ChunkerSettings()
        if exists(backend, PARAMETERS):
            chunker = ChunkerSettings.decode(files.load_sealed(PARAMETERS), f"{backend.location}: {PARAMETERS.path}")
        backend = cached(backend, settings.repository_id)
        clock, me = clock or SystemClock(), me or identity.mine()
        return cls(backend, files.key, settings, chunker, clock=clock, me=me, cache_root=cache_root)

    @property
    def index(self) -> Index:
        """What is known of the index; load it before: ``indexing.load``."""
        return self.indexing.index

    @property
    def location(self) -> str:
        """What messages call it."""
        return self.backend.location

    def _immutability(self) -> immutability.Immutability | None:
        """What renews locks, where files are locked against removal."""
        retaining = self.backend.traits.retaining
        if retaining is None:
            return None
        directory = cachedir.opened(cachedir.default_root(), self.config.repository_id, "kept")
        place = digest(self.location.encode()).hex()[:16]  # a copy elsewhere has the same id, and locks of its own
        table = directory / f"kept-{place}.sqlite" if directory is not None else None
        return immutability.Immutability(self.backend, retaining, self.clock, table)

    # ------------------------------------------------------------------ locks and sessions

    def locked(self, *, exclusive: bool = False) -> AbstractContextManager[lock.HeldLock]:
        """Hold a lock for the length of a ``with``.

        Raises:
            Busy: a conflicting lock is held.
        """
        return lock.held(self.files, exclusive=exclusive, clock=self.clock, me=self.identity)

    @contextmanager
    def writing(self, held: lock.HeldLock, options: WriteOptions | None = None) -> Iterator[WriteSession]:
        """A session to store blobs in, for the length of a ``with``; load the index before."""
        options = options or WriteOptions()
        with (
            self.indexing.writing(held),
            WriteSession(self.files, self.indexing, self.immutability, held.check, options) as session,
        ):
            yield session

    # ------------------------------------------------------------------ blobs

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> Buffer:
        """A blob's plaintext, checked by mac, length and digest; from another copy when one cannot be read.

        Raises:
            IntegrityError: no whole copy; names blob, pack and offset of each.
            TargetError: its only copy could not be read.
        """
        return self._from_any_copy(kind, blob_id, self.blobs.load)

    def read_blob(self, kind: BlobKind, blob_id: bytes, take: Callable[[Iterator[Buffer]], Result]) -> Result:
        """Hand a blob's plaintext to ``take`` by bites, so that a long one is never held; give what it gives.

        What it takes is vouched for only once this returns. It is called again for another copy when one is damaged.

        Raises:
            IntegrityError: as ``load_blob``; or raised by ``take``.
            TargetError: as ``load_blob``.
        """
        return self._from_any_copy(kind, blob_id, lambda location: self.blobs.read(location, take))

    def _from_any_copy(self, kind: BlobKind, blob_id: bytes, load: Callable[[Location], Result]) -> Result:
        damage: list[Error] = []
        for location in self.index.lookup(kind, blob_id):
            try:
                return load(location)
            except (IntegrityError, TargetError) as error:
                damage.append(error)
        if len(damage) == 1:
            raise damage[0]
        if damage:
            raise IntegrityError("; ".join(map(str, damage)))
        what = f"{self.location}: {kind.value} blob {blob_id.hex()}"
        raise IntegrityError(f"{what} is in no index; run `vcbproxy repo check`")

    def lengths(self, ids: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The plaintext lengths of many data blobs.

        Raises:
            IntegrityError: one is not stored.
        """
        return self.index.lengths(ids)

    # ------------------------------------------------------------------ snapshots

    def snapshots(self) -> list[snapshots_.Snapshot]:
        """All snapshot records, oldest first.

        One that goes while they are read is looked for under a new name: changing a tag replaces the record.

        Raises:
            IntegrityError: one is damaged.
            TargetError: one is listed and cannot be read.
        """
        loaded: dict[str, snapshots_.Snapshot] = {}
        gone: set[str] = set()
        while True:
            listed = {stored.name.stem for stored in self.backend.list(FileKind.SNAPSHOT)}
            if still := gone & listed:
                raise FileMissing(location=self.location, path=FileName(FileKind.SNAPSHOT, min(still)).path)
            missing = self._load_snapshots(sorted(listed - loaded.keys()), loaded)
            if not missing:
                break
            gone |= missing
        found = (loaded[snapshot_id] for snapshot_id in listed)
        return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.snapshot_id))

    def _load_snapshots(self, snapshot_ids: list[str], loaded: dict[str, snapshots_.Snapshot]) -> set[str]:
        """Load records; those that are not there any more are returned."""

        def load(snapshot_id: str) -> snapshots_.Snapshot | None:
            try:
                return self.load_snapshot(snapshot_id)
            except FileMissing:
                return None

        if (at_once := self.backend.traits.connections) <= _CONNECTIONS_LOCAL:
            found = list(map(load, snapshot_ids))
        else:
            with ThreadPoolExecutor(at_once, "snapshot-loader") as pool:
                found = list(pool.map(load, snapshot_ids))
        loaded.update((snapshot.snapshot_id, snapshot) for snapshot in found if snapshot is not None)
        return {one for one, snapshot in zip(snapshot_ids, found, strict=True) if snapshot is None}

    def load_snapshot(self, snapshot_id: str) -> snapshots_.Snapshot:
        """One snapshot record.

        Raises:
            IntegrityError: it is damaged.
        """
        name = FileName(FileKind.SNAPSHOT, snapshot_id)
        return snapshots_.decode(snapshot_id, self.files.load_sealed(name), f"{self.location}: {name.path}")

    def save_snapshot(
        self,
        snapshot: snapshots_.Snapshot,
        summary: snapshots_.Summary | None,
        held: lock.HeldLock | None = None,
    ) -> str:
        """Store a snapshot record: the commit point of a restore point. All it needs must be durable and indexed.

        Args:
            snapshot: of it.
            summary: what it cost.
            held: the lock that must be held all the time; without one nobody else may use the repository.

        Raises:
            TargetError: it could not be stored, or our lock was removed; then there is no restore point.
        """
        plain = snapshots_.encode(snapshot, summary)

        def save() -> FileName:
            return self.files.save_sealed(FileKind.SNAPSHOT, plain)

        return (committed(self.backend, held, save) if held is not None else save()).stem


# 10,000 records on a local disk take 0.7 s one after the other and 1.3 s by two threads: nothing waits but for the
# interpreter. Threads pay only where each record is a trip to a server.
_CONNECTIONS_LOCAL = 2
