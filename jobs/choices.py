"""What a backup is told, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.ownership import JobRun, Registry
from jobs.target import Target
from jobs.tracking import Tracking
from jobs.watcher import Watcher
from vcbproxy.clock import Clock
from vcbproxy.config import Quiesce
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import Limits
from vcbproxy.pipeline.crew import Cancel
from vcbproxy.source.storage import Storage


@dataclass(frozen=True, slots=True)
class Choices:
    """What the operator or the policy decided.

    Attributes:
        partial: keep the other disks of a VM when some cannot be read, or fail while they are; else such a VM fails.
        limits: how long the steps of the VM snapshot's life may take.
        keep_going: a selector that means no VM fails for itself, and what the others mean is backed up. For standing
            orders: one VM that was deleted must not cost all others their night. A person's are refused at once.
    """

    quiesce: Quiesce = Quiesce.TRY
    partial: bool = False
    workers: int = 2
    policy: str = ""
    limits: Limits = field(default_factory=Limits)
    keep_going: bool = False
    tracking: Tracking = field(default_factory=Tracking)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a backup works with; made once per job run.

    Attributes:
        stop: set once the others who work with it want an end; None: there are no others.
    """

    session: Session
    storage: Storage
    target: Target
    job_run: JobRun
    registry: Registry
    clock: Clock
    watcher: Watcher
    stop: Cancel | None = None
