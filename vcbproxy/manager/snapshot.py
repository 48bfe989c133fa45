"""A VM snapshot of ours, which is gone again on every exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vcbproxy.clock import Clock
from vcbproxy.config import Quiesce
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm


@dataclass(frozen=True, slots=True)
class Marker:
    """What the description of a snapshot of ours starts with: ``vcbproxy:<job run id>@<host>``."""

    job_run_id: str
    host: str


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    """A VM frozen at one moment. ``disks`` are what may be read: the snapshot's own backings."""

    moref: str
    name: str
    created: datetime
    quiesced: bool
    not_quiesced_because: str | None
    disks: tuple[Disk, ...]
    config: dict[str, Any]


@contextmanager
def held(
    session: Session,
    vm: Vm,
    *,
    name: str,
    marker: Marker,
    quiesce: Quiesce,
    clock: Clock,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[VmSnapshot]:
    """Hold a snapshot of the VM for the length of the ``with`` block."""
    yield VmSnapshot("", name, clock.now(), quiesced=False, not_quiesced_because=None, disks=(), config={})
    raise NotImplementedError
