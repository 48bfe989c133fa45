"""Deletion in two steps: out of the index now, off the disk later, and back into the index when it was wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.repository.repositories import (
    ME,
    PASSWORD,
    SMALL,
    START,
    Written,
    chunk,
    content,
    info,
    made,
    write_disk,
    write_point,
)
from tests.repository.test_crash import hold_sound
from tests.repository.test_prune import ALL, everything, forget, named, pruned
from vcbproxy.clock import ManualClock
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import codec
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import digest
from vcbproxy.repository.prune import waiting
from vcbproxy.repository.prune.options import parse_duration
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

DAY = replace(ALL, grace=timedelta(hours=24))
NOW = replace(ALL, grace=timedelta(0))


class World:
    """One repository, seen by proxies that share a clock."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.clock = ManualClock(START)
        made(self.backend, self.clock)

    def proxy(self) -> Repository:
        return Repository.open(self.backend, PASSWORD, clock=self.clock, me=ME)

    def packs(self) -> set[str]:
        return {stored.name.stem for stored in self.backend.list(FileKind.PACK)}

    def waiting(self) -> set[str]:
        return {pack for wait in waiting.load(self.proxy().files) for pack in wait.packs}


@pytest.fixture
def world() -> World:
    return World()


def test_packs_wait_out_their_grace(world: World) -> None:
    gone, kept = (
        write_point(world.proxy(), info(hours=hour), scsi0_0=text) for hour, text in enumerate(("abc", "xyz"))
    )
    forget(world.proxy(), gone)
    before = world.packs()
    first = pruned(world.proxy(), DAY)
    assert world.packs() >= before
    lengths = {stored.name.stem: stored.size_bytes for stored in world.backend.list(FileKind.PACK)}
    assert first.waiting_bytes == sum(lengths[pack] for pack in world.waiting())
    assert first.packs_waiting == len(world.waiting()) == first.packs_removed + first.packs_repacked > 0
    assert digest(chunk("a")) not in {blob for blob, _ in everything(world.proxy())}

    world.clock.sleep(23 * 3600)
    assert pruned(world.proxy()).idle  # however it is called: 24 hours were promised
    assert pruned(world.proxy(), DAY).packs_waiting == first.packs_waiting
    world.clock.sleep(2 * 3600)
    assert pruned(world.proxy(), DAY).strays_removed == first.packs_waiting
    assert len(world.packs()) < len(before)
    assert not list(world.backend.list(FileKind.WAITING))
    hold_sound(world.backend.files(), named(kept), must=set(named(kept)))


def test_a_grace_of_nothing_ends_the_waiting(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    assert pruned(world.proxy(), DAY).packs_waiting
    assert pruned(world.proxy(), NOW).strays_removed
    assert not world.packs()
    assert not world.waiting()


def test_a_backup_meanwhile_does_not_rely_on_what_waits(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    open_all_the_while = world.proxy()
    open_all_the_while.indexing.load()
    pruned(world.proxy(), DAY)
    again = write_point(open_all_the_while, info(hours=1), scsi0_0="abc")
    world.clock.sleep(25 * 3600)
    pruned(world.proxy())
    hold_sound(world.backend.files(), named(again), must=set(named(again)))


def unlocked_backup_across_a_prune(world: World) -> Written:
    """Its lock is removed while it runs, prune comes and goes, and it commits all the same.

    So might a program that does not look at its lock before the end. Ours does, so it is put back for that moment.
    """
    gone = write_point(world.proxy(), scsi0_0="abcdef")
    writer = RepositoryTarget(world.proxy(), SMALL).begin(info(hours=1))
    write_disk(writer, "scsi0-0", "defghi")  # d, e, f are there already
    locks = {name: data for name, data in world.backend.files().items() if name.kind is FileKind.LOCK}
    for name in locks:
        world.backend.remove(name)
    forget(world.proxy(), gone)
    assert pruned(world.proxy(), DAY).packs_waiting
    for name, data in locks.items():
        world.backend.save(name, [data])
    return Written(writer.commit({}), {"scsi0-0": content("defghi")})


def test_what_a_backup_without_a_lock_relied_on_is_taken_back(world: World) -> None:
    point = unlocked_backup_across_a_prune(world)
    world.clock.sleep(25 * 3600)
    for stem, noted in (("00" * 32, False), ("01" * 32, True)):  # in no index either; sorted first, and junk
        world.backend.save(FileName(FileKind.PACK, stem), [b"junk"])
        if noted:
            waiting.save(world.proxy().files, [stem], START, START)
    foreseen = pruned(world.proxy(), replace(ALL, dry_run=True))
    assert foreseen.rescued
    done = pruned(world.proxy())
    assert done.rescued == foreseen.rescued
    assert not done.idle
    assert not {"00" * 32, "01" * 32} & set(done.rescued)
    assert not world.waiting()
    hold_sound(world.backend.files(), named(point), must=set(named(point)))
    assert pruned(world.proxy()).idle
    everything(world.proxy())


def test_without_a_grace_such_a_backup_loses_its_point_and_prune_says_so(world: World) -> None:
    unlocked_backup_across_a_prune(world)
    for pack in world.waiting():
        world.backend.remove(FileName(FileKind.PACK, pack))
    before = world.backend.files()
    with pytest.raises(IntegrityError, match="in no index"):
        pruned(world.proxy())
    assert world.backend.files() == before


def test_ours_looks_at_its_lock_before_it_commits(world: World) -> None:
    write_point(world.proxy(), scsi0_0="abc")
    writer = RepositoryTarget(world.proxy(), SMALL).begin(info(hours=1))
    write_disk(writer, "scsi0-0", "abc")
    for stored in list(world.backend.list(FileKind.LOCK)):
        world.backend.remove(stored.name)
    with writer, pytest.raises(TargetError, match="lock was removed"):
        writer.commit({})
    assert len(RepositoryTarget(world.proxy()).points()) == 1


def test_what_is_listed_again_waits_no_more(world: World) -> None:
    """`restic repair index` lists all packs there are."""
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    indexes = {name: data for name, data in world.backend.files().items() if name.kind is FileKind.INDEX}
    pruned(world.proxy(), DAY)
    for name, data in indexes.items():
        world.backend.save(name, [data])
    outcome = pruned(world.proxy(), DAY)
    assert outcome.packs_removed
    world.clock.sleep(25 * 3600)
    assert pruned(world.proxy()).strays_removed
    assert not world.packs()


def test_a_damaged_note_of_what_waits_ends_it(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    pruned(world.proxy(), DAY)
    [note] = [stored.name for stored in world.backend.list(FileKind.WAITING)]
    torn = MemoryBackend({**world.backend.files(), note: world.backend.files()[note][:-1]})
    with pytest.raises(IntegrityError, match=note.stem):
        pruned(Repository.open(torn, PASSWORD, clock=world.clock, me=ME))


def test_a_pack_that_two_notes_name_waits_for_the_later_one(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    pruned(world.proxy(), DAY)
    for hours in (72, 48):  # in whichever order they are listed
        now = world.clock.now()
        waiting.save(world.proxy().files, world.packs(), now, now + timedelta(hours=hours))
    world.clock.sleep(71 * 3600)
    assert pruned(world.proxy()).idle
    world.clock.sleep(2 * 3600)
    assert pruned(world.proxy()).strays_removed
    assert not world.packs()


@pytest.mark.parametrize("change", [{"format": "vcbproxy.waiting/2"}, {"packs": ["ab" * 32, "ab"]}, {"until": "soon"}])
def test_a_note_that_is_not_understood_ends_it(world: World, change: dict[str, object]) -> None:
    fields = {"format": "vcbproxy.waiting/1", "time": "2026-11-22T01:00:00Z", "until": "2026-11-22T01:00:00Z"}
    repository = world.proxy()
    repository.files.save_sealed(FileKind.WAITING, codec.encode({**fields, "packs": ["ab" * 32], **change}))
    before = world.backend.files()
    with pytest.raises(IntegrityError, match="vcbproxy/waiting/"):
        pruned(repository, NOW)
    assert world.backend.files() == before


def test_strays_of_unknown_origin_wait_as_well(world: World) -> None:
    write_point(world.proxy(), scsi0_0="abc")
    for stored in list(world.backend.list(FileKind.SNAPSHOT)) + list(world.backend.list(FileKind.INDEX)):
        world.backend.remove(stored.name)
    packs = world.packs()
    assert pruned(world.proxy(), DAY).packs_waiting == len(packs)
    assert world.packs() == packs
    world.clock.sleep(25 * 3600)
    assert pruned(world.proxy(), DAY).strays_removed == len(packs)


@pytest.mark.parametrize(("text", "hours"), [("24h", 24), ("7d", 168), ("90m", 1.5), ("0", 0), ("3600s", 1)])
def test_durations_are_read(text: str, hours: float) -> None:
    assert parse_duration(text) == timedelta(hours=hours)


def test_a_check_tells_of_them_in_one_line(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    waiting_packs = pruned(world.proxy(), DAY).packs_waiting
    assert waiting_packs > 1
    report = check(world.proxy(), None)
    assert report.problems == []
    [hint] = report.hints
    assert hint.startswith(f"{waiting_packs} packs")


def test_a_dry_run_with_grace_changes_nothing(world: World) -> None:
    forget(world.proxy(), write_point(world.proxy(), scsi0_0="abc"))
    before = world.backend.files()
    foreseen = pruned(world.proxy(), replace(DAY, dry_run=True))
    assert world.backend.files() == before
    assert replace(pruned(world.proxy(), DAY), written_bytes=0) == replace(foreseen, written_bytes=0)
