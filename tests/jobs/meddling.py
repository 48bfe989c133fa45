"""A backup in the test's own process, with somebody who meddles at a chosen moment of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs import backup as job
from jobs.choices import Choices, Surroundings
from jobs.intorepository import IntoRepository
from jobs.outcome import VmResult
from jobs.watcher import Advance
from tests.program import Lab
from vcbproxy import config
from vcbproxy.cli import connect
from vcbproxy.clock import SystemClock
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget


@dataclass
class Meddler:
    """A watcher that does something at a moment that only a watcher can hit.

    ``before`` runs when a disk is open and nothing of it is read, ``after`` when all of it is: for the first copy of
    the first disk, or at every copy (``again``). ``freezing`` runs right before the snapshot is asked for.
    """

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    freezing: Callable[[], object] | None = None
    again: bool = False
    said_lines: list[str] = field(default_factory=list)
    read_s: list[tuple[float, float]] = field(default_factory=list)

    def said(self, message: str) -> None:
        self.said_lines.append(message)

    def step(self, message: str) -> None:
        if message.endswith("freezing it by a snapshot") and self.freezing is not None:
            self.freezing()

    @contextmanager
    def disk(self, title: str, size_bytes: int) -> Iterator[Advance]:
        self._now("before")
        begun = time.time()
        yield lambda _done: None
        self.read_s.append((begun, time.time()))
        self._now("after")

    def _now(self, moment: str) -> None:
        action = getattr(self, moment)
        if not self.again:
            setattr(self, moment, None)
        if action is not None:
            action()


def backed_up(lab: Lab, meddler: Meddler, *, vm: str = "vm1", **choices: object) -> VmResult:
    """Back up one VM."""
    settings = config.load(lab.directory / "vcbproxy.toml")
    repository = Repository.open(open_backend(str(lab.repo)), lab.password_file.read_text().strip())
    registry = connect.registry(settings)
    with (
        registry.begin() as job_run,
        connect.to_manager(settings) as session,
        connect.storage(settings, session) as storage,
    ):
        around = Surroundings(
            session=session,
            storage=storage,
            target=IntoRepository(RepositoryTarget(repository)),
            job_run=job_run,
            registry=registry,
            clock=SystemClock(),
            watcher=meddler,
        )
        (result,) = job.run(around, [vm], Choices(**choices)).results
    return result
