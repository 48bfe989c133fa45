"""Removing what dead job runs left at the manager: VM snapshots with our marker, and disks they left unconsolidated.

    snapshot with our marker ─▶ whose?  this state directory ──▶ its lock is held ───▶ kept: a job run is at work
                                 │                            └▶ free ──────────────▶ removed
                                 └ another proxy, or unknown ─▶ kept, unless its host was named and it is old enough

First the snapshots are listed, then the locks are looked at: a job run takes its lock before its first snapshot, so a
snapshot that was seen, and whose lock is free, is nobody's any more. Right before a removal the lock is looked at once
more. Snapshots without our marker are never touched; neither are consolidations that no job run of ours caused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from jobs.ownership import FrozenVm, Life, Registry
from vcbproxy.clock import Clock
from vcbproxy.errors import CredentialsError, ManagerError
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.overview import Leftover, MarkedSnapshot
from vcbproxy.manager.removal import Limits, await_creation, remove_marked
from vcbproxy.manager.session import Session

log = logging.getLogger(__name__)

AGE_MIN = timedelta(hours=24)


class Action(Enum):
    """What is to be done, or was done."""

    REMOVE = "remove"
    CONSOLIDATE = "consolidate"
    KEEP = "keep"
    REMOVED = "removed"
    CONSOLIDATED = "consolidated"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Rules:
    """How far a clean-up may go.

    Attributes:
        foreign_hosts: proxies (as in the marker) whose snapshots may go although nobody here sees their job runs.
        age_min: ... once they are that old, by the manager's own clock.
        morefs: only on these VMs; None: on all.
    """

    foreign_hosts: frozenset[str] = frozenset()
    age_min: timedelta = AGE_MIN
    morefs: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing of ours that was left on a VM.

    Attributes:
        snapshot: its name and age; None when only the disks need consolidation.
        marker: whose it is; None when that is not told.
        overdue: kept by the rules, and yet older than any backup should take.
    """

    vm: str
    moref: str
    action: Action
    reason: str
    marker: Marker | None = None
    snapshot: MarkedSnapshot | None = None
    overdue: bool = False


class Cleanup:
    """One look at everything, and then what is to be done about it."""

    def __init__(self, session: Session, registry: Registry, rules: Rules, clock: Clock) -> None:
        self._session = session
        self._registry = registry
        self._rules = rules
        self._clock = clock
        self._manager = manager_of(session)
        self._left: Mapping[Marker, tuple[FrozenVm, ...]] = {}
        self._unsettled: set[str] = set()

    def settle(self) -> None:
        """Wait for snapshots that a killed job run had asked for and that are still coming into being.

        A VM of which that cannot be told hides no other; its job run is then not forgotten.
        """
        waited: set[str] = set()
        for frozen in self._registry.left_behind().values():
            for vm in frozen:
                if vm.manager == self._manager and self._wanted(vm.moref) and vm.moref not in waited:
                    waited.add(vm.moref)
                    self._await(vm)

    def _await(self, vm: FrozenVm) -> None:
        try:
            known = inventory.get(self._session, vm.moref)
            await_creation(self._session, known, clock=self._clock, limits=Limits())
        except ManagerError as error:
            if trouble_of(error) is not Trouble.GONE:
                self._unsettled.add(vm.moref)
                log.warning("whether a snapshot of %s is still under way is not known: %s", vm.name, error)

    def survey(self) -> list[Finding]:
        """What there is, and what should become of it; changes nothing.

        Raises:
            ManagerError: the manager does not tell.
        """
        there = {vm.moref: vm for vm in overview.leftovers(self._session) if self._wanted(vm.moref)}  # before any lock
        self._left = self._registry.left_behind()
        now = overview.current_time(self._session)
        findings = [finding for vm in there.values() for finding in self._snapshots(vm, now)]
        busy = {finding.moref for finding in findings}
        for marker, frozen in self._left.items():
            for vm in frozen:
                if vm.moref not in busy and self._needs_consolidation(vm, there):
                    busy.add(vm.moref)
                    reason = "its disks still need consolidation after a backup that broke off"
                    findings.append(Finding(vm.name, vm.moref, Action.CONSOLIDATE, reason, marker))
        return findings

    def carry_out(self, findings: Collection[Finding]) -> Iterator[Finding]:
        """Do it, one after the other; each comes back with what became of it. Failures are part of that."""
        results = []
        for finding in findings:
            done = self._carry_out(finding) if finding.action in (Action.REMOVE, Action.CONSOLIDATE) else finding
            results.append(done)
            yield done
        unclean = {done.moref for done in results if done.action in (Action.KEEP, Action.FAILED)}
        self._sweep(unclean | self._unsettled)

    def _wanted(self, moref: str) -> bool:
        return self._rules.morefs is None or moref in self._rules.morefs

    def _snapshots(self, vm: Leftover, now: datetime) -> Iterator[Finding]:
        if vm.untold is not None:
            reason = f"the manager does not tell its snapshots: {vm.untold}"
            yield Finding(vm.name, vm.moref, Action.FAILED, reason)
        for snapshot in vm.snapshots:
            action, reason, overdue = self._judge(snapshot, now)
            yield Finding(vm.name, vm.moref, action, reason, snapshot.marker, snapshot, overdue)

    def _judge(self, snapshot: MarkedSnapshot, now: datetime) -> tuple[Action, str, bool]:
        marker = snapshot.marker
        match self._registry.life(marker):
            case Life.ALIVE:
                return Action.KEEP, "its backup is running", False
            case Life.DEAD:
                return Action.REMOVE, "its backup broke off", False
        if self._registry.knows(marker):
            return Action.KEEP, "whether its backup is running cannot be told: its lock cannot be looked at", False
        age = now - snapshot.created
        told = f"made {_told(age)} ago by {marker.host}, whose job runs cannot be seen from here"
        if marker.host not in self._rules.foreign_hosts:
            return (
                Action.KEEP,
                f"{told}; clean up there, or `cleanup --foreign {marker.host}`",
                age >= self._rules.age_min,
            )
        if age < self._rules.age_min:
            return Action.KEEP, f"{told}; younger than --min-age", False
        return Action.REMOVE, told, False

    def _needs_consolidation(self, vm: FrozenVm, there: Mapping[str, Leftover]) -> bool:
        known = there.get(vm.moref)
        return vm.manager == self._manager and known is not None and known.consolidation_needed

    def _carry_out(self, finding: Finding) -> Finding:
        assert finding.marker is not None
        if self._registry.knows(finding.marker) and self._registry.life(finding.marker) is not Life.DEAD:
            return replace(finding, action=Action.KEEP, reason="its backup is running")
        try:
            vm = inventory.get(self._session, finding.moref)
            remove_marked(self._session, vm, finding.marker, clock=self._clock, limits=Limits())
        except (ManagerError, CredentialsError) as error:
            return replace(finding, action=Action.FAILED, reason=str(error))
        done = Action.REMOVED if finding.action is Action.REMOVE else Action.CONSOLIDATED
        return replace(finding, action=done)

    def _sweep(self, unclean: Collection[str]) -> None:
        """Forget the dead job runs of which nothing is left; only those that the survey saw."""
        for marker, frozen in self._left.items():
            ours = [vm for vm in frozen if vm.manager == self._manager]
            seen = len(ours) == len(frozen) and all(self._wanted(vm.moref) for vm in ours)
            if seen and not any(vm.moref in unclean for vm in ours):
                self._registry.forget(marker)


def manager_of(session: Session) -> str:
    """How job runs note which manager a VM is at."""
    return session.instance_uuid or session.address.host


def _told(age: timedelta) -> str:
    minutes = max(0, int(age.total_seconds() // 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 72 * 60 else f"{age.days} days"
