"""After a crash at any moment: the repository is sound, and every restore point that is listed restores bit for bit."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest

from tests.repository.faulty import FailingBackend, RecordingBackend
from tests.repository.repositories import (
    PASSWORD,
    QUICK,
    SMALL,
    Written,
    chunk,
    content,
    info,
    made,
    reopened,
    write_disk,
    write_point,
)
from vcbproxy.device import read
from vcbproxy.errors import Error, TargetError
from vcbproxy.repository import creation
from vcbproxy.repository.backend.base import CONFIG, FileKind, FileName, exists
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

FIRST, SECOND = "abcdefghijklmnop", "abcdefghijklmnQrSTuvw0xyz"


def hold_sound(files: dict[FileName, bytes], expected: dict[str, Written], *, must: set[str]) -> None:
    """Every listed point restores; those in ``must`` are listed; nothing is damaged."""
    backend = MemoryBackend(files)
    repository = reopened(backend)
    assert check(repository, Subset()).problems == []
    target = RepositoryTarget(repository, lock=False)
    listed = {point.name for point in target.points()}
    assert must <= listed <= set(expected)
    for name in listed:
        with target.open(name) as reader:
            for key, disk in expected[name].disks.items():
                assert read(reader.disk(key), 0, len(disk)) == disk


def test_a_crash_after_any_durable_step_loses_nothing() -> None:
    backend = RecordingBackend()
    repository = made(backend)
    first = write_point(repository, info(hours=0), scsi0_0=FIRST)
    started = len(backend.history)
    second = write_point(repository, info(hours=1), scsi0_0=SECOND, scsi0_1="zyx")
    expected = {written.point.name: written for written in (first, second)}
    for files in backend.history[started:]:
        hold_sound(files, expected, must={first.point.name})
    hold_sound(backend.files(), expected, must=set(expected))


def test_the_snapshot_record_comes_after_all_it_needs() -> None:
    backend = RecordingBackend()
    write_point(made(backend), scsi0_0=FIRST)
    kinds: list[FileKind] = []
    for before, after in pairwise(backend.history):
        kinds += [name.kind for name in after.keys() - before.keys()]
    record = kinds.index(FileKind.SNAPSHOT)
    assert FileKind.PACK not in kinds[record:]
    assert FileKind.INDEX not in kinds[record:]
    last_index = max(place for place, kind in enumerate(kinds) if kind is FileKind.INDEX)
    assert FileKind.PACK not in kinds[last_index:record]


def test_a_crash_while_a_repository_is_made_leaves_none_or_a_whole_one() -> None:
    backend = RecordingBackend()
    made(backend)
    for files in backend.history:
        torn = MemoryBackend(files)
        if exists(torn, CONFIG):
            assert reopened(torn).snapshots() == []
        else:
            with pytest.raises(Error):
                Repository.open(torn, PASSWORD)


@pytest.mark.parametrize("fail_at", range(1, 14))
def test_a_disk_that_fills_up_fails_the_point_and_nothing_else(fail_at: int) -> None:
    source = FailingBackend()
    first = write_point(made(source), info(hours=0), scsi0_0=FIRST)
    backend = FailingBackend(source.files())
    repository = reopened(backend)
    backend.refuse = lambda name: backend.saves >= fail_at
    second = None
    with contextlib.suppress(TargetError):
        second = write_point(repository, info(hours=1), scsi0_0=SECOND)
    backend.refuse = lambda name: False
    expected = {written.point.name: written for written in (first, second) if written}
    hold_sound(backend.files(), expected, must=set(expected))
    # the very same process goes on, with the same repository object
    third = write_point(repository, info(hours=2), scsi0_0=SECOND)
    hold_sound(backend.files(), expected | {third.point.name: third}, must={third.point.name})
    with repository.locked(exclusive=True):
        pass


def test_what_a_failed_point_stored_is_found_by_the_next() -> None:
    backend = FailingBackend()
    repository = made(backend)
    backend.refuse = lambda name: name.kind is FileKind.SNAPSHOT
    with pytest.raises(TargetError):
        write_point(repository, scsi0_0=FIRST)
    backend.refuse = lambda name: False
    again = write_point(reopened(backend), scsi0_0=FIRST)
    assert again.point.added_bytes is not None
    assert again.point.added_bytes < 4096


def test_a_pruned_pack_is_never_built_upon() -> None:
    """A point fails before its packs are listed; they are pruned; the same open repository must store them anew."""
    backend = FailingBackend()
    repository = made(backend)
    backend.refuse = lambda name: name.kind is FileKind.INDEX
    with pytest.raises(TargetError):
        write_point(repository, scsi0_0=FIRST)
    backend.refuse = lambda name: False
    for pack in list(backend.list(FileKind.PACK)):
        backend.remove(pack.name)
    again = write_point(repository, scsi0_0=FIRST)
    hold_sound(backend.files(), {again.point.name: again}, must={again.point.name})


def test_a_point_beside_one_that_fails_lists_what_it_took_from_it() -> None:
    """Two points at once share chunks; the one that stored them dies without an index; the other must not suffer."""
    backend = FailingBackend()
    repository = made(backend)
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info("dies")) as dies, target.begin(info("lives")) as lives:
        disk = dies.disk("scsi0-0", 1 << 20)
        packer = disk.packer()
        for letter in FIRST:
            packer.add(BlobKind.DATA, chunk(letter))
        packer.finish()
        backend.refuse = lambda name: name.kind is FileKind.INDEX
        dies.abort()
        backend.refuse = lambda name: False
        write_disk(lives, "scsi0-0", FIRST)
        point = lives.commit({})
    expected = {point.name: Written(point, {"scsi0-0": content(FIRST)})}
    hold_sound(backend.files(), expected, must=set(expected))


def test_init_never_writes_over_anything() -> None:
    backend = MemoryBackend()
    made(backend)
    with pytest.raises(TargetError, match="already"):
        made(backend)
    backend.remove(CONFIG)
    with pytest.raises(TargetError, match="not empty"):
        creation.create(backend, PASSWORD, kdf=QUICK)
