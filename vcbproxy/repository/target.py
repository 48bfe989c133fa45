"""A repository as a target of backups and a source of restores: restore points, not blobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vcbproxy.repository import points
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions
from vcbproxy.repository.writer import PointInfo, PointWriter


class RepositoryTarget:
    """Restore points in one repository; any number may be written and read at once."""

    def __init__(self, repository: Repository, options: WriteOptions | None = None, *, lock: bool = True) -> None:
        """Make it a target.

        Args:
            repository: an open one.
            options: how to write.
            lock: whether reading takes a lock; without it a read-only repository can be restored from, at the risk that
                someone prunes meanwhile (which is noticed as a missing pack, never as wrong bytes).
        """
        self.repository = repository
        self._options = options or WriteOptions()
        self._lock = lock
        self._held: HeldLock | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold one lock for all points begun meanwhile: a job run waits for it once, not for every VM.

        Raises:
            Busy: the repository is locked exclusively.
            TargetError: the lock cannot be written.
        """
        with self.repository.locked() as self._held:
            try:
                yield
            finally:
                self._held = None

    def begin(self, info: PointInfo) -> PointWriter:
        """Begin a restore point; use the writer in a ``with``.

        Raises:
            Busy: the repository is locked exclusively.
            TargetError: it cannot be written to.
            IntegrityError: its index is damaged.
        """
        return PointWriter(self.repository, info, self._options, self._held)

    def points(self) -> list[PointSummary]:
        """All restore points, newest last. Snapshots of other programs are not among them.

        Raises:
            IntegrityError: a snapshot record is damaged.
        """
        return points.listed(self.repository.snapshots())

    def find(self, text: str) -> PointSummary:
        """The restore point named by ``web01@latest``, ``web01@2026-11-22T01:00:00Z``, or the beginning of an id.

        Raises:
            UsageError: none or several; the message lists candidates.
        """
        return points.choose(self.points(), text, self.repository.clock.now())

    def open(self, point: PointSummary | str) -> PointReader:
        """Open a restore point for reading; use the reader in a ``with``.

        Raises:
            UsageError: no such restore point.
            Busy: the repository is locked exclusively.
            IntegrityError: it is damaged.
        """
        with ExitStack() as stack:
            if self._lock:
                stack.enter_context(self.repository.locked())
            summary = self.find(point) if isinstance(point, str) else point
            self.repository.indexing.load()
            closing = ExitStack()
            reader = PointReader(self.repository, summary, closing)
            closing.push(stack.pop_all())  # only now: had the reader failed, the lock would be released above
            return reader
