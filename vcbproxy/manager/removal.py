"""Finding our snapshots and removing them, whatever it takes: the second half of ``lifecycle``, carried out.

    AWAITED ──▶ what may be on its way has arrived
    REMOVING ──▶ look for the marker ──none──▶ CONSOLIDATING ──▶ links that nobody needs? ──none──▶ GONE
                   ▲     └─found──▶ RemoveSnapshot ─┐               ▲        └─some─▶ Consolidate ─┐
                   └── pause ◀── busy, lost, fault ─┘               └── pause ◀────────────────────┘

Every round looks anew: a request whose answer was lost may have been carried out. A snapshot without our marker is
never touched; children of ours (a snapshot somebody took meanwhile) stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyVmomi import vim

from vcbproxy.clock import Clock
from vcbproxy.errors import CredentialsError, ManagerError, SnapshotLeft, TaskFailed
from vcbproxy.manager import convert, properties, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.lifecycle import ENDS, REMEDIES, Event, State, after
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session
from vcbproxy.manager.tries import PAUSE_MAX_S, Limits, Tries, pause
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.wire import Wire, moref_of

__all__ = [
    "PAUSE_MAX_S",
    "Limits",
    "OurSnapshot",
    "await_creation",
    "consolidate",
    "find_ours",
    "needs_consolidation",
    "pause",
    "remove_marked",
]

log = logging.getLogger(__name__)


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


def needs_consolidation(session: Session, vm: Vm) -> bool:
    """Whether the VM's disks have links that no snapshot needs: a removal whose merge failed leaves them."""
    path = "runtime.consolidationNeeded"
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), [path]))
    return bool(row.get(path))


def remove_marked(
    session: Session,
    vm: Vm,
    marker: Marker,
    *,
    clock: Clock,
    limits: Limits,
    unsure: bool = False,
    given_up: Callable[[], bool] = task.never,
) -> int:
    """Remove every snapshot of the VM with exactly this marker, and consolidate if the manager asks for it.

    Args:
        session: where the VM is.
        vm: whose snapshots.
        marker: whose removal is wanted.
        clock: paces the attempts.
        limits: how long.
        unsure: one may be on its way through the manager: wait for that first.
        given_up: asked between attempts; true: try no more.

    Returns:
        How many there were. None, where one was under way for all we know, may mean that it comes yet.

    Raises:
        SnapshotLeft: it is still there, or the disks still need consolidation; the message says what to do by hand.
    """
    removal = _Removal(session, vm, marker, clock, limits, given_up)
    removal.run(State.AWAITED if unsure else State.REMOVING)
    return len(removal.seen)


def consolidate(
    session: Session, vm: Vm, *, clock: Clock, limits: Limits, given_up: Callable[[], bool] = task.never
) -> None:
    """Merge the links that no snapshot needs, if there are any; snapshots are left alone.

    Raises:
        SnapshotLeft: there still are.
    """
    _Removal(session, vm, None, clock, limits, given_up).run(State.CONSOLIDATING)


@dataclass(slots=True)
class _Removal:
    """One run from AWAITED, REMOVING or CONSOLIDATING to an end."""

    session: Session
    vm: Vm
    marker: Marker | None
    clock: Clock
    limits: Limits
    given_up: Callable[[], bool]
    settled: bool = False
    seen: set[str] = field(default_factory=set)

    def run(self, state: State) -> None:
        steps = {State.AWAITED: self._arrived, State.REMOVING: self._removed, State.CONSOLIDATING: self._consolidated}
        tries = Tries(self.clock, self.limits, self.given_up)
        while state not in ENDS:
            before, state = state, after(state, self._once(steps[state], tries))
            if state is State.STUCK:
                raise self._stuck(before, tries)
            if state is before:
                tries.pause()
            else:
                tries = Tries(self.clock, self.limits, self.given_up)

    def _once(self, step: Callable[[], bool], tries: Tries) -> Event:
        try:
            return Event.DONE if step() else tries.without_effect()
        except (ManagerError, CredentialsError) as error:
            return tries.failed(error)

    def _stuck(self, state: State, tries: Tries) -> SnapshotLeft:
        what = {
            State.AWAITED: f"a snapshot of {self.vm.name} may still be under way",
            State.REMOVING: f"the snapshot {self.marker} of {self.vm.name} is not removed",
            State.CONSOLIDATING: f"the disks of {self.vm.name} still need consolidation",
        }[state]
        message = f"{what}: {tries.error}; {REMEDIES[state]}"
        log.error("%s", message)
        left = SnapshotLeft(message, trouble=trouble_of(tries.error), stuck_in=state)
        left.__cause__ = tries.error
        return left

    # The steps: each looks first, and is done only when there is nothing left to do.

    def _arrived(self) -> bool:
        await_creation(self.session, self.vm, clock=self.clock, limits=self.limits, given_up=self.given_up)
        if not self.settled:
            self.settled = True
            pause(self.clock, self.limits.settle_s, self.given_up)
            await_creation(self.session, self.vm, clock=self.clock, limits=self.limits, given_up=self.given_up)
        return True

    def _removed(self) -> bool:
        ours = [snapshot for snapshot in find_ours(self.session, self.vm) if snapshot.marker == self.marker]
        for snapshot in ours:
            self.seen.add(snapshot.moref)
            log.info("removing the snapshot %r of %s", snapshot.name, self.vm.name)
            try:
                self._wait(task.start(self.session, "RemoveSnapshot", self.vm.name, _removal_of(snapshot.moref)))
            except ManagerError as error:
                if trouble_of(error) is not Trouble.GONE:  # gone is what was wanted; the next look shows whether it is
                    raise
        return not ours

    def _consolidated(self) -> bool:
        if not needs_consolidation(self.session, self.vm):
            return True
        log.info("consolidating the disks of %s", self.vm.name)
        self._wait(task.start(self.session, "ConsolidateVMDisks", self.vm.name, _consolidation_of(self.vm.moref)))
        return False

    def _wait(self, started: task.Started) -> None:
        limits, given_up = self.limits, self.given_up
        task.wait(self.session, started, clock=self.clock, limit_s=limits.remove_s, given_up=given_up)


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
    """Whether a task is a snapshot's creation on this VM, under way. Others' tasks are not read any further than that.

    What they came to may be of a type that only a newer client knows, and must not keep us from cleaning up.
    """
    paths = ["info.entity", "info.descriptionId", "info.completeTime"]
    row = session.read(lambda wire: properties.of_one(wire, wire.object(vim.Task, recent.moref), paths))
    entity = row.get("info.entity")
    ours = entity is not None and moref_of(entity) == vm.moref
    return ours and "createsnapshot" in str(row.get("info.descriptionId")).lower() and not row.get("info.completeTime")


def _removal_of(moref: str) -> Callable[[Wire], Any]:
    def ask(wire: Wire) -> Any:
        return wire.object(vim.vm.Snapshot, moref).RemoveSnapshot_Task(removeChildren=False, consolidate=True)

    return ask


def _consolidation_of(moref: str) -> Callable[[Wire], Any]:
    return lambda wire: wire.object(vim.VirtualMachine, moref).ConsolidateVMDisks_Task()
