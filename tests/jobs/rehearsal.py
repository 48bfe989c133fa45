"""A stage for backups that go wrong: one lab, a fresh repository in memory for each run, time that need not pass.

    with Stage.opened(folder) as stage:
        run = stage.run(upset)                what went wrong, where; returns exit code, message, what was left
        stage.recovers(run)                   all is well again: valid, no lock, the next run restores bit for bit

The job is the very one that the command runs, with a clock, a watcher and a backend of ours passed in.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from jobs import backup, restore
from jobs.choices import Choices, Surroundings
from jobs.cleanup import Cleanup, Rules
from jobs.intorepository import IntoRepository
from jobs.outcome import VmResult
from jobs.ownership import Registry
from jobs.watcher import Advance, Nobody
from tests.jobs.test_main_job import sha256
from tests.repository.faulty import FailingBackend
from tests.repository.repositories import PASSWORD, QUICK
from vcbproxy import config
from vcbproxy.clock import SystemClock
from vcbproxy.config import Image
from vcbproxy.errors import Cancelled, Error
from vcbproxy.lab import client
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.manager import inventory
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import ManagerAddress, Session, connect
from vcbproxy.repository import creation
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.check import check
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.san import discover
from vcbproxy.san.info import LunInfo
from vcbproxy.source.storage import Storage
from vcbproxy.units import GiB, MiB

SPARSE = DiskSpec(16 * MiB, content=ContentSpec(used=0.1))  # most of its blocks are holes
SPEC = LabSpec(
    datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=GiB),),
    vms=(VmSpec("vm1", "ds1", disks=(SPARSE, DiskSpec(2 * MiB, content=ContentSpec(used=0.3)))),),
    truth=Truth.DIGEST,
)
VM = "vm1"


class QuickClock:
    """The machine's clock, plus all that was slept: sleeping takes no time. Lab and job share one."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self._slept_s = 0.0

    def now(self) -> datetime:
        return self._real.now() + timedelta(seconds=self._slept_s)

    def monotonic(self) -> float:
        return self._real.monotonic() + self._slept_s

    def sleep(self, seconds: float) -> None:
        self._slept_s += seconds


Action = Callable[[], None]
_MOMENTS = {
    "freezing": "freezing",
    "frozen": "frozen",
    "read": "releasing",
    "broken": "releasing",
    "looking": "audit",
    "released": "released",
}


@dataclass
class Prompter:
    """Watches a job, and does what was planned when a moment comes: each plan once, unless it is for every time.

    Moments are ``freezing``, ``frozen``, ``audit``, ``disk 1 begins``, ``disk 1 read``, ``releasing``, ``released``.
    """

    plans: dict[str, Action] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    """Of the disks, in the order in which they were begun."""
    _disks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def said(self, message: str) -> None:
        self.told.append(message)

    def step(self, message: str) -> None:
        begins = re.search(r": (\w+)", message)
        if begins is not None and begins[1] in _MOMENTS:
            self._comes(_MOMENTS[begins[1]])

    @contextmanager
    def disk(self, title: str, size_bytes: int) -> Iterator[Advance]:
        number = next(self._disks)
        self.titles.append(title)
        self._comes(f"disk {number} begins")
        yield lambda done: None
        self._comes(f"disk {number} read")

    def _comes(self, moment: str) -> None:
        self.passed.append(moment)
        plan = self.plans.pop(moment, None)
        if plan is not None:
            plan()


@dataclass
class Upset:
    """What is to go wrong in one run.

    Attributes:
        before: done before the job begins: trouble that is ordered with the lab.
        plans: what is done when a moment comes.
        refuse: the files that the repository's storage does not take.
        luns: images to read from instead of the lab's own.
        backend: a repository with earlier restore points; else a fresh one.
    """

    choices: Choices
    before: Action | None = None
    plans: dict[str, Action] = field(default_factory=dict)
    refuse: Callable[[FileName], bool] = lambda name: False
    luns: tuple[Path, ...] = ()
    backend: FailingBackend | None = None


@dataclass
class Run:
    """What came of a run."""

    code: int
    said: list[str]
    backend: FailingBackend
    ours: list[str]
    """Snapshots with our marker when it had ended."""
    unmerged: bool
    """Whether the disks still needed consolidation then."""
    marker: Marker | None
    """Of its snapshots; None when it did not come so far."""
    points_before: int
    """How many restore points were there when it began."""

    @property
    def text(self) -> str:
        return "\n".join(self.said)


class Stage:
    """A lab that is being served, and all that a job needs."""

    def __init__(self, folder: Path, datacenter: Datacenter, server: LabServer, clock: QuickClock) -> None:
        self.folder, self.datacenter, self.server, self.clock = folder, datacenter, server, clock
        self.timeout_s = 15.0
        self._files = FailingBackend()
        creation.create(self._files, PASSWORD, kdf=QUICK, clock=clock)
        self._config = config.load(folder / client.CONFIG_NAME)
        self.result: VmResult | None = None
        self._marker: Marker | None = None
        self._registry = Registry(folder / "jobs", "proxy01")

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, spec: LabSpec = SPEC) -> Iterator[Self]:
        clock = QuickClock()
        with (
            Datacenter.create(folder, spec, clock) as datacenter,
            LabServer(datacenter, clock=clock) as server,
        ):
            client.set_port(folder, spec, server.port)
            yield cls(folder, datacenter, server, clock)

    def connected(self) -> Session:
        where = ManagerAddress(
            self.server.host,
            self.server.port,
            ca_file=self.server.ca_file,
            timeout_s=self.timeout_s,
            retry_s=300,  # less than a repository's lock lives: its holder refreshes it by the real clock
        )
        return connect(where, self.server.username, self.server.password, clock=self.clock)

    def unmerged(self) -> bool:
        """Whether disks still need consolidation."""
        return self.datacenter.machine(VM).state.consolidation_needed

    def ours(self) -> list[str]:
        """Snapshots with our marker, as the hosts know them."""
        snapshots = self.datacenter.machine(VM).state.snapshots
        return [snapshot.name for snapshot in snapshots if Marker.read(snapshot.description) is not None]

    def new_backend(self) -> FailingBackend:
        """A fresh repository."""
        return FailingBackend(self._files.files())

    def run(self, upset: Upset) -> Run:
        """One backup, on a repository of its own unless one is given."""
        backend = upset.backend or self.new_backend()
        before = len(list(backend.list(FileKind.SNAPSHOT)))
        backend.refuse = upset.refuse
        prompter = Prompter(dict(upset.plans))
        if upset.before is not None:
            upset.before()
        code, lines = self._backup(backend, prompter, upset)
        backend.refuse = lambda name: False
        return Run(code, [*prompter.told, *lines], backend, self.ours(), self.unmerged(), self._marker, before)

    def recover(self) -> None:
        """Let all go well from now on: what hung goes on, a manager that was gone is there again."""
        self.server.faults.clear()
        self.server.restart()
        self.server.centre.tasks.join()

    def _backup(self, backend: FailingBackend, watcher: Prompter, upset: Upset) -> tuple[int, list[str]]:
        """As the command does it: exit code, and what it says in the end."""
        self._marker, self.result = None, None
        target = RepositoryTarget(Repository.open(backend, PASSWORD, clock=self.clock))
        try:
            with (
                self._registry.begin() as job_run,
                self.connected() as session,
                Storage(inventory.datastores(session), self._luns(upset.luns), {}) as storage,
            ):
                self._marker = job_run.marker
                around = Surroundings(
                    session=session,
                    storage=storage,
                    target=IntoRepository(target),
                    job_run=job_run,
                    registry=self._registry,
                    clock=self.clock,
                    watcher=watcher,
                )
                report = backup.run(around, [VM], upset.choices)
                (self.result,) = report.results
            report.raise_unless_ok()
        except (Error, Cancelled) as error:
            return error.exit_code, [str(error), *getattr(error, "__notes__", [])]
        return 0, []

    def _luns(self, images: tuple[Path, ...]) -> list[LunInfo]:
        own = self._config.san
        if not images:
            return discover.listed(own)
        named = [Image(path=path, wwn=image.wwn) for path, image in zip(images, own.images, strict=True)]
        return discover.configured(named)

    def cleaned_up(self) -> list[str]:
        """What ``vcbproxy cleanup`` finds and does: ``removed vm1``, ``consolidated vm1``."""
        with self.connected() as session:
            work = Cleanup(session, self._registry, Rules(), self.clock)
            return [f"{done.action.value} {done.vm}" for done in work.carry_out(work.survey())]

    def valid(self, backend: FailingBackend) -> int:
        """The repository is whole, every byte of it, and nobody holds a lock; the number of its restore points."""
        assert list(backend.list(FileKind.LOCK)) == []
        repository = Repository.open(backend, PASSWORD, clock=self.clock)
        check(repository, Subset()).raise_if_damaged("memory")
        return len(RepositoryTarget(repository).points())

    def restores(self, backend: FailingBackend) -> bool:
        """The newest restore point is what the newest snapshot of ours froze, bit for bit."""
        return self.restored(backend) == self.truths()[-1]

    def restored(self, backend: FailingBackend, point: str = f"{VM}@latest") -> dict[str, str]:
        """SHA-256 of each disk of a restore point, by default the newest, once restored."""
        target = RepositoryTarget(Repository.open(backend, PASSWORD, clock=self.clock))
        with tempfile.TemporaryDirectory() as folder, target.open(point) as opened:
            disks = restore.to_directory(opened, [], Path(folder), Nobody(), overwrite=False, workers=1)
            return {disk.key: sha256(disk.path) for disk in disks}

    def truths(self, run: Run | None = None) -> list[dict[str, str]]:
        """SHA-256 of each disk at each snapshot of ours, of one run or of all, oldest first."""
        frozen = [(Marker.read(record.description), record.disks) for record in self.datacenter.truths(VM)]
        return [
            {node: held.sha256 for node, held in disks.items()}
            for marker, disks in frozen
            if marker is not None and (run is None or marker == run.marker)
        ]

    def next_run_succeeds(self, run: Run) -> bool:
        """Another backup into the same repository, with nothing in its way."""
        code, _ = self._backup(run.backend, Prompter(), Upset(Choices()))
        return code == 0 and self.ours() == []
