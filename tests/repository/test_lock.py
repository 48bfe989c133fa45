"""Locks: who excludes whom, how they are kept alive, and when they are thought dead."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.repository.faulty import FailingBackend
from tests.repository.repositories import ME, START, made, reopened, write_point
from vcbproxy.clock import ManualClock, SystemClock
from vcbproxy.errors import Busy, Cancelled, CredentialsError, TargetError
from vcbproxy.repository import lock, lockfile
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.faults import FaultyBackend, Order, Verb, What
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.backend.retry import RetryingBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.ids import Buffer
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.lockfile import LockRecord
from vcbproxy.repository.report import Subset

HERE = Identity("proxy01", "backup", os.getpid())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def backend() -> FailingBackend:
    return FailingBackend()


@pytest.fixture
def files(backend: FailingBackend, clock: ManualClock) -> Files:
    return made(backend, clock).files


def locks(files: Files) -> list[FileName]:
    return [stored.name for stored in files.backend.list(FileKind.LOCK)]


class CtrlC(Around):
    """The operator wants an end right before or right after so many changes."""

    def __init__(self, after: int, *, done: bool) -> None:
        super().__init__(MemoryBackend())
        self.left = after
        self.done = done

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        self._change(lambda: super(CtrlC, self).save(name, parts))

    def remove(self, name: FileName) -> None:
        self._change(lambda: super(CtrlC, self).remove(name))

    def _change(self, change: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == -1 and not self.done:
            raise Cancelled
        change()
        if self.left == -1:
            raise Cancelled


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("after", [0, 1])
def test_whoever_is_interrupted_while_it_takes_or_releases_it_leaves_no_lock(
    clock: ManualClock, exclusive: bool, done: bool, after: int
) -> None:
    backend = CtrlC(10**6, done=done)
    files = made(backend, clock).files
    backend.left = after
    with pytest.raises(Cancelled), lock.held(files, exclusive=exclusive, clock=clock, me=ME):
        assert after == 1, "it must not be held"
    assert locks(files) == []


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [(False, False, False), (False, True, True), (True, False, True), (True, True, True)],
)
def test_only_shared_locks_go_together(
    files: Files, backend: FailingBackend, clock: ManualClock, first: bool, second: bool, conflict: bool
) -> None:
    with lock.held(files, exclusive=first, clock=clock, me=ME):
        saves = backend.saves
        if conflict:
            with pytest.raises(Busy, match="backup@proxy01, process 4711") as caught:
                lock.acquire(files, exclusive=second, clock=clock, me=HERE)
            assert caught.value.exit_code == 11
            assert caught.value.facts["pid"] == 4711
            assert len(locks(files)) == 1
            assert backend.saves == saves, "who only looked in was in the way of others for a moment"
        else:
            lock.acquire(files, exclusive=second, clock=clock, me=HERE).release()
    assert locks(files) == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_lock_that_cannot_be_written_is_not_held(
    files: Files, backend: FailingBackend, clock: ManualClock, exclusive: bool
) -> None:
    backend.refuse = lambda name: name.kind is FileKind.LOCK
    with pytest.raises(TargetError, match="No space left"), lock.held(files, exclusive=exclusive, clock=clock, me=ME):
        pytest.fail("it is held")
    with pytest.raises(TargetError, match="No space left"):
        lock.acquire(files, exclusive=exclusive, clock=clock, me=ME)


def test_a_stale_lock_in_the_way_is_called_so(files: Files, clock: ManualClock) -> None:
    lock.acquire(files, exclusive=False, clock=clock, me=Identity("proxy02", "backup", 4711))
    with pytest.raises(Busy, match=r"; try later$"):
        lock.acquire(files, exclusive=True, clock=clock, me=HERE)
    clock.sleep(31 * 60)
    with pytest.raises(Busy, match=r"it is stale: `vcbproxy repo unlock` removes it$"):
        lock.acquire(files, exclusive=True, clock=clock, me=HERE)


def test_of_two_who_come_at_once_none_wins_unseen(clock: ManualClock) -> None:
    """Another's lock appears between our look and our writing: we must see it in the second look, and withdraw."""
    backend = MemoryBackend()
    files = made(backend, clock).files

    class Rival(ManualClock):
        def sleep(self, seconds: float) -> None:
            files.save_sealed(FileKind.LOCK, LockRecord(START, True, HERE).encode())

    with pytest.raises(Busy):
        lock.acquire(files, exclusive=True, clock=Rival(START), me=ME)
    assert len(locks(files)) == 1


def test_of_many_who_come_at_once_never_two_hold_it(tmp_path: Path) -> None:
    """On a local disk no one waits between writing the lock and the second look: the listing is never behind."""
    backend = DirectoryBackend(tmp_path / "repo")
    files = made(backend, SystemClock()).files
    inside, most, won = [0], [0], [0]

    def come(number: int) -> None:
        me = Identity("proxy01", f"rival {number}", os.getpid())
        for _ in range(40):
            try:
                held = lock.acquire(files, exclusive=True, clock=SystemClock(), me=me)
            except Busy:
                continue
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            won[0] += 1
            time.sleep(0.0005)
            inside[0] -= 1
            held.release()

    threads = [threading.Thread(target=come, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won[0], "nobody ever held it: the test shows nothing"
    assert most == [1]
    assert locks(files) == []


def test_it_is_released_on_every_exit(files: Files, clock: ManualClock) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(files, exclusive=True, clock=clock, me=ME):
        raise KeyboardInterrupt
    assert locks(files) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "lock-refresh"]


class Refused(MemoryBackend):
    """Once its keys have expired it removes nothing more."""

    expired = False

    def remove(self, name: FileName) -> None:
        if self.expired:
            raise CredentialsError("the session token has expired")
        super().remove(name)


def test_that_it_cannot_be_released_hides_no_error(clock: ManualClock) -> None:
    """An interrupt, say, or a VM's fault, while the bucket's keys have expired."""
    backend = Refused()
    files = made(backend, clock).files

    def interrupted() -> None:
        backend.expired = True
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lock.held(files, exclusive=True, clock=clock, me=ME):
        interrupted()


def test_that_it_cannot_be_withdrawn_does_not_hide_who_was_first(clock: ManualClock) -> None:
    backend = Refused()
    files = made(backend, clock).files

    class Rival(ManualClock):
        def sleep(self, seconds: float) -> None:
            backend.expired = True
            files.save_sealed(FileKind.LOCK, LockRecord(START, True, HERE).encode())

    with pytest.raises(Busy, match="held exclusively"):
        lock.acquire(files, exclusive=True, clock=Rival(START), me=ME)


def test_refreshing_replaces_the_file_by_a_newer_one(files: Files, clock: ManualClock) -> None:
    with lock.held(files, exclusive=False, clock=clock, me=ME) as held:
        [before] = locks(files)
        held.refresh_if_due()
        assert locks(files) == [before]
        clock.sleep(301)
        held.refresh_if_due()
        [after] = locks(files)
        assert after != before
        [found] = lockfile.found(files)
        assert found.record is not None
        assert found.record.time == clock.now()
        held.check()
    assert locks(files) == []


def test_without_refresh_it_is_lost(files: Files, backend: FailingBackend, clock: ManualClock) -> None:
    with lock.held(files, exclusive=False, clock=clock, me=ME) as held:
        backend.refuse = lambda name: True
        for _ in range(4):
            clock.sleep(310)
            held.refresh_if_due()
            held.check()
        clock.sleep(310)
        with pytest.raises(TargetError, match="No space left"):
            held.check()
        backend.refuse = lambda name: False
        held.refresh_if_due()
        with pytest.raises(TargetError):
            held.check()


def test_a_clock_that_was_set_loses_it(files: Files) -> None:
    """The machine slept for an hour: our own counter stood still, but others saw a stale lock."""

    class Slept(ManualClock):
        hours = 0

        def now(self) -> datetime:
            return super().now() + timedelta(hours=self.hours)

    clock = Slept(START)
    with lock.held(files, exclusive=False, clock=clock, me=ME) as held:
        held.check()
        clock.hours = 1
        with pytest.raises(TargetError, match="clock"):
            held.check()


def test_a_lock_that_others_removed_does_not_come_back(files: Files, clock: ManualClock) -> None:
    with lock.held(files, exclusive=False, clock=clock, me=ME) as held:
        files.backend.remove(locks(files)[0])
        clock.sleep(400)
        held.refresh_if_due()
        assert locks(files) == []
        with pytest.raises(TargetError, match="removed"):
            held.check()


def dead_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.mark.parametrize(
    ("age_min", "who", "stale"),
    [
        (29, Identity("elsewhere", "x", 1), False),
        (31, Identity("elsewhere", "x", 1), True),
        (1, HERE, False),
        (31, HERE, True),
        (1, Identity("proxy01", "x", dead_pid()), True),
        (1, Identity("elsewhere", "x", dead_pid()), False),
    ],
)
def test_stale_is_too_old_or_a_dead_process_of_this_host(age_min: int, who: Identity, stale: bool) -> None:
    record = LockRecord(START, False, who)
    assert record.is_stale(START + timedelta(minutes=age_min), HERE) == stale


def test_a_stale_lock_still_blocks_until_unlock(files: Files, clock: ManualClock) -> None:
    lock.acquire(files, exclusive=True, clock=clock, me=ME)
    clock.sleep(3600)
    fresh = LockRecord(clock.now(), False, Identity("elsewhere", "x", 1))
    files.save_sealed(FileKind.LOCK, fresh.encode())
    with pytest.raises(Busy, match="repo unlock"):
        lock.acquire(files, exclusive=False, clock=clock, me=HERE)
    removed = lockfile.remove_stale(files, everything=False, clock=clock, me=HERE)
    assert [gone.record.identity for gone in removed if gone.record] == [ME]
    lock.acquire(files, exclusive=False, clock=clock, me=HERE).release()
    assert len(lockfile.remove_stale(files, everything=True, clock=clock, me=HERE)) == 1
    assert locks(files) == []


def test_an_unreadable_lock_blocks_and_only_all_removes_it(files: Files, clock: ManualClock) -> None:
    files.backend.save(FileName(FileKind.LOCK, "ab" * 32), [b"junk"])
    with pytest.raises(Busy, match="unlock --all"):
        lock.acquire(files, exclusive=False, clock=clock, me=ME)
    assert lockfile.remove_stale(files, everything=False, clock=clock, me=ME) == []
    assert len(lockfile.remove_stale(files, everything=True, clock=clock, me=ME)) == 1


def test_an_empty_lock_file_is_none(files: Files, clock: ManualClock) -> None:
    """A full disk leaves such files."""
    files.backend.save(FileName(FileKind.LOCK, "ab" * 32), [b""])
    lock.acquire(files, exclusive=True, clock=clock, me=ME).release()


def test_records_survive() -> None:
    record = LockRecord(START.replace(microsecond=123000), True, Identity("höst", "<me>", 12, 1000, 100))
    assert LockRecord.decode(record.encode(), "lock") == record


@pytest.mark.parametrize(
    ("minutes", "exclusive", "who", "busy", "unlocked"),
    [
        (+300, False, "elsewhere", False, False),  # its clock is ahead: alive for all we know, and in nobody's way
        (+300, True, "elsewhere", True, False),
        (+300, True, "dead here", True, True),  # whatever its clock says, its process is gone
        (+25, True, "elsewhere", True, False),
        (-25, True, "elsewhere", True, False),  # behind, within what a live lock can be
        (-31, True, "elsewhere", True, True),
        (-300, False, "elsewhere", False, True),
        (-300, True, "alive here", True, True),  # it slept, and knows by now that its lock is lost
    ],
)
def test_whose_clock_is_wrong(
    files: Files, clock: ManualClock, minutes: int, exclusive: bool, who: str, busy: bool, unlocked: bool
) -> None:
    """A conflicting lock always blocks, whatever time it bears; only who is surely gone is unlocked."""
    holder = {"elsewhere": Identity("other", "x", 1), "dead here": Identity("proxy01", "x", dead_pid())}
    files.save_sealed(
        FileKind.LOCK,
        LockRecord(START + timedelta(minutes=minutes), exclusive, holder.get(who, HERE)).encode(),
    )
    if busy:
        with pytest.raises(Busy):
            lock.acquire(files, exclusive=False, clock=clock, me=ME)
    else:
        lock.acquire(files, exclusive=False, clock=clock, me=ME).release()
    assert len(lockfile.remove_stale(files, everything=False, clock=clock, me=HERE)) == unlocked


def test_of_duplicates_each_is_a_lock(files: Files, clock: ManualClock) -> None:
    """A process died between its new lock file and the removal of its old one."""
    gone = Identity("proxy01", "x", dead_pid())
    for minutes in (0, 5):
        files.save_sealed(FileKind.LOCK, LockRecord(START + timedelta(minutes=minutes), True, gone).encode())
    with pytest.raises(Busy):
        lock.acquire(files, exclusive=False, clock=clock, me=ME)
    assert len(lockfile.remove_stale(files, everything=False, clock=clock, me=HERE)) == 2
    lock.acquire(files, exclusive=True, clock=clock, me=ME).release()


def test_an_old_file_that_could_not_be_removed_goes_later(clock: ManualClock) -> None:
    """It would stay for good, and block others, once nobody knows it any more."""
    backend = FaultyBackend(MemoryBackend())
    files = made(backend, clock).files
    held = lock.acquire(files, exclusive=False, clock=clock, me=ME)
    backend.order(Order(What.EIO, verbs=frozenset({Verb.REMOVE})))
    clock.sleep(301)
    held.refresh_if_due()
    assert len(locks(files)) == 2
    held.check()
    held.release()
    assert locks(files) == []


def test_a_storage_that_is_away_for_a_while_costs_no_lock(clock: ManualClock) -> None:
    """Refreshing is tried again meanwhile; the lock is lost only when others may think it stale."""
    storage = FaultyBackend(MemoryBackend())
    files = made(RetryingBackend(storage, clock, random.Random(1)), clock).files
    held = lock.acquire(files, exclusive=False, clock=clock, me=ME)
    storage.order(Order(What.LOST, times=0))
    clock.sleep(301)
    held.refresh_if_due()
    assert 500 < clock.monotonic() < 700, "five minutes of trying"
    storage.order()
    held.refresh_if_due()
    held.check()
    clock.sleep(299)
    held.check()
    [found] = lockfile.found(files)
    assert found.record is not None
    assert clock.now() - found.record.time < timedelta(minutes=5)
    held.release()
    assert locks(files) == []


class Meddling(FailingBackend):
    """Somebody unlocks all at the very moment at which a file of some kind is written."""

    when: FileKind | None = None

    def __init__(self) -> None:
        super().__init__()
        self.written: list[FileName] = []

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        if name.kind is self.when:
            self.written.append(name)
            for stored in list(self.list(FileKind.LOCK)):
                self.remove(stored.name)
        super().save(name, parts)


def test_a_lock_that_goes_while_it_is_refreshed_does_not_come_back(clock: ManualClock) -> None:
    """Whoever removed it may have looked for locks, and seen none, before the new one was there."""
    backend = Meddling()
    files = made(backend, clock).files
    held = lock.acquire(files, exclusive=False, clock=clock, me=ME)
    backend.when = FileKind.LOCK
    clock.sleep(301)
    held.refresh_if_due()
    assert locks(files) == []
    with pytest.raises(TargetError, match="removed"):
        held.check()


def test_a_record_that_is_written_while_the_lock_goes_is_withdrawn() -> None:
    """A prune may have begun before it was there, and removes what it needs."""
    backend = Meddling()
    repository = made(backend)
    backend.when = FileKind.SNAPSHOT
    with pytest.raises(TargetError, match="lock was removed"):
        write_point(repository, scsi0_0="abc")
    assert not list(backend.list(FileKind.SNAPSHOT))
    backend.when = None
    write_point(repository, scsi0_0="abc")
    assert check(repository, Subset()).problems == []


def test_an_index_file_that_is_written_while_the_lock_goes_stays_while_its_packs_do() -> None:
    """Another backup may have read it by then, and be safe by what it lists."""
    backend = Meddling()
    repository = made(backend)
    backend.when = FileKind.INDEX
    with pytest.raises(TargetError, match="lock was removed"):
        write_point(repository, scsi0_0="abc")
    backend.when = None
    assert locks(repository.files) == []
    assert [stored.name for stored in backend.list(FileKind.INDEX)] == backend.written
    assert check(reopened(backend), Subset()).problems == []


class Pruning(Meddling):
    """Removes one pack as well."""

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        super().save(name, parts)
        if name.kind is self.when:
            self.when = None
            self.remove(next(iter(list(self.list(FileKind.PACK)))).name)


def test_an_index_file_lists_no_pack_that_was_pruned_while_the_lock_was_gone() -> None:
    backend = Pruning()
    repository = made(backend)
    backend.when = FileKind.INDEX
    with pytest.raises(TargetError, match="lock was removed"):
        write_point(repository, scsi0_0="abcdefghijklmnopqrstuvwxyz")
    left = {stored.name.stem for stored in backend.list(FileKind.PACK)}
    assert {pack.pack_id.hex() for pack in indexed(backend)} == left
    assert left
    write_point(reopened(backend), scsi0_0="abcdefghijklmnopqrstuvwxyz")
    assert check(reopened(backend), Subset()).problems == []


def test_a_prune_at_work_is_waited_for_before_the_index_file_is_mended() -> None:
    class Waiting(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if seconds >= 60:
                prunes.pop().release()

    class Overtaken(Pruning):
        def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
            began = name.kind is self.when
            super().save(name, parts)
            if began:
                prunes.append(lock.acquire(repository.files, exclusive=True, clock=clock, me=HERE))

    prunes: list[lock.HeldLock] = []
    clock = Waiting(START)
    backend = Overtaken()
    repository = made(backend, clock)
    backend.when = FileKind.INDEX
    with pytest.raises(TargetError, match="lock was removed") as caught:
        write_point(repository, scsi0_0="abcdefghijklmnopqrstuvwxyz")
    assert not getattr(caught.value, "__notes__", [])
    assert {pack.pack_id.hex() for pack in indexed(backend)} == {one.name.stem for one in backend.list(FileKind.PACK)}
    assert locks(repository.files) == []


def test_a_prune_that_does_not_end_leaves_the_index_file_and_a_word_about_it(clock: ManualClock) -> None:
    class Busily(Meddling):
        def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
            super().save(name, parts)
            if name.kind is self.when:
                self.when = None
                lock.acquire(files, exclusive=True, clock=clock, me=ME)

    backend = Busily()
    repository = made(backend, clock)
    files = repository.files
    backend.when = FileKind.INDEX
    with pytest.raises(TargetError, match="lock was removed") as caught:
        write_point(repository, scsi0_0="abc")
    assert "run `vcbproxy repo check`" in " ".join(caught.value.__notes__)
    assert list(backend.list(FileKind.INDEX))


def indexed(backend: MemoryBackend) -> list[PackBlobs]:
    repository = reopened(backend)
    repository.indexing.load()
    return list(repository.index.packs())
