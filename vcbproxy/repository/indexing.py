"""The index in memory, kept up to date with the index files, and the index files that are written for what is stored.

It must be loaded *after* the lock is taken and the snapshots are listed: what was read before may have been removed
meanwhile.

    index files ──load──▶ index ◀──publish── a durable pack ──▶ pending ──write──▶ a new index file
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vcbproxy.clock import Clock
from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexfile, listing, suspects
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.index import Index
from vcbproxy.repository.indexload import IndexLoader
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.pending import PendingIndex

_BATCH = 16


class Indexing:
    """Of one open repository; safe to share between threads."""

    def __init__(self, files: Files, loader: IndexLoader, clock: Clock, me: Identity) -> None:
        """Begin with an empty index.

        Args:
            files: the repository's.
            loader: reads index files, or what was kept of them.
            clock: the time.
            me: who takes locks, should one be lost in the midst of writing.
        """
        self._files = files
        self._loader = loader
        self._clock = clock
        self._me = me
        self.index: Index = loader.empty()
        """What is known now; another one after ``load`` or ``drop``."""
        self._pending = PendingIndex(self._save, clock.monotonic)
        self._loaded: set[str] = set()
        self._looked: tuple[HeldLock | None, Index] | None = None  # when lost packs were looked for last
        self._writing = 0
        self._locks: list[HeldLock] = []
        self._mutex_of_locks = threading.Lock()
        self._mutex = threading.Lock()

    # ------------------------------------------------------------------ what others have listed

    def load(self) -> None:
        """Bring the index in memory up to date with the index files.

        While a session of ours runs, only what is new is added (its lock keeps anyone from removing). Otherwise, when a
        file is gone, packs were forgotten, or durable ones never listed, what is known is dropped and read anew.

        Raises:
            IntegrityError: an index file is damaged.
            TargetError: it could not be read.
        """
        with self._mutex:
            listed = {stored.name.stem: stored.size_bytes for stored in self._files.backend.list(FileKind.INDEX)}
            if not self._writing and (self._pending.clear() or self.index.forgotten or self._loaded - listed.keys()):
                self._empty()
            if (
                not (self._loaded or len(self.index))
                and self._loader.worth_caching(listed)
                and self._loader.load_cached(self.index, set(listed))
            ):
                self._loaded = set(listed)
            fresh = sorted(listed.keys() - self._loaded)
            for start in range(0, len(fresh), _BATCH):
                self._take_in(fresh[start : start + _BATCH])

    def load_tolerantly(self) -> list[IntegrityError]:
        """Load what can be loaded, from scratch; for a check. Returns what is damaged.

        Raises:
            TargetError: the index files cannot be listed or read.
        """
        damage = []
        with self._mutex:
            assert not self._writing, "a check in the midst of our own writing"
            self._pending.clear()
            self._empty()
            for stored in sorted(self._files.backend.list(FileKind.INDEX), key=lambda stored: stored.name.stem):
                try:
                    self._take_in([stored.name.stem])
                except IntegrityError as error:
                    damage.append(error)
        return damage

    def drop(self) -> None:
        """Forget all that is known of the index, and of packs that are not listed yet: for whoever removes packs."""
        with self._mutex:
            assert not self._writing, "packs are removed in the midst of our own writing"
            self._pending.clear()
            self._empty()

    def _empty(self) -> None:
        self.index, self._loaded = self._loader.empty(), set()

    def _take_in(self, stems: list[str]) -> None:
        self.index.add_files([packs for _, packs in self._loader.read(stems)])
        self._loaded.update(stems)

    # ------------------------------------------------------------------ for whoever writes

    @contextmanager
    def writing(self, held: HeldLock) -> Iterator[None]:
        """For the length of a ``with`` we store packs, under this lock."""
        with self._mutex:
            self._writing += 1
        with self._mutex_of_locks:
            self._locks.append(held)
        try:
            yield
        finally:
            with self._mutex_of_locks:
                self._locks.remove(held)
            with self._mutex:
                self._writing -= 1

    def forget_lost_packs(self, held: HeldLock | None = None) -> None:
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
        listed = self._files.backend.list(FileKind.PACK)
        lost = self.index.packs_unlike((bytes.fromhex(stored.name.stem), stored.size_bytes) for stored in listed)
        damaged = [suspect.pack_id for suspect in suspects.load(self._files)]
        self.index.forget([*lost, *self.index.known_packs(damaged)])
        self._looked = (held, self.index)

    def publish(self, pack: indexfile.PackBlobs) -> None:
        """Take a durable pack into the index, and see that it is listed in an index file soon."""
        self.index.add(pack)
        self._pending.add(pack)

    def write(self) -> None:
        """List every durable pack in an index file.

        Raises:
            TargetError: an index file could not be stored.
        """
        self._pending.flush()

    def _save(self, packs: Sequence[indexfile.PackBlobs]) -> None:
        with self._mutex_of_locks:
            held = self._locks[-1] if self._locks else None  # whichever: any lock keeps everybody from pruning
        if held is None:
            name = self._files.save_sealed(FileKind.INDEX, indexfile.encode(packs))
        else:
            name = listing.listed(self._files, held, packs, self._clock, self._me)
        self._loaded.add(name.stem)
