"""A repository: opened with a password, its blobs found and read, its sessions and locks handed out.

Everything read is checked on the way: mac, length and digest of every blob; digest and mac of every file. A damaged
copy of a blob is passed over when another pack holds a whole one.

The index is loaded by ``load_index``, and must be loaded *after* the lock is taken and the snapshots are listed: what
was read before may have been removed meanwhile.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
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
    config,
    crypto,
    identity,
    immutability,
    indexfile,
    keys,
    listing,
    lock,
    pending,
    suspects,
    times,
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
from vcbproxy.repository.ids import BlobKind, Buffer
from vcbproxy.repository.index import Index, Location
from vcbproxy.repository.indexload import IndexLoader
from vcbproxy.repository.session import WriteOptions, WriteSession
from vcbproxy.repository.vouched import Vouched

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
        """Use ``Repository.open`` or ``Repository.init``."""
        self.backend = backend
        self.key = key
        self.config = settings
        self.chunker = chunker
        self.clock = clock
        self.identity = me
        self.files = Files(backend, key)
        self.blobs = Blobs(self.files)
        self._loader = IndexLoader(self.files, settings.repository_id, clock, cache_root)
        self.index = self._loader.empty()
        self.immutability = self._immutability()
        self._pending = pending.PendingIndex(self._save_index, clock.monotonic)
        self._index_files: set[str] = set()
        self._looked: tuple[lock.HeldLock | None, Index] | None = None  # when lost packs were looked for last
        self._sessions = 0
        self._locks: list[lock.HeldLock] = []
        self._mutex_of_locks = threading.Lock()
        self._mutex = threading.Lock()

    # ------------------------------------------------------------------ making and opening

    @classmethod
    def init(
        cls,
        backend: Backend,
        password: str,
        *,
        chunker: ChunkerSettings | None = None,
        kdf: keys.Kdf | None = None,
        clock: Clock | None = None,
        me: identity.Identity | None = None,
    ) -> Self:
        """Make a new repository: the key first, the config last; nothing that is there is ever written over.

        Raises:
            TargetError: something is there already, or it cannot be written.
            CredentialsError: the password is empty.
        """
        clock, me = clock or SystemClock(), me or identity.mine()
        backend.create()
        if exists(backend, CONFIG):
            raise TargetError(f"{backend.location}: there is a repository already")
        for kind in (FileKind.KEY, FileKind.SNAPSHOT, FileKind.INDEX, FileKind.PACK):
            if next(iter(backend.list(kind)), None) is not None:
                raise TargetError(
                    f"{backend.location}: not empty: there are {kind.value} files, but no config; look first"
                )
        master = crypto.new_key()
        keys.add(backend, master, password, kdf or keys.Kdf(), me, times.precise(clock.now()))
        chunker = chunker or ChunkerSettings()
        files = Files(backend, master)
        files.save_sealed(FileKind.PARAMETERS, chunker.encode())
        settings = RepositoryConfig(secrets.token_hex(32), config.new_polynomial(secrets.randbits))
        files.save_sealed(FileKind.CONFIG, settings.encode())
        return cls(backend, master, settings, chunker, clock=clock, me=me)

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
    def location(self) -> str:
        """What messages call it."""
        return self.backend.location

    def _immutability(self) -> immutability.Immutability | None:
        """What renews locks, where files are locked against removal."""
        retaining = self.backend.traits.retaining
        if retaining is None:
            return None
        directory = cachedir.opened(cachedir.default_root(), self.config.repository_id, "kept")
        table = directory / "kept.sqlite" if directory is not None else None
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
        with self._mutex:
            self._sessions += 1
        with self._mutex_of_locks:
            self._locks.append(held)
        try:
            with WriteSession(self, held.check, options or WriteOptions()) as session:
                yield session
        finally:
            with self._mutex_of_locks:
                self._locks.remove(held)
            with self._mutex:
                self._sessions -= 1

    # ------------------------------------------------------------------ index

    def load_index(self) -> None:
        """Bring the index in memory up to date with the index files.

        While a session of ours runs, only what is new is added (its lock keeps anyone from removing). Otherwise, when a
        file is gone, packs were forgotten, or durable ones never listed, what is known is dropped and read anew.

        Raises:
            IntegrityError: an index file is damaged.
            TargetError: it could not be read.
        """
        with self._mutex:
            listed = {stored.name.stem: stored.size_bytes for stored in self.backend.list(FileKind.INDEX)}
            if not self._sessions and (
                self._pending.clear() or self.index.forgotten or self._index_files - listed.keys()
            ):
                self.index, self._index_files = self._loader.empty(), set()
            if (
                not (self._index_files or len(self.index))
                and self._loader.worth_caching(listed)
                and self._loader.load_cached(self.index, set(listed))
            ):
                self._index_files = set(listed)
            fresh = sorted(listed.keys() - self._index_files)
            for start in range(0, len(fresh), _INDEX_BATCH):
                stems = fresh[start : start + _INDEX_BATCH]
                self.index.add_files([packs for _, packs in self._loader.read(stems)])
                self._index_files.update(stems)

    def forget_lost_packs(self, held: lock.HeldLock | None = None) -> None:
        """Before writing: take out of the index in memory what lies in packs that are missing, damaged or cut short.

        A backup that built on them would not restore. So their blobs are stored anew if they turn up; older restore
        points have them back then, too. Packs of others that are not indexed yet cannot be in the index.

        Args:
            held: the caller's lock. Nobody removes packs while it is held, so this is done once for it and the index
                in memory: for 10 TB it takes three seconds of CPU, and a job run writes many restore points.

        Raises:
            TargetError: the packs cannot be listed.
        """
        if held is not None and self._looked == (held, self.index):
            return
        listed = self.backend.list(FileKind.PACK)
        lost = self.index.packs_unlike((bytes.fromhex(stored.name.stem), stored.size_bytes) for stored in listed)
        damaged = [suspect.pack_id for suspect in suspects.load(self.files)]
        self.index.forget([*lost, *self.index.known_packs(damaged)])
        self._looked = (held, self.index)

    def vouch(self, ids: NDArray[np.uint8], lengths: NDArray[np.uint32]) -> Vouched:
        """Look a base's list up: which chunks must not be relied on, since no index lists them or their packs are hurt.

        An incremental reads their ranges again, as if they had changed: the disk still has the very same bytes, most
        likely, and storing them anew heals the older restore points too; where it has others, those are right for the
        new one. Meant for whoever writes: lost packs are forgotten when a restore point is begun
        (``forget_lost_packs``). The index is asked in any case: ``restic repair index`` takes lost packs out of it, and
        every incremental would then end in an error. It costs 0.2 s of CPU for each million chunks, half a TiB.

        Args:
            ids: uint8 (n, 32).
            lengths: uint32 (n), what they are said to be.

        Raises:
            IntegrityError: one that is stored has another length.
        """
        index, forgotten = self.index, self.index.forgotten
        known, stored = index.find(ids, BlobKind.DATA)
        wrong = np.flatnonzero(known & (stored != lengths))
        if len(wrong):
            row = int(wrong[0])
            told = f"chunk {ids[row].tobytes().hex()} has {stored[row]} bytes, the base's list says {lengths[row]}"
            raise IntegrityError(f"{told}; back the disk up in full")
        return Vouched(ids, lengths, np.flatnonzero(~known).astype(np.int64), index, forgotten)

    def drop_index(self) -> None:
        """Forget all that is known of the index, and of packs that are not listed yet: for whoever removes packs."""
        with self._mutex:
            assert not self._sessions, "packs are removed in the midst of our own writing"
            self._pending.clear()
            self.index, self._index_files = self._loader.empty(), set()

    def load_index_tolerantly(self) -> list[IntegrityError]:
        """Load what can be loaded, from scratch; for a check. Returns what is damaged.

        Raises:
            TargetError: the index files cannot be listed or read.
        """
        damage = []
        with self._mutex:
            assert not self._sessions, "a check in the midst of our own writing"
            self._pending.clear()
            self.index, self._index_files = self._loader.empty(), set()
            for stored in sorted(self.backend.list(FileKind.INDEX), key=lambda stored: stored.name.stem):
                try:
                    self.index.add_files([packs for _, packs in self._loader.read([stored.name.stem])])
                    self._index_files.add(stored.name.stem)
                except IntegrityError as error:
                    damage.append(error)
        return damage

    def publish(self, pack: indexfile.PackBlobs) -> None:
        """Take a durable pack into the index, and see that it is listed in an index file soon."""
        if self.immutability is not None:
            self.immutability.stored(pack.pack_id)
        self.index.add(pack)
        self._pending.add(pack)

    def write_index(self) -> None:
        """List every durable pack in an index file.

        Raises:
            TargetError: an index file could not be stored.
        """
        self._pending.flush()

    def _save_index(self, packs: Sequence[indexfile.PackBlobs]) -> None:
        with self._mutex_of_locks:
            held = self._locks[-1] if self._locks else None  # whichever: any lock keeps everybody from pruning
        if held is None:
            name = self.files.save_sealed(FileKind.INDEX, indexfile.encode(packs))
        else:
            name = listing.listed(self.files, held, packs, self.clock, self.identity)
        self._index_files.add(name.stem)

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


_INDEX_BATCH = 16
# 10,000 records on a local disk take 0.7 s one after the other and 1.3 s by two threads: nothing waits but for the
# interpreter. Threads pay only where each record is a trip to a server.
_CONNECTIONS_LOCAL = 2
