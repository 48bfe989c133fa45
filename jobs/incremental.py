"""Which disk is read by which method, and from which base: decided as far as it can be before the VM is frozen.

    before the snapshot   look for each disk's base; `incremental` fails here when one is missing
    right after it        ask which areas changed since; all disks at once: a manager that restarts in the hours of
                          reading then spoils nothing
    an answer             ─▶ Plan(base, areas)
    none                  ─▶ Plan(full, because …), or the disk fails where that was asked for

What the manager cannot tell costs time, never a backup: unless told otherwise the disk is read whole, which dedup makes
cheap in space, and the restore point says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from jobs.bases import DiskBase, VmHistory
from jobs.choices import Surroundings
from jobs.tracking import Tracking
from vcbproxy.config import Mode, OnCbtLost
from vcbproxy.errors import ChangesUnknown, ManagerError, SourceError
from vcbproxy.manager import changes, tracking
from vcbproxy.manager.changes import ChangeId
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.removal import Limits
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.pipeline.areas import Areas


@dataclass(frozen=True, slots=True)
class Plan:
    """How one disk is to be read.

    Attributes:
        base: what it grows out of; None: it is read whole.
        changed: what of it is read, with a base; without: what was ever written of it, where that is to be relied on.
        full_because: why there is no base, when one would have been used.
        failure: it is not to be read at all.
    """

    base: DiskBase | None = None
    changed: Areas | None = None
    full_because: str | None = None
    failure: SourceError | None = None


class Planner:
    """The plans for one VM's disks."""

    def __init__(
        self,
        around: Surroundings,
        vm: Vm,
        wanted: Tracking,
        limits: Limits,
        history: VmHistory,
        warn: Callable[[str], None],
    ) -> None:
        self._around = around
        self._vm = vm
        self._wanted = wanted
        self._limits = limits
        self._history = history
        self._warn = warn
        self._tracked = vm.change_tracking
        self._bases: dict[str, DiskBase | str] = {}

    def prepare(self, refused: Collection[str]) -> None:
        """Before the snapshot: find the bases, and switch tracking on if that is wanted.

        Args:
            refused: the disks that are left out.

        Raises:
            SourceError: only what changed is to be read, and some disk has no base.
        """
        if self._wanted.mode is not Mode.FULL:
            readable = [disk for disk in self._vm.disks if disk.key not in refused]
            self._bases = {disk.key: self._base(disk) for disk in readable}
            self._require_bases()
        if self._wanted.enable and not self._tracked and tracking.hindrance(self._vm) is None:
            self._enable()

    def plans(self, frozen: VmSnapshot, disks: Sequence[Disk]) -> dict[str, Plan]:
        """Under the snapshot: a plan for each of its disks that is to be read."""
        return {disk.key: self._plan(frozen, disk) for disk in disks}

    def _base(self, disk: Disk) -> DiskBase | str:
        untracked = None if self._tracked else self._untracked()
        if untracked is not None and self._wanted.on_lost is OnCbtLost.FULL:
            return untracked
        found = self._history.base_for(disk, self._vm.disks)
        return found if isinstance(found, DiskBase) else untracked or found  # with a base, that is lost: see _changed

    def _untracked(self) -> str | None:
        """Why its changes are not tracked, and will not be; None when tracking can be switched on."""
        hindrance = tracking.hindrance(self._vm)
        if not self._wanted.enable:
            return "its changes are not tracked (--enable-cbt lets them be)"
        return None if hindrance is None else f"its changes cannot be tracked: {hindrance}"

    def _require_bases(self) -> None:
        if self._wanted.mode is not Mode.INCREMENTAL:
            return
        lacking = {key: found for key, found in self._bases.items() if isinstance(found, str)}
        if lacking:
            told = "; ".join(f"{key}: {reason}" for key, reason in lacking.items())
            raise SourceError(f"{self._vm.name}: only what changed was to be read: {told}; --mode auto reads it whole")

    def _enable(self) -> None:
        try:
            tracking.enable(self._around.session, self._vm, clock=self._around.clock, limits=self._limits)
        except ManagerError as error:
            self._warn(f"its changes cannot be tracked from now on: {error}")
        else:
            self._tracked = True

    def _plan(self, frozen: VmSnapshot, disk: Disk) -> Plan:
        if self._wanted.mode is Mode.FULL:
            return Plan()
        base = self._bases.get(disk.key, "it came as the snapshot was made")
        seen = next((live for live in self._vm.disks if live.key == disk.key), None)
        if seen is None or (seen.uuid, seen.capacity_bytes) != (disk.uuid, disk.capacity_bytes):
            base = "it was changed as the snapshot was made"
        if isinstance(base, str):
            return self._without_base(frozen, disk, base)
        try:
            return Plan(base, self._changed(frozen, disk, base))
        except ChangesUnknown as error:
            reason = str(error.facts["reason"])
        if self._wanted.mode is Mode.INCREMENTAL or self._wanted.on_lost is OnCbtLost.FAIL:
            remedy = "--mode full reads it whole, and the next is incremental again"
            failure = f"{self._vm.name} {disk.key}: what changed since {base.name} is not known: {reason}"
            return Plan(failure=SourceError(f"{failure}; {remedy}"))
        self._warn(f"{disk.key} is read whole: {reason}")
        return Plan(full_because=reason)

    def _changed(self, frozen: VmSnapshot, disk: Disk, base: DiskBase) -> Areas:
        """What changed since the base.

        Raises:
            ChangesUnknown: nobody can tell.
        """
        if disk.change_id is None:
            reason = "its changes are tracked no more (--enable-cbt lets them be)"
            raise ChangesUnknown(disk=disk.key, reason=reason, cause=changes.Cause.UNTRACKED)
        # As it was found: whether hosts then go on with the tracker that they had is not documented.
        if not self._vm.change_tracking:
            reason = f"its changes were not tracked all the time since {base.name}"
            raise ChangesUnknown(disk=disk.key, reason=reason, cause=changes.Cause.UNTRACKED)
        if not ChangeId.parse(disk.change_id).follows(base.change_id):
            reason = f"its changes are counted anew since {base.name}, as after a revert, a Storage "
            reason += "vMotion, a crash of its host or a LUN that its array rolled back"
            raise ChangesUnknown(disk=disk.key, reason=reason, cause=changes.Cause.FOREIGN)
        told = changes.changed(self._around.session, self._vm, frozen, disk, base.change_id.text, self._around.clock)
        return Areas.of(told, disk.capacity_bytes)

    def _without_base(self, frozen: VmSnapshot, disk: Disk, reason: str) -> Plan:
        if not (self._wanted.allocated_only and disk.change_id):
            return Plan(full_because=reason)
        try:
            told = changes.changed(self._around.session, self._vm, frozen, disk, changes.EVERYTHING, self._around.clock)
        except ChangesUnknown as error:
            self._warn(f"all of {disk.key} is read, not only what is in use: {error.facts['reason']}")
            return Plan(full_because=reason)
        return Plan(changed=Areas.of(told, disk.capacity_bytes), full_because=reason)
