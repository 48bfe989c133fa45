"""Finding our snapshots and removing them, whatever it takes.

    look for the marker ──none──▶ done ──▶ disks need consolidation? ──▶ consolidate
          ▲     └─found──▶ RemoveSnapshot ──ended──┐
          └── pause ◀── busy, connection lost, ────┘
                        task failed (a few times)

Every round looks anew: a request whose answer was lost may have been carried out. A snapshot without our marker is
never touched; children of ours (a snapshot somebody took meanwhile) stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pyVmomi import vim

from vcbproxy.clock import Clock
from vcbproxy.errors import CredentialsError, ManagerError, TaskFailed
from vcbproxy.manager import convert, properties, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.wire import Wire, moref_of

log = logging.getLogger(__name__)

_FAILURES_MAX = 5
PAUSE_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the steps of a snapshot's life may take.

    Attributes:
        create_s: the creation, the guest's quiescing included.
        busy_s: waiting for other operations on the VM, and for a manager that does not answer.
        remove_s: one removal or consolidation; hours, when the guest wrote much meanwhile.
        pause_s: the first pause before something is tried again; it doubles up to a minute.
        settle_s: how long a request whose answer was lost may still be on its way through the manager.
    """

    create_s: float = 900.0
    busy_s: float = 900.0
    remove_s: float = 12 * 3600.0
    pause_s: float = 2.0
    settle_s: float = 10.0


@dataclass(frozen=True, slots=True)
class OurSnapshot:
    """A snapshot with our marker."""

    moref: str
    name: str
    created: datetime
    marker: Marker


def find_ours(session: Session, vm: Vm) -> list[OurSnapshot]:
    """All snapshots of a VM that carry our marker, of whatever job run; newest last."""
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), ["snapshot"]))
    found = []
    for tree in properties.snapshot_trees(row.get("snapshot")):
        marker = Marker.read(tree.description)
        if marker is not None:
            found.append(OurSnapshot(moref_of(tree.snapshot), tree.name, convert.utc(tree.createTime), marker))
    return sorted(found, key=lambda snapshot: snapshot.created)


def remove_marked(
    session: Session,
    vm: Vm,
    marker: Marker,
    *,
    clock: Clock,
    limits: Limits,
    unsure: bool = False,
    given_up: Callable[[], bool] = task.never,
) -> None:
    """Remove every snapshot of the VM with exactly this marker, and consolidate if the manager asks for it.

    Args:
        session: where the VM is.
        vm: whose snapshots.
        marker: whose removal is wanted.
        clock: paces the attempts.
        limits: how long.
        unsure: one may be on its way through the manager: wait for tasks that create one first.
        given_up: asked between attempts; true: try no more.

    Raises:
        ManagerError: it is still there, or the disks still need consolidation; the message says what to do by hand.
    """
    waiting = partial(task.wait, session, clock=clock, limit_s=limits.remove_s, given_up=given_up)

    def attempt() -> bool:
        if unsure:
            await_creation(session, vm, clock=clock, limits=limits, given_up=given_up)
        ours = [snapshot for snapshot in find_ours(session, vm) if snapshot.marker == marker]
        for snapshot in ours:
            log.info("removing the snapshot %r of %s", snapshot.name, vm.name)
            _remove(session, vm, snapshot.moref, waiting)
        return not ours

    def consolidated() -> bool:
        if not _needs_consolidation(session, vm):
            return True
        log.info("consolidating the disks of %s", vm.name)
        _consolidate(session, vm, waiting)
        return False

    by_hand = "delete the snapshot in the vSphere client, it grows until then"
    _persist(attempt, f"the snapshot {marker} of {vm.name} is not removed", by_hand, clock, limits, given_up)
    by_hand = "choose Snapshots > Consolidate in the vSphere client"
    _persist(consolidated, f"the disks of {vm.name} still need consolidation", by_hand, clock, limits, given_up)


def await_creation(
    session: Session, vm: Vm, *, clock: Clock, limits: Limits, given_up: Callable[[], bool] = task.never
) -> None:
    """Wait for a snapshot's creation that may be under way without our knowing its task.

    So it is after the connection broke while the request was on its way. Somebody else's creation is waited for as
    well: nothing could be removed meanwhile anyway.
    """
    for recent in session.read(lambda wire: _recent_tasks(wire, vm.moref)):
        under_way = task.Started(recent, "CreateSnapshot", vm.name)
        try:
            if _creates_snapshot(session, under_way, vm):
                task.wait(session, under_way, clock=clock, limit_s=limits.create_s, given_up=given_up)
        except ManagerError as error:
            over = isinstance(error, TaskFailed) or trouble_of(error) is Trouble.GONE
            if not over:
                raise
            log.info("creation of a snapshot of %s: %s", vm.name, error)


def _recent_tasks(wire: Wire, moref: str) -> list[str]:
    """Tasks that run, or ended lately: the VM's own list, and the manager's, which knows some a little earlier."""
    lists: list[Any] = [wire.object(vim.VirtualMachine, moref), wire.content.taskManager]
    rows = [properties.of_one(wire, subject, ["recentTask"]) for subject in lists if subject is not None]
    return list(dict.fromkeys(moref_of(recent) for row in rows for recent in row.get("recentTask") or ()))


def _creates_snapshot(session: Session, recent: task.Started, vm: Vm) -> bool:
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.Task, recent.moref), ["info"]))
    info = row.need("info")
    ours = info.entity is not None and moref_of(info.entity) == vm.moref
    return ours and "createsnapshot" in str(info.descriptionId).lower() and info.completeTime is None


def _persist(
    attempt: Callable[[], bool],
    failure: str,
    by_hand: str,
    clock: Clock,
    limits: Limits,
    given_up: Callable[[], bool],
) -> None:
    """Repeat an attempt until it says that nothing is left to do."""
    deadline = clock.monotonic() + limits.busy_s
    failures = 0
    error: ManagerError | CredentialsError
    pause_s = limits.pause_s
    while True:
        try:
            if attempt():
                return
            failures += 1  # done, as the manager says; the next round looks whether it is so
            error = ManagerError("the manager reports success, and nothing changes")
            if failures == 1:
                continue
        except (ManagerError, CredentialsError) as caught:
            error = caught
            trouble = trouble_of(error)
            waiting = trouble in (Trouble.BUSY, Trouble.CONNECTION, Trouble.SESSION) and clock.monotonic() < deadline
            failures += 0 if waiting else 1
            if trouble in (Trouble.PERMISSION, Trouble.TRUST, Trouble.GONE):  # gone: the VM itself
                failures = _FAILURES_MAX
            log.warning("%s: %s", failure, error)
        if failures >= _FAILURES_MAX or given_up():
            raise ManagerError(f"{failure}: {error}; {by_hand}", trouble=trouble_of(error)) from error
        pause(clock, pause_s, given_up)
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def pause(clock: Clock, pause_s: float, ended: Callable[[], bool]) -> None:
    """Sleep, in steps of a second, unless there is no more point in it."""
    until = clock.monotonic() + pause_s
    while not ended() and (left_s := until - clock.monotonic()) > 0:
        clock.sleep(min(left_s, 1.0))


def _remove(session: Session, vm: Vm, moref: str, waiting: Callable[[task.Started], Any]) -> None:
    def ask(wire: Any) -> Any:
        snapshot = wire.object(vim.vm.Snapshot, moref)
        return snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True)

    try:
        started = task.start(session, "RemoveSnapshot", vm.name, ask)
        waiting(started)
    except ManagerError as error:
        if trouble_of(error) is not Trouble.GONE:  # gone is what was wanted; the next look shows whether it is
            raise


def _needs_consolidation(session: Session, vm: Vm) -> bool:
    path = "runtime.consolidationNeeded"
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), [path]))
    return bool(row.get(path))


def _consolidate(session: Session, vm: Vm, waiting: Callable[[task.Started], Any]) -> None:
    started = task.start(
        session,
        "ConsolidateVMDisks",
        vm.name,
        lambda wire: wire.object(vim.VirtualMachine, vm.moref).ConsolidateVMDisks_Task(),
    )
    waiting(started)
