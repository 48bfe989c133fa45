"""A repository with a history, in memory, whose jobs can be made to die: what the crash simulations are played on.

What a job will do is drawn before it runs, so that it can be rehearsed on a copy, to learn in how many steps it changes
the storage; then one of these is chosen for its death. Everything is drawn from one seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np

from tests.repository import repositories
from tests.repository.repositories import CHUNK, ME, START, made
from vcbproxy.clock import ManualClock
from vcbproxy.device import read
from vcbproxy.repository import browse, lockfile, points, records
from vcbproxy.repository.backend import faults
from vcbproxy.repository.backend.base import Backend
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.faults import Died, FaultyBackend, Order, What, When
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.vouched import Taken, TakenOver

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL0"
OPTIONS = WriteOptions(pack_bytes=40 << 10, queue_bytes=256 << 10, writers=1)
VMS = ("web01", "db01")
PAST_STALE_S = 31 * 60
chunk = lru_cache(repositories.chunk)


@dataclass(frozen=True)
class Job:
    """Something that changes a repository.

    Attributes:
        name: for the one who reads a failure.
        run: does it, on an opened repository.
        makes: the restore point that it makes, if any, and its disks' letters.
        forgets: names of restore points that it forgets.
    """

    name: str
    run: Callable[[Repository], None]
    makes: dict[str, dict[str, str]] = field(default_factory=dict)
    forgets: frozenset[str] = frozenset()


class World:
    """A repository, what must be in it, and jobs to come."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.clock = ManualClock(START)
        self.memory = MemoryBackend()
        self.store: Backend = self.memory
        self.points: dict[str, dict[str, str]] = {}
        self.story: list[str] = [f"seed {seed}"]
        self.deaths = 0
        self.key = made(self.store, self.clock).key  # deriving it anew in every process would take half the time

    # ------------------------------------------------------------------ jobs

    def any_job(self) -> Job:
        """One that makes sense now."""
        kinds: list[Callable[[], Job]] = [self.full, self.incremental, self.incremental, self.prune, self.prune]
        return self.draw.choice([*kinds, self.forget, self.forget, self.retag])()

    def full(self, vm: str = "") -> Job:
        """A full backup of one or two disks, much of which is known already."""
        disks = {"scsi0-0": self._letters(4, 16)}
        if self.draw.random() < 0.3:
            disks["scsi0-1"] = self._letters(1, 6)
        info = self._next_point(vm or self.draw.choice(VMS))

        def run(repository: Repository) -> None:
            with RepositoryTarget(repository, OPTIONS).begin(info) as writer:
                writer.file("web01.vmx", b'displayName = "web01"\n')
                for key, letters in disks.items():
                    repositories.write_disk(writer, key, letters)
                writer.commit({"method": "san"})

        return Job(f"full backup {_name_of(info)} of {disks}", run, {_name_of(info): disks})

    def incremental(self) -> Job:
        """Some chunks of one disk change; the others are taken over from the newest point's list."""
        if not self.points:
            return self.full()
        base = self.draw.choice(sorted(self.points))
        vm = base.partition("@")[0]
        before = self.points[base]["scsi0-0"]
        changed = {row: self.draw.choice(LETTERS) for row in range(len(before)) if self.draw.random() < 0.25}
        disks = {"scsi0-0": "".join(changed.get(row, letter) for row, letter in enumerate(before))}
        info = self._next_point(vm)

        def run(repository: Repository) -> None:
            with RepositoryTarget(repository, OPTIONS).begin(info) as writer:
                summary = points.choose(points.listed(repository.snapshots()), base)  # under the lock
                vouched = PointReader.unlocked(repository, summary).vouched("scsi0-0")
                ids = np.array(vouched.ids)
                changed.update((int(row), before[row]) for row in vouched.lost if row not in changed)
                disk = writer.disk("scsi0-0", len(before) * CHUNK)
                packer = disk.packer()
                for row, letter in changed.items():
                    ids[row] = np.frombuffer(packer.add(BlobKind.DATA, chunk(letter)), np.uint8)
                kept = [Taken(row, row, 1) for row in range(len(before)) if row not in changed]
                disk.finish(ids, vouched.lengths, TakenOver(vouched, kept))
                writer.commit({"method": "san", "base": summary.id})

        return Job(f"incremental {_name_of(info)} on {base}, {changed}", run, {_name_of(info): disks})

    def forget(self) -> Job:
        """Some points go, perhaps all."""
        going = frozenset(name for name in self.points if self.draw.random() < 0.4)

        def run(repository: Repository) -> None:
            with repository.locked(exclusive=True) as held:
                listed = points.listed(repository.snapshots())
                records.forget(repository, held, [point for point in listed if point.name in going])

        return Job(f"forget {sorted(going)}", run, forgets=going)

    def retag(self) -> Job:
        """A point gets another tag, and so another record."""
        if not self.points:
            return self.full()
        name = self.draw.choice(sorted(self.points))

        def run(repository: Repository) -> None:
            with repository.locked(exclusive=True) as held:
                for point in points.listed(repository.snapshots()):
                    if point.name == name:
                        records.retag(repository, held, point, add=["kept"])

        return Job(f"retag {name}", run)

    def prune(self, options: PruneOptions | None = None) -> Job:
        """What nobody needs goes, now or later."""
        unused = self.draw.choice([Unused(), Unused(None, 0), Unused(None, 0), Unused(30.0)])
        repack = self.draw.choice([None, None, 40 << 10])
        grace = self.draw.choice([None, None, timedelta(0), timedelta(hours=2)])
        drawn = options or PruneOptions(unused, repack, grace, pack_bytes=OPTIONS.pack_bytes, workers=1)

        def run(repository: Repository) -> None:
            with repository.locked(exclusive=True) as held:
                prune(repository, held, drawn)

        return Job(f"prune {drawn.max_unused}, {drawn.max_repack_bytes}, {drawn.grace}", run)

    def thorough_prune(self) -> Job:
        """Nothing that nobody needs stays."""
        return self.prune(PruneOptions(Unused(None, 0), grace=timedelta(0), pack_bytes=OPTIONS.pack_bytes, workers=1))

    def _letters(self, least: int, most: int) -> str:
        return "".join(self.draw.choices(LETTERS, k=self.draw.randrange(least, most)))

    def _next_point(self, vm: str) -> repositories.PointInfo:
        self.clock.sleep(self.draw.randrange(60, 7200))
        return replace(repositories.info(vm), time=self.clock.now().replace(microsecond=0))

    # ------------------------------------------------------------------ running them

    def opened(self, backend: Backend | None = None) -> Repository:
        """As a process that begins now sees the repository."""
        return self._opened(backend or self.store, self.clock)

    def _opened(self, backend: Backend, clock: ManualClock) -> Repository:
        repository = Repository.of(Files(backend, self.key), clock=clock, me=ME)
        repository.indexing.load()
        return repository

    def done(self, job: Job) -> None:
        """Let a job come to its end."""
        self.story.append(job.name)
        job.run(self.opened())
        self.points |= job.makes
        self.points = {name: disks for name, disks in self.points.items() if name not in job.forgets}

    def killed(self, job: Job) -> None:
        """Let a job die at some step, hold that nothing is lost, and clear its lock away as an operator would."""
        steps = self.steps(job)
        order = Order(What.DEATH, self.draw.choice(list(When)), verbs=faults.CHANGES, after=self.draw.randrange(steps))
        self.story.append(f"{job.name}; dies {order.when.value} change {order.after + 1} of {steps}")
        before = dict(self.points)
        try:
            job.run(self.opened(FaultyBackend(self.store, [order])))
        except Died:
            self.deaths += 1
        listed = self.hold_sound(before.keys() - job.forgets, before | job.makes)
        self.points = {name: disks for name, disks in (before | job.makes).items() if name in listed}
        self.unlock()

    def unlock(self) -> None:
        """`repo unlock`, once the dead process's lock is old enough."""
        self.clock.sleep(PAST_STALE_S)
        files = Files(self.store, self.key)
        lockfile.remove_stale(files, everything=False, clock=self.clock, me=ME)
        assert not list(lockfile.found(files)), self

    def steps(self, job: Job) -> int:
        """In how many changes it does it; found out on a copy, at another time."""
        counting = FaultyBackend(MemoryBackend(self.memory.files()))
        job.run(self._opened(counting, ManualClock(self.clock.now())))
        return counting.changes

    # ------------------------------------------------------------------ what must hold

    def hold_sound(self, must: Sequence[str] | set[str], may: dict[str, dict[str, str]]) -> set[str]:
        """Nothing is damaged; what is listed restores; all in ``must`` are listed, and none beside those in ``may``."""
        repository = Repository.of(Files(self.store, self.key), clock=self.clock, me=ME)  # a check reads the index
        assert check(repository, Subset()).problems == [], self
        target = RepositoryTarget(repository, lock=False)
        summaries = points.listed(repository.snapshots())
        listed = {point.name for point in summaries}
        assert set(must) <= listed <= set(may), self
        for point in summaries:
            with target.open(point) as reader:
                for key, letters in may[point.name].items():
                    wanted = b"".join(map(chunk, letters))
                    assert read(reader.disk(key), 0, len(wanted)) == wanted, self
        return listed

    def listed(self, among: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Those of some points that are listed now."""
        listed = self._listed(self.opened())
        return {name: disks for name, disks in among.items() if name in listed}

    def hold_no_garbage(self) -> None:
        """After a thorough prune: every blob is there once and somebody needs it; every pack is in an index."""
        repository = self.opened()
        assert check(repository).hints == [], self
        stored = [(blob.blob_id, blob.kind) for pack in repository.index.packs() for blob in pack.blobs]
        assert len(stored) == len(set(stored)), self
        assert set(stored) == _used(repository), self

    def saved_to(self, path: Path) -> Path:
        """The repository as a directory, for stock restic."""
        directory = DirectoryBackend(path)
        directory.create()
        for name, content in self.memory.files().items():
            directory.save(name, [content])
        return path

    def _listed(self, repository: Repository) -> set[str]:
        return {point.name for point in points.listed(repository.snapshots())}

    def __str__(self) -> str:
        return "\n".join(self.story)


def _name_of(info: repositories.PointInfo) -> str:
    return f"{info.vm_name}@{info.time:%Y-%m-%dT%H:%M:%SZ}"


def _used(repository: Repository) -> set[tuple[bytes, BlobKind]]:
    used: set[tuple[bytes, BlobKind]] = set()
    waiting = [snapshot.tree for snapshot in repository.snapshots()]
    while waiting:
        tree_id = waiting.pop()
        used.add((tree_id, BlobKind.TREE))
        for node in browse.load_tree(repository, tree_id):
            if node.subtree is not None:
                waiting.append(node.subtree)
            if node.content is not None:
                used.update((row.tobytes(), BlobKind.DATA) for row in node.content)
    return used
