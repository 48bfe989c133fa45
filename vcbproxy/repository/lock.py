"""Locks by restic's rules, so that both programs can work on one repository at the same time.

A lock is a small sealed file. It says who holds it since when, and whether exclusively:

    take      look for conflicting locks ─▶ write ours ─▶ let it settle ─▶ look again; on conflict remove ours
    refresh   every 5 minutes: write a new file with a new time, then remove the old one
    lost      no refresh for 22.5 minutes: another program may soon think it stale, so nothing may be written any more
    stale     its holder is surely gone: see ``lockfile.py``

Shared locks do not conflict with each other; an exclusive one conflicts with all.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from vcbproxy.clock import Clock
from vcbproxy.errors import Busy, Error, TargetError
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, exists
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.lockfile import LockRecord, found
from vcbproxy.thread import Thread, join_all

REFRESH_S = 5 * 60.0
LOST_S = 22.5 * 60.0
_POLL_S = 1.0
_FULL = (
    "full, there is no room even for a lock: free some KiB for `locks` on its file system by other means, then give "
    "space back by `vcbproxy repo prune --max-unused unlimited`"
)
_NO_LOCK: dict[object, str] = {
    errno.EROFS: "read-only: no lock can be kept there",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}


class HeldLock:
    """A lock of ours. ``check`` tells whether it still protects."""

    def __init__(self, files: Files, record: LockRecord, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._record = record
        self._name, self._sealed = files.sealed(FileKind.LOCK, record.encode())
        self._taken = False  # the lock file may be there
        self._refreshed_s = clock.monotonic()
        self._mutex = threading.Lock()
        self._failure = ""
        self._removed = False
        self._left: set[FileName] = set()

    def take(self) -> None:
        """Store the lock file, if no other is in the way. Whatever this raises: ``release`` leaves none behind.

        Raises:
            Busy: a conflicting lock is held.
            TargetError: it could not be written.
        """
        self._refuse_conflicts(mine=None)
        self._taken = True
        try:
            self._files.backend.save(self._name, [self._sealed])
        except Error as error:  # there is none; after an interrupt there may be
            self._taken = False
            if (why := _NO_LOCK.get(error.facts.get("errno"))) is not None:
                raise TargetError(
                    f"{self._files.location} is {why}; restore, verify and repo check do without: --no-lock"
                ) from error
            raise
        # Of two that write before they look again, at least one sees the other, if listings are never behind.
        self._clock.sleep(self._files.backend.traits.settle_s)
        self._refuse_conflicts(mine=self._name)

    def _refuse_conflicts(self, *, mine: FileName | None) -> None:
        location, ours = self._files.location, self._record
        for lock in found(self._files):
            if lock.name == mine:
                continue
            if lock.record is None:
                raise Busy(
                    f"{location}: {lock.name.path} cannot be read ({lock.damage}); "
                    "if no other program works on the repository, `vcbproxy repo unlock --all` removes it"
                )
            if ours.exclusive or lock.record.exclusive:
                stale = lock.record.is_stale(self._clock.now(), ours.identity)
                raise Busy(
                    f"{location} is locked: {lock.record}; "
                    + ("it is stale: `vcbproxy repo unlock` removes it" if stale else "try later"),
                    holder=lock.record.identity.username,
                    hostname=lock.record.identity.hostname,
                    pid=lock.record.identity.pid,
                    since=lock.record.time,
                )

    def check(self) -> None:
        """Raise unless the lock was refreshed lately; called before every write.

        Raises:
            TargetError: it was not, or another program removed it.
        """
        location = self._files.location
        if self._removed:
            raise TargetError(f"{location}: our lock was removed by another program; nothing more is written")
        if self._age_s() > LOST_S:
            raise TargetError(
                f"{location}: the lock could not be refreshed for {LOST_S / 60:.1f} minutes "
                f"({self._failure or 'the clock jumped or the process was stopped'}); nothing more is written"
            )

    def confirm(self) -> None:
        """Look whether our lock file is still there; called before the commit point.

        Raises:
            TargetError: it is not: someone may have removed what we rely on.
        """
        with self._mutex:
            self._removed = self._removed or not exists(self._files.backend, self._name)
        self.check()

    def confirm_kept(self) -> None:
        """Look whether our lock file was there all the time until now; how old it is does not matter any more.

        Raises:
            TargetError: it is gone, or that cannot be found out.
        """
        with self._mutex:
            self._removed = self._removed or not exists(self._files.backend, self._name)
        if self._removed:
            self.check()

    def refresh_if_due(self) -> None:
        """Renew the lock file when it is time; a failure is kept, and tried again at the next call."""
        if self._age_s() < REFRESH_S:
            return
        try:
            self.refresh()
        except Error as error:
            self._failure = str(error)

    def refresh(self) -> None:
        """Renew the lock file: the new one is durable before the old one goes.

        Raises:
            TargetError: it could not be, or the old file is gone, and with it our protection.
        """
        with self._mutex:
            self.check()
            # A lock that was removed must not come back to life: whoever removed it may be at work alone by now.
            self._removed = not exists(self._files.backend, self._name)
            self.check()
            began_s = self._clock.monotonic()
            record = replace(self._record, time=self._clock.now())
            name = self._files.save_sealed(FileKind.LOCK, record.encode())
            old, self._name, self._record, self._refreshed_s = self._name, name, record, began_s
            if not self._remove(old):  # somebody did, since we looked; he need not have seen the new one
                self._removed = True
                self._remove(name)
                self.check()
            for left in list(self._left):
                self._remove(left)

    def release(self) -> None:
        """Remove the lock file; one that is gone already is no error.

        Raises:
            TargetError: it could not be removed.
        """
        if not self._taken:
            return
        with self._mutex:
            for name in (self._name, *self._left):
                self._remove(name)

    def _age_s(self) -> float:
        """How long ago the lock was made or refreshed, as we and as others see it.

        Others go by the time of day in the file. It differs from our own counting when the machine slept or the clock
        was set: then they may have thought our lock stale, and acted on it.
        """
        by_others = (self._clock.now() - self._record.time).total_seconds()
        return max(self._clock.monotonic() - self._refreshed_s, by_others)

    def _remove(self, name: FileName) -> bool:
        """Remove a file of ours; False if it was gone. One that cannot be would block others: it is tried later."""
        self._left.add(name)
        try:
            self._files.backend.remove(name)
        except FileMissing:
            there = False
        else:
            there = True
        self._left.discard(name)
        return there


@contextmanager
def held(files: Files, *, exclusive: bool, clock: Clock, me: Identity) -> Iterator[HeldLock]:
    """Hold a lock, refreshed by a thread of its own, released on every exit.

    Raises:
        Busy: a conflicting lock is held.
        TargetError: the lock could not be written.
    """
    lock = HeldLock(files, LockRecord(clock.now(), exclusive, me), clock)
    stop = threading.Event()

    def refresh() -> None:
        while not stop.wait(_POLL_S):
            lock.refresh_if_due()

    thread = Thread(refresh, "lock-refresh", daemon=True)

    def let_go() -> None:
        stop.set()
        try:
            if thread.is_alive():
                join_all([thread])
            lock.release()
        except Error:
            raise
        except BaseException:  # Ctrl-C: the lock goes all the same
            lock.release()
            raise

    try:
        lock.take()
        thread.start()
        yield lock
    except BaseException:
        with suppress(Error):  # the first error matters; the lock goes stale, and `repo unlock` removes it
            let_go()
        raise
    let_go()


def acquire(files: Files, *, exclusive: bool, clock: Clock, me: Identity) -> HeldLock:
    """Take a lock; the caller releases it.

    Raises:
        Busy: a conflicting lock is held.
        TargetError: the lock could not be written.
    """
    lock = HeldLock(files, LockRecord(clock.now(), exclusive, me), clock)
    try:
        lock.take()
    except BaseException:
        with suppress(Error):  # as above
            lock.release()
        raise
    return lock
