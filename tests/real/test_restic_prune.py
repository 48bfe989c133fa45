"""Ours and stock restic prune the same repositories, in turns; every version at hand."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.real.stock_restic import Restic, programs
from tests.repository.repositories import CHUNK, PASSWORD, Written, info, made_in, write_point
from vcbproxy.clock import SystemClock
from vcbproxy.device import read
from vcbproxy.errors import Busy
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.prune import Outcome, prune
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

pytestmark = pytest.mark.real
if not programs():
    pytest.skip("restic is not installed", allow_module_level=True)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0"
TIGHT = PruneOptions(max_unused=Unused(None, 0))


def pruned(place: Path, options: PruneOptions = TIGHT) -> Outcome:
    repository = Repository.open(DirectoryBackend(place), PASSWORD)
    with repository.locked(exclusive=True) as held:
        return prune(repository, held, options)


def incrementals(repository: Repository, count: int, seed: int) -> list[Written]:
    """One VM, night after night: some chunks change, most stay."""
    chance = random.Random(seed)
    letters = chance.choices(LETTERS, k=40)
    points = []
    for night in range(count):
        for place in chance.sample(range(len(letters)), 4):
            letters[place] = chance.choice(LETTERS)
        points.append(write_point(repository, info(hours=24 * night), scsi0_0="".join(letters)))
    return points


def hold(restic: Restic, points: list[Written]) -> None:
    """Both programs find it sound, and give every point back."""
    assert b"no errors were found" in restic("check", "--read-data")
    repository = Repository.open(DirectoryBackend(restic.repository), PASSWORD)
    report = check(repository, Subset())
    assert (report.problems, report.hints) == ([], [])
    target = RepositoryTarget(repository)
    assert {point.time for point in target.points()} == {written.point.time for written in points}
    for written in points:
        with target.open(written.point.name) as reader:
            assert read(reader.disk("scsi0-0"), 0, 40 * CHUNK) == written.disks["scsi0-0"]


def test_thirty_incrementals_forgotten_and_pruned_by_both_in_turns(restic: Restic) -> None:
    repository = made_in(restic.repository)
    points = incrementals(repository, 30, seed=4)
    for gone in points[::2]:
        repository.backend.remove(FileName(FileKind.SNAPSHOT, gone.point.id))
    points = points[1::2]
    assert pruned(restic.repository).packs_repacked
    hold(restic, points)
    restic("prune", "--max-unused", "0")
    restic("forget", "--keep-last", "5")
    outcome = pruned(restic.repository)
    assert outcome.snapshots == 5
    assert not outcome.idle
    hold(restic, points[-5:])
    assert pruned(restic.repository).idle
    restic("forget", "--keep-last", "2", "--prune", "--max-unused", "0", "--repack-small")
    assert pruned(restic.repository).packs_removed == 0
    hold(restic, points[-2:])


def test_after_our_prune_restics_has_nothing_to_do(restic: Restic) -> None:
    repository = made_in(restic.repository)
    points = incrementals(repository, 12, seed=7)
    for gone in points[:7]:
        repository.backend.remove(FileName(FileKind.SNAPSHOT, gone.point.id))
    pruned(restic.repository)
    before = set((restic.repository / "data").rglob("*")) | set((restic.repository / "index").iterdir())
    restic("prune", "--max-unused", "0")
    assert set((restic.repository / "data").rglob("*")) | set((restic.repository / "index").iterdir()) == before


@pytest.fixture(scope="module")
def made_by_restic(program: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with restic's own repository: three snapshots of a directory that changes."""
    place = tmp_path_factory.mktemp("foreign")
    (place / "source" / "deep" / "er").mkdir(parents=True)
    restic = Restic(program, place / "repository", PASSWORD, place)
    chance = random.Random(3)
    restic("init")
    for night in range(3):
        for number in range(7):
            (place / "source" / f"file{number}").write_bytes(chance.randbytes(chance.randrange(300_000)))
        (place / "source" / "deep" / "er" / f"text{night}").write_bytes(b"line\n" * 50_000 + bytes([night]))
        restic("backup", str(place / "source"), "--time", f"2026-11-2{night} 01:00:00")
    return place


@pytest.fixture
def foreign(restic: Restic, made_by_restic: Path) -> Path:
    """A copy of it to play with, and what the newest snapshot holds."""
    shutil.copytree(made_by_restic / "repository", restic.repository)
    return made_by_restic / "source"


def test_a_repository_of_restics_own_is_pruned(restic: Restic, foreign: Path, tmp_path: Path) -> None:
    restic("forget", "--keep-last", "1")
    outcome = pruned(restic.repository)
    assert outcome.removed_bytes + outcome.repacked_bytes > 300_000
    assert b"no errors were found" in restic("check", "--read-data")
    restic("restore", "latest", "--target", str(tmp_path / "back"))
    for path in foreign.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to("/")).read_bytes() == path.read_bytes()
    assert pruned(restic.repository).idle


def test_what_restic_cut_short_is_taken_up(restic: Restic, foreign: Path) -> None:
    """A backup that died before its snapshot leaves packs and index; so does a snapshot that is forgotten."""
    repository = Repository.open(DirectoryBackend(restic.repository), PASSWORD)
    newest = repository.snapshots()[-1]
    repository.backend.remove(FileName(FileKind.SNAPSHOT, newest.snapshot_id))
    index = max((restic.repository / "index").iterdir(), key=lambda path: path.stat().st_mtime)
    index.unlink()
    outcome = pruned(restic.repository)
    assert outcome.strays_removed
    assert b"no errors were found" in restic("check", "--read-data")


def test_packs_that_wait_are_strays_to_restic(restic: Restic) -> None:
    repository = made_in(restic.repository)
    points = incrementals(repository, 6, seed=9)
    for gone in points[:4]:
        repository.backend.remove(FileName(FileKind.SNAPSHOT, gone.point.id))
    waiting = pruned(restic.repository, PruneOptions(TIGHT.max_unused, grace=timedelta(hours=24)))
    assert waiting.packs_waiting > 3
    packs = len([path for path in (restic.repository / "data").rglob("*") if path.is_file()])
    assert b"no errors were found" in restic("check", "--read-data")
    assert len(list((restic.repository / "vcbproxy" / "waiting").iterdir())) == 1
    hold_waiting = pruned(restic.repository)
    assert (hold_waiting.idle, hold_waiting.packs_waiting) == (True, waiting.packs_waiting)
    restic("prune", "--max-unused", "unlimited")
    left = len([path for path in (restic.repository / "data").rglob("*") if path.is_file()])
    assert left == packs - waiting.packs_waiting
    pruned(restic.repository)
    assert not list((restic.repository / "vcbproxy" / "waiting").iterdir())
    hold(restic, points[4:])


def test_locks_hold_in_both_directions(restic: Restic) -> None:
    repository = made_in(restic.repository)
    write_point(repository, scsi0_0="abc")
    live = Repository.open(DirectoryBackend(restic.repository), PASSWORD, clock=SystemClock())
    with live.locked(exclusive=True):  # our prune runs
        for command in (("backup", "/etc/hostname"), ("prune",)):
            refused = restic.run(*command)
            assert refused.returncode == (11 if restic.version >= (0, 17) else 1)
    running = subprocess.Popen(
        [restic.program, "backup", "--stdin", "--stdin-filename", "slow"],
        env=restic.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_lock(restic.repository)
        with pytest.raises(Busy):  # restic's backup runs
            pruned(restic.repository)
    finally:
        running.communicate(b"data", timeout=60)
    assert running.returncode == 0
    pruned(restic.repository)
    assert len(json.loads(restic("snapshots", "--json"))) == 2


def _wait_for_lock(place: Path) -> None:
    deadline = time.monotonic() + 30
    while not list((place / "locks").iterdir()):
        assert time.monotonic() < deadline, "restic takes no lock"
        time.sleep(0.05)
