"""Index entries of packs that are durable but not yet listed in an index file.

They belong to the repository, not to a session: any session's flush writes all of them. So a session may build on a
blob that another one stored a moment ago, even when that other one then fails.

What is not listed when the process is killed is stored anew by the next one. So the first index file is due after a
minute, and each further one after a tenth of all the time that passed: a killed job costs a tenth of its work at most,
and a long one does not leave an index file a minute behind, each of which every later job has to read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vcbproxy.repository import indexfile
from vcbproxy.repository.indexfile import PackBlobs

_INTERVAL_MIN_S = 60
_INTERVAL_MAX_S = 600


class PendingIndex:
    """Collects packs; writes index files of some 50,000 blobs, or what there is when it is time.

    Lock order: ``_writing`` before ``_lock``; no other lock is taken under them.
    """

    def __init__(self, save: Callable[[Sequence[PackBlobs]], None], monotonic: Callable[[], float]) -> None:
        self._save = save
        self._monotonic = monotonic
        self._began_s: float | None = None
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._packs: list[PackBlobs] = []
        self._blobs = 0
        self._since_s = monotonic()

    def add(self, pack: PackBlobs) -> None:
        """Note a durable pack; write an index file when one is full or due."""
        with self._lock:
            if not self._packs:
                self._since_s = self._monotonic()
            if self._began_s is None:
                self._began_s = self._monotonic()
            self._packs.append(pack)
            self._blobs += len(pack.blobs)
        if self._due():
            with self._writing:
                if self._due():  # not so if another writer has just seen to it
                    self._write_one()

    def flush(self) -> None:
        """Write all that was noted before this call; what others are writing is waited for.

        Raises:
            TargetError: an index file could not be stored; its packs stay noted.
        """
        with self._writing:
            while self._write_one():
                pass

    def clear(self) -> bool:
        """Forget what was noted; tells whether there was anything."""
        with self._writing, self._lock:
            had = bool(self._packs)
            self._packs, self._blobs, self._began_s = [], 0, None
            return had

    def _due(self) -> bool:
        with self._lock:
            now_s = self._monotonic()
            passed_s = now_s - (now_s if self._began_s is None else self._began_s)
            interval_s = min(max(passed_s / 10, _INTERVAL_MIN_S), _INTERVAL_MAX_S)
            old = bool(self._packs) and now_s - self._since_s >= interval_s
            return old or self._blobs >= indexfile.BLOBS_PER_FILE_MAX

    def _write_one(self) -> bool:
        """Write one index file; tells whether there was anything to write. The caller holds ``_writing``."""
        packs = self._take()
        if not packs:
            return False
        try:
            self._save(packs)
        except BaseException:
            with self._lock:
                self._packs = packs + self._packs
                self._blobs += sum(len(pack.blobs) for pack in packs)
            raise
        return True

    def _take(self) -> list[PackBlobs]:
        """Packs for one index file: up to the usual number of blobs, at least one pack."""
        with self._lock:
            count = blobs = 0
            while count < len(self._packs) and (
                count == 0 or blobs + len(self._packs[count].blobs) <= indexfile.BLOBS_PER_FILE_MAX
            ):
                blobs += len(self._packs[count].blobs)
                count += 1
            taken, self._packs = self._packs[:count], self._packs[count:]
            self._blobs -= blobs
            self._since_s = self._monotonic()
            return taken
