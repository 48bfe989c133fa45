"""Tags changed and restore points forgotten: what a crash leaves, and what a reader who comes between sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.repository.faulty import RecordingBackend
from tests.repository.repositories import START, Written, info, made, reopened, write_point
from vcbproxy.clock import ManualClock
from vcbproxy.device import read
from vcbproxy.errors import TargetError, UsageError
from vcbproxy.repository import codec, points, records
from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, Traits
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.target import RepositoryTarget

PIN = points.pin_tags("before the move")


def listed(repository: Repository) -> list[PointSummary]:
    return RepositoryTarget(repository, lock=False).points()


def pinned(repository: Repository, point: PointSummary) -> str:
    with repository.locked(exclusive=True) as held:
        return records.retag(repository, held, point, add=PIN)


def unpinned(repository: Repository, point: PointSummary) -> str:
    with repository.locked(exclusive=True) as held:
        return records.retag(repository, held, point, remove=points.pins_among(point.tags))


def record_ids(repository: Repository) -> set[str]:
    return {stored.name.stem for stored in repository.backend.list(FileKind.SNAPSHOT)}


def fields(repository: Repository, snapshot_id: str) -> dict[str, object]:
    decoded = codec.decode(repository.files.load_sealed(FileName(FileKind.SNAPSHOT, snapshot_id)), "a record")
    assert isinstance(decoded, dict)
    return decoded


def restores(repository: Repository, written: Written) -> bool:
    with RepositoryTarget(repository).open(written.point.original) as reader:
        return all(read(reader.disk(key), 0, len(disk)) == disk for key, disk in written.disks.items())


def test_a_pin_replaces_the_record_and_keeps_all_it_said() -> None:
    repository = made()
    written = write_point(repository, scsi0_0="ab")
    before = fields(repository, written.point.id)
    kept = pinned(repository, written.point)
    [point] = listed(repository)
    assert (point.id, point.original, point.pinned, point.pinned_because) == (
        kept,
        written.point.id,
        True,
        "before the move",
    )
    assert record_ids(repository) == {kept}
    after = fields(repository, kept)
    assert set(after.pop("tags")) == {*written.point.tags, *PIN}
    assert after.pop("original") == written.point.id
    assert after == {key: value for key, value in before.items() if key != "tags"}
    assert restores(repository, written)


def test_pinning_twice_changes_nothing_and_unpinning_gives_the_tags_back() -> None:
    repository = made()
    written = write_point(repository, scsi0_0="ab")
    kept = pinned(repository, written.point)
    assert pinned(repository, listed(repository)[0]) == kept
    again = unpinned(repository, listed(repository)[0])
    [point] = listed(repository)
    assert (point.id, point.original, point.tags) == (again, written.point.id, written.point.tags)


def test_it_is_found_by_the_first_id_and_by_the_new_one() -> None:
    repository = made()
    point = write_point(repository, scsi0_0="ab").point
    kept = pinned(repository, point)
    for text in (point.id, point.short_id, kept, kept[:8], "web01@latest"):
        assert RepositoryTarget(repository).find(text).id == kept


@pytest.mark.parametrize("change", [pinned, unpinned])
def test_a_crash_while_tags_change_leaves_one_restore_point(change) -> None:
    backend = RecordingBackend()
    repository = made(backend)
    written = write_point(repository, info(hours=0), scsi0_0="ab")
    other = write_point(repository, info(hours=1), scsi0_0="bc")
    if change is unpinned:
        pinned(repository, listed(repository)[0])
    started = len(backend.history)
    change(repository, listed(repository)[0])
    assert len(backend.history) - started == 4, "lock, new record, old record, lock"
    for files in backend.history[started:]:
        torn = reopened(MemoryBackend(files))
        found = listed(torn)
        assert [point.original for point in found] == [written.point.id, other.point.id]
        if len(record_ids(torn)) == 3:
            assert found[0].pinned
            assert len(found[0].records) == 2
        for lock in list(torn.backend.list(FileKind.LOCK)):
            torn.backend.remove(lock.name)
        assert check(torn).problems == []
        assert restores(torn, written)
        change(torn, found[0])
        assert len(record_ids(torn)) == 2
        assert listed(torn)[0].pinned == (change is pinned)


def test_a_crash_while_points_are_forgotten_keeps_the_rest() -> None:
    backend = RecordingBackend()
    repository = made(backend)
    written = [write_point(repository, info(hours=hours), scsi0_0="abc"[hours:]) for hours in range(3)]
    started = len(backend.history)
    gone: list[str] = []
    with repository.locked(exclusive=True) as held:
        records.forget(repository, held, listed(repository)[:2], lambda point: gone.append(point.id))
    assert gone == [one.point.id for one in written[:2]]
    for files in backend.history[started:]:
        torn = reopened(MemoryBackend(files))
        found = {point.id for point in listed(torn)}
        assert written[2].point.id in found
        assert all(restores(torn, one) for one in written if one.point.id in found and not list(torn_locks(torn)))
    assert [point.id for point in listed(repository)] == [written[2].point.id]


def torn_locks(repository: Repository) -> list[str]:
    return [stored.name.stem for stored in repository.backend.list(FileKind.LOCK)]


def test_forgetting_takes_every_record_of_the_point() -> None:
    repository = made()
    written = write_point(repository, scsi0_0="ab")
    with repository.locked() as held:
        records.mark(repository, held, written.point, points.SUSPECT_TAG)
    [point] = listed(repository)
    assert point.suspect
    assert not point.good
    assert len(point.records) == len(record_ids(repository)) == 2
    with repository.locked(exclusive=True) as held:
        records.forget(repository, held, [point])
    assert record_ids(repository) == set()


def test_nothing_is_forgotten_once_the_lock_is_lost() -> None:
    clock = ManualClock(START)
    repository = made(clock=clock)
    written = [write_point(repository, info(hours=hour), scsi0_0="ab").point for hour in range(3)]
    with repository.locked(exclusive=True) as held, pytest.raises(TargetError, match="lock could not be refreshed"):
        records.forget(repository, held, written, lambda point: clock.sleep(3600))  # the machine sleeps after the first
    assert record_ids(repository) == {point.id for point in written[1:]}


def test_a_record_that_is_gone_already_is_forgotten() -> None:
    repository = made()
    point = write_point(repository, scsi0_0="ab").point
    repository.backend.remove(FileName(FileKind.SNAPSHOT, point.id))
    with repository.locked(exclusive=True) as held:
        records.forget(repository, held, [point])


def test_a_point_that_went_meanwhile_is_not_brought_back() -> None:
    repository = made()
    point = write_point(repository, scsi0_0="ab").point
    repository.backend.remove(FileName(FileKind.SNAPSHOT, point.id))
    with pytest.raises(UsageError, match="is gone"):
        pinned(repository, point)
    assert listed(repository) == []


def test_what_restic_made_of_one_point_with_another_tree_stays_two() -> None:
    repository = made()
    first = write_point(repository, info(hours=0), scsi0_0="ab").point
    other = write_point(repository, info(hours=1), scsi0_0="bc").point
    changed = fields(repository, other.id) | {"original": first.id, "time": fields(repository, first.id)["time"]}
    repository.files.save_sealed(FileKind.SNAPSHOT, codec.encode(changed))
    assert len(listed(repository)) == 3


@pytest.mark.parametrize("ids", ["ab", "ba"])
def test_two_records_are_one_point_with_the_tags_of_both(ids: str) -> None:
    """A crash right before the pinned record of an unpinned point was removed: the pin still holds."""
    first, second = (one * 64 for one in ids)
    plain = Snapshot(first, START, bytes(32), ("/web01",), "web01", tags=("vcbproxy", "vm:1"), original="0" * 64)
    held = replace(plain, snapshot_id=second, tags=("vcbproxy", "vm:1", points.PINNED_TAG))
    for order in ((plain, held), (held, plain)):
        [point] = points.listed(order)
        assert point.pinned
        assert point.id == "a" * 64
        assert set(point.records) == {first, second}
        assert points.choose([point], "bbbb") == points.choose([point], "0000") == point


@pytest.mark.parametrize("connections", [2, 8])
def test_a_record_that_is_replaced_while_it_is_listed_is_found_again(connections: int) -> None:
    class Moving(MemoryBackend):
        moved = False

        @property
        def traits(self) -> Traits:
            return Traits(connections)

        def size(self, name: FileName) -> int:
            if name.kind is FileKind.SNAPSHOT and not self.moved:
                self.moved = True
                with_it = reopened(MemoryBackend(self.files()))
                pinned(with_it, listed(with_it)[0])
                for gone in self.files().keys() - with_it.backend.files().keys():
                    self.remove(gone)
                for new, content in with_it.backend.files().items():
                    if new.kind is FileKind.SNAPSHOT:
                        self.save(new, [content])
            return super().size(name)

    still = made()
    write_point(still, scsi0_0="ab")
    [point] = listed(reopened(Moving(still.backend.files())))
    assert point.pinned


def test_a_record_that_is_listed_and_cannot_be_read_is_an_error() -> None:
    class Ghost(MemoryBackend):
        def size(self, name: FileName) -> int:
            if name.kind is FileKind.SNAPSHOT:
                raise FileMissing(location=self.location, path=name.path)
            return super().size(name)

    still = made(clock=ManualClock(START))
    write_point(still, scsi0_0="ab")
    with pytest.raises(TargetError, match="no file snapshots/"):
        listed(reopened(Ghost(still.backend.files())))
