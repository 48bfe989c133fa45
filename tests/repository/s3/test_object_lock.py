"""Object Lock on a real server: what is locked cannot be removed, and no restore point outlives its packs' locks."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import forget
from jobs.retention import Rule
from tests.repository.repositories import ME, PASSWORD, QUICK, SMALL, info, write_disk, write_point
from tests.seaweed import Keys, Seaweed
from vcbproxy import config
from vcbproxy.clock import ManualClock
from vcbproxy.repository import creation, immutability, records
from vcbproxy.repository.backend.base import CONFIG, FileKind, FileLocked, FileMissing, FileName
from vcbproxy.repository.backend.s3 import client
from vcbproxy.repository.backend.s3.backend import S3Backend
from vcbproxy.repository.backend.s3.place import Place
from vcbproxy.repository.check import check
from vcbproxy.repository.kept import KeptTable
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]

SETTINGS = config.S3(object_lock=config.ObjectLock.COMPLIANCE, object_lock_days=1)
DAY = timedelta(days=1)


@dataclass
class Locked:
    """A repository in a bucket with Object Lock, opened anew on each day."""

    place: Place
    today: datetime

    def backend(self, days: float = 0) -> S3Backend:
        clock = ManualClock(self.today + days * DAY)
        return S3Backend(self.place, client.connect(self.place, SETTINGS), SETTINGS, clock)

    def repository(self, days: float = 0) -> Repository:
        clock = ManualClock(self.today + days * DAY)
        made = Repository.open(self.backend(days), PASSWORD, clock=clock, me=ME)
        made.indexing.load()
        return made

    def days_of(self, kind: FileKind) -> list[float]:
        """For how many days from today the files of a kind are locked."""
        backend = self.backend()
        retaining = backend.traits.retaining
        assert retaining is not None
        until = [retaining.kept_until(stored.name) for stored in backend.list(kind)]
        return sorted(round((each - self.today) / DAY, 2) if each else 0.0 for each in until)


@pytest.fixture
def locked(seaweed: Seaweed, s3_keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Locked:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    bucket = seaweed.new_bucket(ObjectLockEnabledForBucket=True)
    made = Locked(Place.parse(f"s3:{seaweed.endpoint}/{bucket}/repo"), datetime.now(UTC).replace(microsecond=0))
    creation.create(made.backend(), PASSWORD, kdf=QUICK, clock=ManualClock(made.today), me=ME)
    return made


def test_everything_is_locked_but_locks(locked: Locked) -> None:
    repository = locked.repository()
    with repository.locked():
        assert locked.days_of(FileKind.LOCK) == [0]
    write_point(repository, scsi0_0="abcdefghijkl")
    assert locked.days_of(FileKind.LOCK) == [], "and gone, version and all"
    assert locked.days_of(FileKind.SNAPSHOT) == [1]
    for kind in (FileKind.PACK, FileKind.INDEX, FileKind.KEY, FileKind.CONFIG, FileKind.PARAMETERS):
        days = locked.days_of(kind)
        assert days
        assert set(days) == {3}, kind


def test_what_is_locked_is_not_removed(locked: Locked) -> None:
    repository = locked.repository()
    write_point(repository, scsi0_0="abcdef")
    for kind in (FileKind.PACK, FileKind.INDEX, FileKind.SNAPSHOT, FileKind.KEY, FileKind.CONFIG):
        for stored in list(repository.backend.list(kind)):
            with pytest.raises(FileLocked, match=r"locked until 20\d\d-"):
                repository.backend.remove(stored.name)
    assert check(locked.repository()).problems == []
    with pytest.raises(FileMissing):
        repository.backend.remove(FileName(FileKind.PACK, "ab" * 32))


def test_the_locks_of_reused_packs_are_renewed_when_it_is_time(locked: Locked) -> None:
    write_point(locked.repository(), scsi0_0="abcdefghijkl")
    first = locked.days_of(FileKind.PACK)
    write_point(locked.repository(0.5), info(hours=12), scsi0_0="abcdefghijkl")
    second = locked.days_of(FileKind.PACK)
    assert second[: len(first)] == first, "none is touched every night"
    write_point(locked.repository(1.5), info(hours=36), scsi0_0="abcdefXYZghijkl")
    assert min(locked.days_of(FileKind.PACK)) < 2.5 + 1, "packs that it does not use are left alone"
    assert locked.days_of(FileKind.SNAPSHOT) == [1, 1.5, 2.5]
    [*_, last] = check(locked.repository(1.5)).locks
    assert last.record_until == locked.today + 2.5 * DAY
    assert last.needs_until is not None
    assert last.needs_until >= last.record_until
    assert all(lock.covered for lock in check(locked.repository(1.5)).locks)


def test_a_lost_table_is_made_anew_by_asking(locked: Locked, tmp_path: Path) -> None:
    write_point(locked.repository(), scsi0_0="abcdefghijkl")
    [table] = (tmp_path / "cache").rglob("kept-*.sqlite")
    table.write_bytes(b"not a table" * 1000)
    write_point(locked.repository(2.5), info(hours=60), scsi0_0="abcdefghijkl")
    assert all(lock.covered for lock in check(locked.repository()).locks)
    assert max(locked.days_of(FileKind.PACK)) == 5.5


def test_a_copy_in_another_bucket_is_not_taken_for_locked(locked: Locked, seaweed: Seaweed) -> None:
    """Copied by whatever program, nothing in it is locked, though it is the same repository by its id."""
    write_point(locked.repository(), scsi0_0="abcdefghijkl")
    bucket = seaweed.new_bucket(ObjectLockEnabledForBucket=True)
    s3 = client.connect(locked.place, SETTINGS)
    for entry in s3.list_objects_v2(Bucket=locked.place.bucket)["Contents"]:
        body = s3.get_object(Bucket=locked.place.bucket, Key=entry["Key"])["Body"].read()
        s3.put_object(Bucket=bucket, Key=entry["Key"], Body=body)
    copy = Locked(Place.parse(f"s3:{seaweed.endpoint}/{bucket}/repo"), locked.today)
    assert set(copy.days_of(FileKind.PACK)) == {0}
    write_point(copy.repository(), info(hours=1), scsi0_0="abcdefghijkl")
    [_, made_there] = check(copy.repository()).locks
    assert made_there.record_until is not None
    assert made_there.covered


def test_without_renewal_the_check_would_say_so(locked: Locked, monkeypatch: pytest.MonkeyPatch) -> None:
    write_point(locked.repository(), scsi0_0="abcdefghijkl")
    later = locked.repository(2.5)
    later.immutability = None  # as a program would leave it that knows nothing of locks
    write_point(later, info(hours=60), scsi0_0="abcdefghijkl")
    report = check(locked.repository())
    assert [lock.covered for lock in report.locks] == [True, False]
    assert any("less long" in hint for hint in report.hints)
    assert report.problems == []


def test_a_point_that_gets_a_tag_gets_its_packs_locked_as_long(locked: Locked) -> None:
    write_point(locked.repository(), scsi0_0="abcdefghijkl")
    repository = locked.repository(2.5)
    [point] = RepositoryTarget(repository, lock=False).points()
    with repository.locked() as held:
        records.mark(repository, held, point, "pinned")
    assert all(lock.covered for lock in check(locked.repository()).locks)
    assert locked.days_of(FileKind.SNAPSHOT) == [1, 3.5]


def test_a_locked_point_gets_tags_and_cannot_lose_them_yet(locked: Locked) -> None:
    write_point(locked.repository(), scsi0_0="abcdef")
    repository = locked.repository()
    with repository.locked(exclusive=True) as held:
        [point] = RepositoryTarget(repository, lock=False).points()
        records.retag(repository, held, point, add=["pinned"])
        [tagged] = RepositoryTarget(locked.repository(), lock=False).points()
        assert "pinned" in tagged.tags
        with pytest.raises(FileLocked, match="snapshots/"):
            records.retag(repository, held, tagged, remove=["pinned"])
        assert len(list(repository.backend.list(FileKind.SNAPSHOT))) == 2
    assert check(locked.repository()).problems == []


def test_what_is_locked_is_forgotten_once_it_may_be(locked: Locked) -> None:
    repository = locked.repository()
    for hours in range(3):
        write_point(repository, info(hours=hours), scsi0_0="abc")
    listed = RepositoryTarget(repository, lock=False).points()
    decide = forget.by_rule(Rule(last=1), [], now=listed[-1].time, zone=UTC)
    with repository.locked(exclusive=True) as held:
        outcome = forget.carry_out(repository, held, decide)
    reasons = [verdict.reasons[0] for verdict in outcome.verdicts]
    assert [reason[:12] for reason in reasons] == ["locked until", "locked until", "last snapsho"]
    assert RepositoryTarget(repository, lock=False).points() == listed
    later = forget.dry_run(locked.repository(9), decide)
    assert [verdict.keep for verdict in later.verdicts] == [False, False, True]


def test_prune_leaves_alone_what_is_locked(locked: Locked) -> None:
    repository = locked.repository()
    write_point(repository, scsi0_0="abcdef")
    with RepositoryTarget(repository, SMALL).begin(info(hours=1)) as aborted:
        write_disk(aborted, "scsi0-0", "ghijklmnopqr")
    with repository.locked(exclusive=True) as held:
        outcome = prune(repository, held, PruneOptions(max_unused=Unused.parse("0")))
    assert outcome.packs_locked > 0
    assert outcome.packs_removed == outcome.packs_repacked == 0
    assert check(locked.repository()).problems == []


def test_large_files_are_locked_too(locked: Locked) -> None:
    small_parts = SETTINGS.model_copy(update={"part_mib": 5})
    backend = S3Backend(locked.place, client.connect(locked.place, small_parts), small_parts)
    large = bytes(21 << 20)
    from tests.contract.backend import name_of

    backend.save(name_of(large, FileKind.PACK), [large])
    with pytest.raises(FileLocked):
        backend.remove(name_of(large, FileKind.PACK))


def test_the_slack_grows_with_the_days() -> None:
    from vcbproxy.repository.backend.s3.lock import keeping_for

    assert [keeping_for(days).slack.days for days in (1, 7, 30, 120, 3650)] == [2, 2, 7, 30, 30]
    assert all(keeping_for(days).slack > immutability.MARGIN for days in range(1, 400))


def test_the_table_remembers_and_bears_to_be_unusable(tmp_path: Path) -> None:
    until = datetime(2026, 12, 1, tzinfo=UTC)
    names = [FileName(FileKind.PACK, f"{number:064x}") for number in range(1200)]
    KeptTable(tmp_path / "kept.sqlite").note(dict.fromkeys(names, until))
    again = KeptTable(tmp_path / "kept.sqlite")
    assert again.look_up([*names, CONFIG]) == dict.fromkeys(names, until)
    nowhere = KeptTable(tmp_path / "no" / "such" / "directory")
    nowhere.note({names[0]: until})
    assert nowhere.look_up(names) == {names[0]: until}


def test_a_table_that_cannot_grow_is_done_without(tmp_path: Path) -> None:
    """It is a cache: a full disk below it must not cost a restore point."""
    until = datetime(2026, 12, 1, tzinfo=UTC)
    names = [FileName(FileKind.PACK, f"{number:064x}") for number in range(5000)]
    path = tmp_path / "kept.sqlite"
    KeptTable(path).note({names[0]: until})
    table = KeptTable(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        table.note(dict.fromkeys(names, until))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert table.look_up(names) == dict.fromkeys(names, until)
    assert KeptTable(path).look_up(names) == {names[0]: until}
