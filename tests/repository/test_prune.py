"""Prune keeps every byte that a restore point needs, removes what none does, and touches nothing when in doubt."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.repository.faulty import FailingBackend, RecordingBackend
from tests.repository.repositories import (
    SMALL,
    START,
    Written,
    chunk,
    info,
    made,
    reopened,
    write_point,
)
from tests.repository.test_crash import hold_sound
from vcbproxy.clock import ManualClock
from vcbproxy.errors import Busy, IntegrityError, TargetError
from vcbproxy.repository import indexfile
from vcbproxy.repository.backend.base import FileKind, FileLocked, FileMissing, FileName, Keeping, Traits
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind, Buffer, digest
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.progress import no_progress
from vcbproxy.repository.prune import reindex
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.plan import Fate
from vcbproxy.repository.prune.prune import Outcome, prune
from vcbproxy.repository.prune.survey import survey
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

ALL = PruneOptions(max_unused=Unused(None, 0), pack_bytes=64 << 10)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pruned(repository: Repository, options: PruneOptions = ALL) -> Outcome:
    with repository.locked(exclusive=True) as held:
        return prune(repository, held, options)


def forget(repository: Repository, *points: Written) -> None:
    for written in points:
        repository.backend.remove(FileName(FileKind.SNAPSHOT, written.point.id))


def named(*points: Written) -> dict[str, Written]:
    return {written.point.name: written for written in points}


def sizes(backend: MemoryBackend, kind: FileKind) -> int:
    return sum(stored.size_bytes for stored in backend.list(kind))


def everything(repository: Repository) -> set[tuple[bytes, BlobKind]]:
    """All blobs that the index lists, each of which must be listed once."""
    repository.indexing.load()
    listed = [(blob.blob_id, blob.kind) for pack in repository.index.packs() for blob in pack.blobs]
    assert len(listed) == len(set(listed)), "a blob is stored twice"
    return set(listed)


def test_what_was_forgotten_goes_and_what_is_left_restores() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(6)]
    forget(repository, *points[:4])
    before = sizes(backend, FileKind.PACK)
    outcome = pruned(repository)
    hold_sound(backend.files(), named(*points[4:]), must=set(named(*points[4:])))
    assert before - sizes(backend, FileKind.PACK) > 4 * 8 << 10
    assert outcome.snapshots == 2
    gone = {digest(chunk(letter)) for letter in LETTERS[:4]}
    assert not gone & {blob for blob, _ in everything(repository)}
    assert pruned(repository).idle


def test_nothing_to_do_changes_nothing() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    written = write_point(repository, scsi0_0=LETTERS)
    before = backend.files()
    outcome = pruned(repository)
    assert outcome.idle
    assert backend.files() == before
    hold_sound(backend.files(), named(written), must=set(named(written)))


def test_an_empty_repository_is_pruned() -> None:
    repository = made()
    assert pruned(repository).idle
    forget(repository, write_point(repository, scsi0_0="abc"))
    assert pruned(repository).packs_removed
    assert not list(repository.backend.list(FileKind.PACK))
    assert not list(repository.backend.list(FileKind.INDEX))


def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(4)]
    forget(repository, *points[:3])
    before = backend.files()
    foreseen = pruned(repository, replace(ALL, dry_run=True))
    assert backend.files() == before
    done = pruned(repository)
    assert replace(foreseen, written_bytes=0) == replace(done, written_bytes=0)
    entries = foreseen.written_bytes - done.written_bytes  # what is foreseen counts the headers' entries, too
    assert done.written_bytes > 0
    assert 0 <= entries <= 41 * done.used_blobs


def test_packs_of_no_index_go() -> None:
    backend = FailingBackend()
    repository = made(backend)
    kept = write_point(repository, scsi0_0="abcdefgh")
    backend.refuse = lambda name: name.kind in (FileKind.INDEX, FileKind.SNAPSHOT)
    with pytest.raises(TargetError):
        write_point(repository, info(hours=1), scsi0_0="ijklmnop")
    backend.refuse = lambda name: False
    outcome = pruned(reopened(backend))
    assert outcome.strays_removed
    assert not outcome.idle
    hold_sound(backend.files(), named(kept), must=set(named(kept)))
    assert check(reopened(backend)).hints == []


def test_trees_and_data_never_share_a_new_pack() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(6)]
    forget(repository, *points[::2])
    pruned(repository)
    repository.indexing.load()
    for pack in repository.index.packs():
        assert len({blob.kind for blob in pack.blobs}) == 1


def test_small_packs_are_joined_once_there_are_ten() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    options = PruneOptions()  # packs of 16 MiB: all of these are small
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour]) for hour in range(4)]
    assert pruned(repository, options).idle  # 4 packs of trees, 8 of data
    points += [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour]) for hour in range(4, 11)]
    assert pruned(repository, options).packs_repacked == 33
    assert len(list(backend.list(FileKind.PACK))) == 2
    hold_sound(backend.files(), named(*points), must=set(named(*points)))
    assert pruned(repository, options).idle


def doubled(*letters: str) -> tuple[MemoryBackend, list[Written]]:
    """Points whose chunks were stored twice, as by two proxies at once."""
    one = MemoryBackend()
    first = write_point(made(one), scsi0_0=letters[0])
    other = MemoryBackend({name: data for name, data in one.files().items() if name.kind is not FileKind.INDEX})
    second = write_point(reopened(other), info(hours=3), replace(SMALL, pack_bytes=48 << 10), scsi0_0=letters[1])
    return MemoryBackend({**other.files(), **one.files()}), [first, second]


def test_of_several_copies_one_stays() -> None:
    backend, points = doubled("abcdefghijkl", "abcdefghijklmnop")
    assert pruned(reopened(backend)).removed_bytes > 8 * 8192
    everything(reopened(backend))
    hold_sound(backend.files(), named(*points), must=set(named(*points)))


@pytest.mark.parametrize("cut", [0.3, 0.6])
def test_what_an_interrupted_prune_left_is_taken_up(cut: float) -> None:
    backend = RecordingBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(6)]
    forget(repository, *points[:5])
    started = len(backend.history)
    pruned(repository)
    steps = backend.history[started + 1 :]
    torn = MemoryBackend(steps[int(len(steps) * cut)])
    for lock in torn.list(FileKind.LOCK):
        torn.remove(lock.name)
    pruned(reopened(torn))
    everything(reopened(torn))
    hold_sound(torn.files(), named(points[5]), must=set(named(points[5])))
    assert pruned(reopened(torn)).idle


@pytest.mark.parametrize("grace", [None, timedelta(hours=24)])
def test_a_crash_after_any_step_loses_nothing(grace: timedelta | None) -> None:
    backend = RecordingBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 14]) for hour in range(5)]
    forget(repository, points[0], points[3])
    left = named(points[1], points[2], points[4])
    started = len(backend.history)
    pruned(repository, replace(ALL, grace=grace))
    assert len(backend.history) - started > 5
    for files in backend.history[started:]:
        hold_sound(files, left, must=set(left))


def test_removals_come_last() -> None:
    backend = RecordingBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 14]) for hour in range(5)]
    forget(repository, *points[:3])
    started = len(backend.history)
    pruned(repository)
    steps = [
        ("-" if after.keys() < before.keys() else "+") + next(iter(before.keys() ^ after.keys())).kind.value
        for before, after in pairwise(backend.history[started - 1 :])
    ]
    order = [step for step in steps if not step.endswith("locks")]
    firsts = list(dict.fromkeys(order))
    assert firsts == ["+data", "+index", "-index", "-data"]


def without(files: dict[FileName, bytes], name: FileName) -> dict[FileName, bytes]:
    return {kept: data for kept, data in files.items() if kept != name}


def cut_short(files: dict[FileName, bytes], name: FileName) -> dict[FileName, bytes]:
    return {**files, name: files[name][:-1]}


def flipped(files: dict[FileName, bytes], name: FileName) -> dict[FileName, bytes]:
    data = bytearray(files[name])
    data[len(data) // 2] ^= 4
    return {**files, name: bytes(data)}


def hold_named(name: FileName, error: IntegrityError, *, gone: bool) -> None:
    """The file is named; or, when it is gone, what had been in it."""
    assert name.stem in str(error) or gone


def hold_untouched(before: dict[FileName, bytes], after: dict[FileName, bytes]) -> None:
    """Nothing is gone; new packs and their index may be there, if what was read for them came out as damaged."""
    assert before.items() <= after.items()
    assert {name.kind for name in after.keys() - before.keys()} <= {FileKind.PACK, FileKind.INDEX, FileKind.SUSPECT}


@pytest.mark.parametrize("spoil", [without, cut_short, flipped])
@pytest.mark.parametrize("kind", [FileKind.SNAPSHOT, FileKind.INDEX, FileKind.PACK])
def test_damage_ends_it_and_nothing_is_touched(
    kind: FileKind, spoil: Callable[[dict[FileName, bytes], FileName], dict[FileName, bytes]]
) -> None:
    clean = MemoryBackend()
    repository = made(clean)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(3)]
    forget(repository, points[0])
    for name in [stored.name for stored in clean.list(kind)]:
        backend = MemoryBackend(spoil(clean.files(), name))
        before = backend.files()
        needed = name.kind is not FileKind.PACK or _needed(repository, name)
        if kind is FileKind.SNAPSHOT and spoil is without:
            continue  # that is how points are forgotten
        try:
            pruned(Repository.open(backend, "correct horse", clock=repository.clock, me=repository.identity))
        except IntegrityError as error:
            hold_named(name, error, gone=spoil is without)
            hold_untouched(before, backend.files())
        else:
            assert not needed or spoil is flipped  # a flipped bit in a pack that stays as it is: check's work


def tree_packs(backend: MemoryBackend) -> list[FileName]:
    repository = reopened(backend)
    packs = [pack for pack in repository.index.packs() if pack.blobs[0].kind is BlobKind.TREE]
    return [FileName(FileKind.PACK, pack.pack_id.hex()) for pack in packs]


def with_damaged_blobs(files: dict[FileName, bytes], name: FileName) -> dict[FileName, bytes]:
    """A bit of each blob in a pack is flipped."""
    data = bytearray(files[name])
    packs = reopened(MemoryBackend(files)).index.packs()
    for blob in next(pack for pack in packs if pack.pack_id.hex() == name.stem).blobs:
        data[blob.offset + 30] ^= 4
    return {**files, name: bytes(data)}


def test_damaged_trees_end_it_and_all_are_named() -> None:
    """What hangs below them is not known, and would be taken for superfluous."""
    clean = MemoryBackend()
    points = [write_point(made(clean), scsi0_0="abcd")]
    points.append(write_point(reopened(clean), info("db01"), scsi0_0="efgh"))
    files = clean.files()
    for name in tree_packs(clean):
        files = with_damaged_blobs(files, name)
    backend = MemoryBackend(files)
    with pytest.raises(IntegrityError, match="nothing was removed") as caught:
        pruned(reopened(backend))
    told = f"{caught.value} {' '.join(caught.value.__notes__)}"
    assert all(written.point.tree.hex() in told for written in points)
    assert backend.files() == files


def test_a_tree_is_read_from_whichever_copy_is_whole() -> None:
    one = MemoryBackend()
    write_point(made(one), scsi0_0="abcd")
    other = MemoryBackend({name: data for name, data in one.files().items() if name.kind is not FileKind.INDEX})
    write_point(reopened(other), scsi0_0="abcd")
    both = {**other.files(), **one.files()}
    packs = tree_packs(MemoryBackend(both))
    assert len(packs) == 2
    for name in packs:
        backend = MemoryBackend(with_damaged_blobs(both, name))
        assert pruned(reopened(backend), replace(ALL, dry_run=True)).used_blobs == len(everything(reopened(one)))


def test_a_tree_whose_pack_is_gone_ends_it() -> None:
    backend = MemoryBackend()
    write_point(made(backend), scsi0_0="abcd")
    [name] = tree_packs(backend)
    torn = MemoryBackend(without(backend.files(), name))
    with pytest.raises(IntegrityError, match=name.stem):
        pruned(reopened(torn))
    assert torn.files() == without(backend.files(), name)


def test_more_trees_than_are_loaded_at_once_are_all_walked() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    with repository.locked() as held:
        target = RepositoryTarget(repository, SMALL)
        target._held = held
        for number in range(300):
            with target.begin(info(f"vm{number}")) as writer:
                writer.file("web01.vmx", f"displayName = vm{number}".encode())
                writer.commit({})
    outcome = pruned(repository)
    assert (outcome.snapshots, outcome.packs_removed) == (300, 0)
    assert outcome.used_blobs == len(everything(repository))
    assert check(reopened(backend)).problems == []


def test_two_index_files_that_contradict_each_other_end_it() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    write_point(repository, scsi0_0="abcd")
    first = next(iter(reopened(backend).index.packs()))
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode([replace(first, blobs=first.blobs[:-1])]))
    before = backend.files()
    with pytest.raises(IntegrityError, match=f"different blobs for pack {first.pack_id.hex()}"):
        pruned(Repository.open(backend, "correct horse"))
    assert before == backend.files()


def test_a_long_index_is_written_anew_in_files_of_the_usual_length() -> None:
    repository = made()
    blob = Blob(BlobKind.DATA, b"", 0, 100, 0)
    packs = [
        PackBlobs(
            digest(b"pack %d" % pack),
            [replace(blob, blob_id=digest(b"%d %d" % (pack, at)), offset=100 * at) for at in range(count)],
        )
        for pack, count in enumerate((20_000, 20_000, 1, 20_000))
    ]
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode(packs))
    found = survey(repository, no_progress)
    fates = np.full(len(packs), Fate.KEEP, np.uint8)
    gone = found.packs.number(packs[2].pack_id)
    assert gone is not None
    fates[gone] = Fate.REMOVE
    with repository.locked(exclusive=True) as held:
        reindex.rewrite(repository, held, found, fates, found.index_files, no_progress)
    lengths: dict[bytes, int] = {}
    for stored in repository.backend.list(FileKind.INDEX):
        if stored.name.stem not in found.index_files:
            listed = indexfile.decode(repository.files.load_sealed(stored.name), "an index file")
            assert sum(len(columns) for _, columns in listed) <= indexfile.BLOBS_PER_FILE_MAX
            lengths |= {pack: len(columns) for pack, columns in listed}
    assert lengths == {pack.pack_id: len(pack.blobs) for pack in packs if pack is not packs[2]}


def _needed(repository: Repository, name: FileName) -> bool:
    """Whether a point needs something in this pack (there are no copies)."""
    with repository.locked(exclusive=True) as held:
        outcome = prune(repository, held, replace(ALL, dry_run=True))
    assert outcome.snapshots
    files = MemoryBackend(without(repository.backend.files(), name))  # type: ignore[attr-defined]
    return any(problem.points for problem in check(Repository.open(files, "correct horse")).problems)


def test_a_missing_blob_is_named() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    write_point(repository, scsi0_0="abcdefgh")
    second = write_point(repository, info(hours=1), scsi0_0="abcdefghij")
    assert second
    repository.indexing.load()
    [location] = repository.index.lookup(BlobKind.DATA, digest(chunk("i")))
    newest = [n for n in backend.files() if n.kind is FileKind.INDEX]
    for name in newest:
        torn = MemoryBackend(without(backend.files(), name))
        reader = reopened(torn)
        if not reader.index.has(BlobKind.DATA, digest(chunk("i"))) and reader.index.has(
            BlobKind.TREE, second.point.tree
        ):
            with pytest.raises(IntegrityError, match=digest(chunk("i")).hex()) as caught:
                pruned(reader)
            assert caught.value.exit_code == 4
            break
    else:
        pytest.fail("no index file without the tree")
    assert location


def test_the_lock_is_taken_before_and_refuses_both_ways() -> None:
    repository = made()
    with repository.locked(), pytest.raises(Busy), repository.locked(exclusive=True):
        pass
    with repository.locked(exclusive=True), pytest.raises(Busy) as caught:
        write_point(repository, scsi0_0="abc")
    assert caught.value.exit_code == 11


class Unlocking(MemoryBackend):
    """Somebody removes all locks as the first old index file goes."""

    def remove(self, name: FileName) -> None:
        super().remove(name)
        if name.kind is FileKind.INDEX:
            for lock in [*self.list(FileKind.LOCK)]:
                super().remove(lock.name)


def test_when_the_lock_goes_with_the_old_index_no_pack_goes() -> None:
    """A backup may have begun, which read the index before: what it relies on is still there."""
    backend = Unlocking()
    repository = made(backend)
    gone = write_point(repository, scsi0_0="abcdef")
    write_point(repository, info(hours=1), scsi0_0="defghi")
    forget(repository, gone)
    before = {name for name in backend.files() if name.kind is FileKind.PACK}
    with pytest.raises(TargetError, match="lock was removed"):
        pruned(repository)
    assert before <= set(backend.files())


def test_a_lost_lock_stops_it_before_the_next_removal() -> None:
    backend = FailingBackend()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(4)]
    forget(repository, *points[:3])
    clock = repository.clock
    assert isinstance(clock, ManualClock)

    def sleep_over_it(name: FileName) -> bool:
        if name.kind is FileKind.INDEX:
            clock.sleep(3600)
        return False

    backend.refuse = sleep_over_it
    removed: list[FileName] = []
    with pytest.raises(TargetError, match="lock"):
        pruned(repository)
    left = named(points[3])
    hold_sound(backend.files(), left, must=set(left))
    assert not removed


@pytest.mark.parametrize("seed", range(12))
def test_any_history_of_points_survives(seed: int) -> None:
    chance = random.Random(seed)
    backend = MemoryBackend()
    repository = made(backend)
    alive: dict[str, Written] = {}
    for hour in range(14):
        letters = "".join(chance.choices(LETTERS + LETTERS.upper() + "0", k=chance.randrange(1, 30)))
        written = write_point(repository, info(f"vm{hour % 3}", hours=hour), scsi0_0=letters)
        alive[written.point.name] = written
        if chance.random() < 0.5:
            name = chance.choice(sorted(alive))
            forget(repository, alive.pop(name))
        if chance.random() < 0.4:
            unused = chance.choice([Unused(), Unused(None), Unused(None, 0), Unused(30.0)])
            repack = chance.choice([None, None, 40 << 10])
            grace = chance.choice([None, None, timedelta(0), timedelta(hours=2)])
            options = PruneOptions(unused, repack, grace, pack_bytes=64 << 10)
            outcome = pruned(repository, options)
            if unused.percent == 5.0 and repack is None:
                assert outcome.used_bytes
            hold_sound(backend.files(), alive, must=set(alive))
    outcome = pruned(repository, replace(ALL, grace=timedelta(0)))
    everything(repository)
    hold_sound(backend.files(), alive, must=set(alive))
    assert check(reopened(backend), Subset()).hints == []


class Retained(MemoryBackend):
    """A place that keeps packs and index files for a week after they came."""

    keeping = Keeping(timedelta(days=7), timedelta(days=2))

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.until: dict[FileName, datetime] = {}

    @property
    def traits(self) -> Traits:
        return replace(super().traits, retaining=self)

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        super().save(name, parts)
        if name.kind in (FileKind.PACK, FileKind.INDEX):
            self.until[name] = self.clock.now() + timedelta(days=7)

    def remove(self, name: FileName) -> None:
        if (until := self.until.get(name, self.clock.now())) > self.clock.now():
            raise FileLocked(location=self.location, path=name.path, until=until)
        super().remove(name)

    def kept_until(self, name: FileName) -> datetime | None:
        return self.until.get(name)

    def keep_until(self, name: FileName, until: datetime) -> None:
        self.until[name] = until


def test_what_is_locked_against_removal_stays_listed_until_it_is_not() -> None:
    backend = Retained()
    repository = made(backend, backend.clock)
    gone, kept = (write_point(repository, info(hours=hour), scsi0_0=text) for hour, text in enumerate(("abcd", "cdef")))
    forget(repository, gone)
    before = backend.files()
    outcome = pruned(repository)
    assert outcome.packs_locked > 0
    assert outcome.idle
    assert backend.files() == before
    backend.clock.sleep(8 * 24 * 3600)
    outcome = pruned(repository)
    assert (outcome.packs_locked, outcome.idle) == (0, False)
    hold_sound(backend.files(), named(kept), must=set(named(kept)))


def test_locked_packs_of_no_index_wait_and_are_not_said_to_be_gone() -> None:
    backend = Retained()
    repository = made(backend, backend.clock)
    write_point(repository, scsi0_0="abcd")
    for kind in (FileKind.SNAPSHOT, FileKind.INDEX):
        for stored in list(backend.list(kind)):
            MemoryBackend.remove(backend, stored.name)
    before = backend.files()
    foreseen = pruned(repository, replace(ALL, dry_run=True))
    outcome = pruned(repository)
    assert outcome == foreseen
    assert (outcome.strays_removed, outcome.packs_waiting, outcome.idle) == (0, 3, True)
    assert backend.files() == before
    backend.clock.sleep(8 * 24 * 3600)
    assert pruned(repository).strays_removed == 3
    assert not list(backend.list(FileKind.PACK))


def test_what_killed_writers_left_goes_after_a_day(tmp_path: Path) -> None:
    repository = made(DirectoryBackend(tmp_path))
    for name, age in (("ab" * 32, timedelta(hours=25)), ("cd" * 32, timedelta(hours=23))):
        left = tmp_path / "index" / f"{name}-tmp-1234"
        left.write_bytes(b"torn")
        moment = (repository.clock.now() - age).timestamp()
        os.utime(left, (moment, moment))
    pruned(repository)
    assert [left.name[:2] for left in (tmp_path / "index").iterdir()] == ["cd"]


class Watched(MemoryBackend):
    """Tells a test of every change, right after it."""

    def __init__(self, files: dict[FileName, bytes] | None = None) -> None:
        super().__init__(files)
        self.changed: Callable[[str, FileName], None] = lambda sign, name: None

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        super().save(name, parts)
        self.changed("+", name)

    def remove(self, name: FileName) -> None:
        super().remove(name)
        self.changed("-", name)


def half_forgotten() -> tuple[Watched, Repository, Written]:
    """Six points, of which one is left."""
    backend = Watched()
    repository = made(backend)
    points = [write_point(repository, info(hours=hour), scsi0_0=LETTERS[hour : hour + 12]) for hour in range(6)]
    forget(repository, *points[:5])
    return backend, repository, points[5]


def test_a_lock_lost_between_two_removals_saves_the_second() -> None:
    backend, repository, left = half_forgotten()
    clock = repository.clock
    assert isinstance(clock, ManualClock)
    removed: list[FileName] = []

    def changed(sign: str, name: FileName) -> None:
        if sign == "-" and name.kind is FileKind.PACK:
            removed.append(name)
            clock.sleep(3600)  # the machine slept

    backend.changed = changed
    with pytest.raises(TargetError, match="lock could not be refreshed"):
        pruned(repository)
    assert 1 <= len(removed) <= 2  # two at once
    hold_sound(backend.files(), named(left), must=set(named(left)))


class Unheard(MemoryBackend):
    """It removes what it is told to, and the answer is lost: who asks again hears that there is no such file."""

    def remove(self, name: FileName) -> None:
        super().remove(name)
        if name.kind is not FileKind.LOCK:
            raise FileMissing(location=self.location, path=name.path)


def test_what_is_gone_already_is_no_error() -> None:
    backend, repository, left = half_forgotten()
    expected = pruned(repository)
    unheard = Unheard(before_prune := half_forgotten()[0].files())
    assert pruned(reopened(unheard)) == expected
    assert not before_prune.items() <= unheard.files().items()
    assert sizes(unheard, FileKind.PACK) == sizes(backend, FileKind.PACK)
    hold_sound(unheard.files(), named(left), must=set(named(left)))


def test_a_lock_that_somebody_removed_ends_it_before_anything_goes() -> None:
    backend, repository, left = half_forgotten()

    def changed(sign: str, name: FileName) -> None:
        if sign == "+" and name.kind is FileKind.PACK:
            for stored in list(backend.list(FileKind.LOCK)):
                MemoryBackend.remove(backend, stored.name)

    before = backend.files()
    backend.changed = changed
    with pytest.raises(TargetError, match="removed by another program"):
        pruned(repository)
    assert before.items() <= backend.files().items()
    hold_sound(backend.files(), named(left), must=set(named(left)))


def test_the_copies_of_an_interrupted_prune_let_the_old_packs_go_as_a_whole() -> None:
    """New packs, durable and listed, hold what was needed of the old ones; nothing has to be written once more."""
    backend, repository, left = half_forgotten()
    states: list[dict[FileName, bytes]] = []
    backend.changed = lambda sign, name: states.append(backend.files())
    whole = pruned(repository)
    torn = next(
        files
        for files, after in pairwise(states)
        if any(name.kind is FileKind.INDEX for name in files.keys() - after.keys())
    )
    again = MemoryBackend({name: data for name, data in torn.items() if name.kind is not FileKind.LOCK})
    outcome = pruned(reopened(again), replace(ALL, max_unused=Unused(None)))
    assert (outcome.packs_repacked, outcome.packs_removed) == (0, whole.packs_removed + whole.packs_repacked)
    hold_sound(again.files(), named(left), must=set(named(left)))


def test_a_pack_that_two_index_files_list_is_listed_once_afterwards() -> None:
    backend, repository, left = half_forgotten()
    repository.indexing.load()
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode(list(repository.index.packs())))
    pruned(repository)
    listed: list[bytes] = []
    for stored in backend.list(FileKind.INDEX):
        listed += [pack for pack, _ in indexfile.decode(repository.files.load_sealed(stored.name), "an index file")]
    assert len(listed) == len(set(listed))
    hold_sound(backend.files(), named(left), must=set(named(left)))
