"""The backup of one VM: freeze, copy every disk, prove that nothing moved, release, commit.

    refusals ─▶ begin point ─▶ VM snapshot ─▶ each disk: open ─ copy ─ recheck ─▶ snapshot gone ─▶ commit
                                  │ any error or signal: snapshot removed, point aborted, nothing listed

The snapshot is held no longer than the reading takes: packs, index and trees are finished after it is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from jobs import manifest
from jobs.bases import History
from jobs.choices import Choices, Surroundings
from jobs.cleanup import manager_of
from jobs.copying import DiskCopier
from jobs.eligibility import refusals, told
from jobs.incremental import Planner
from jobs.outcome import Outcome, VmResult
from jobs.ownership import FrozenVm
from jobs.standstill import Standstill
from jobs.target import Committed, Lane, PointInto
from vcbproxy.errors import Changed, ManagerError, NothingProtected, SnapshotLeft, SourceError
from vcbproxy.manager import snapshot as vm_snapshot
from vcbproxy.manager import vmconfig
from vcbproxy.manager.disk import refusal
from vcbproxy.manager.quiesce import Cause
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.vmconfig import VmConfig
from vcbproxy.repository.writer import PointInfo
from vcbproxy.source.configfiles import read_all, vss_manifests

_AS_WANTED = (Cause.NOT_ASKED, Cause.POWERED_OFF)


def back_up_vm(around: Surroundings, lane: Lane, vm: Vm, choices: Choices, history: History) -> VmResult:
    """Back up one VM.

    Args:
        around: what to work with.
        lane: where it goes.
        vm: as it is now.
        choices: how.
        history: the restore points that it may grow out of.

    Returns:
        What became of it; OK or PARTIAL means that its restore point is committed.

    Raises:
        SourceError: the VM could not be read; nothing was committed and no snapshot of ours is left.
        NothingProtected: it has no disk, or none that can be read.
        TargetError: the target failed: the whole job run is over.
        Cancelled: likewise.
    """
    return _VmBackup(around, lane, vm, choices, history).run()


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was read of a VM while it was frozen; ``left``: why its snapshot is there still, if it is."""

    frozen: VmSnapshot
    still: Standstill
    copier: DiskCopier
    config: dict[str, Any]
    left: str | None = None


class _VmBackup:
    def __init__(self, around: Surroundings, lane: Lane, vm: Vm, choices: Choices, history: History) -> None:
        self._around = around
        self._lane = lane
        self._vm = vm
        self._choices = choices
        self._history = history
        self._warnings: list[str] = []
        self._vmx_missing = False

    def run(self) -> VmResult:
        started_s = self._around.clock.monotonic()
        vm_snapshot.refuse(self._vm, self._choices.quiesce)
        refused = self._refused()
        if self._vm.consolidation_needed:
            self._warn("its disks need consolidation since before this backup; that is done after it")
        point = PointInfo(self._vm.name, self._vm.instance_uuid, self._around.clock.now(), policy=self._choices.policy)
        with self._lane.begin(point) as writer:
            taken = self._taken(writer, refused)
            committed = self._commit(writer, taken)
        return self._result(taken, committed, self._around.clock.monotonic() - started_s)

    def _taken(self, writer: PointInto, refused: dict[str, str]) -> _Taken:
        """Freeze it, read it, and release it; what was read is good, even if the snapshot could not be removed."""
        around, vm, choices = self._around, self._vm, self._choices
        history = self._history.of(vm.instance_uuid, around.session.instance_uuid)
        if history.unknown:
            self._warn(f"{history.unknown}; it grows out of none of them: run `vcbproxy repo check`")
        planner = Planner(around, vm, choices.tracking, choices.limits, history, self._warn)
        planner.prepare(refused)
        taken: _Taken | None = None
        try:
            self._step("freezing it by a snapshot")
            around.job_run.freezing(FrozenVm(manager_of(around.session), vm.moref, vm.name))
            with vm_snapshot.held(
                around.session,
                vm,
                name=f"vcbproxy {around.job_run.marker.job_run_id}",
                marker=around.job_run.marker,
                quiesce=choices.quiesce,
                clock=around.clock,
                limits=choices.limits,
            ) as frozen:
                since_s = around.clock.monotonic()
                still = Standstill(around.session, vm, frozen, around.job_run.marker, around.clock, self._warn)
                copier = DiskCopier(around, writer, vm, choices, history, still, self._warn)
                writer.taken_at(frozen.created)
                self._step(f"frozen{', quiesced' if frozen.quiesced else ''}; reading it off the SAN")
                try:
                    # Asked now: a manager that restarts in the hours of reading then spoils nothing.
                    known = vmconfig.capture(around.session, vm, frozen)
                    self._read(frozen, refused, planner, copier)
                    taken = _Taken(frozen, still, copier, self._config(writer, frozen, known))
                finally:
                    self._step("read; releasing it" if taken is not None else "broken off; releasing it")
            around.job_run.released(vm.moref)
            self._step(f"released after {around.clock.monotonic() - since_s:.0f} s")
        except SnapshotLeft as error:
            if taken is None:
                raise
            # All was read and checked before the removal failed: the point is good, and the operator is told.
            taken = replace(taken, left=str(error))
            self._warn(f"its restore point is good, but: {taken.left}")
        return taken

    def _result(self, taken: _Taken, committed: Committed, seconds: float) -> VmResult:
        copied = taken.copier.copied
        partial = bool(copied.failed or taken.left or self._vmx_missing or taken.still.added)
        return VmResult(
            vm=self._vm.name,
            outcome=Outcome.PARTIAL if partial else Outcome.ALARM if copied.alarmed else Outcome.OK,
            disks=tuple(copied.results),
            point=committed.id,
            media=committed.media,
            quiesced=taken.frozen.quiesced,
            snapshot_left=taken.left,
            warnings=tuple(self._warnings),
            suspects=tuple(point.name for point in copied.suspects),
            seconds=seconds,
        )

    def _commit(self, writer: PointInto, taken: _Taken) -> Committed:
        """Make it a restore point.

        Raises:
            NothingProtected: no disk was read.
            TargetError: it could not be stored.
        """
        copied = taken.copier.copied
        if len(copied.failed) == len(copied.results):
            raise NothingProtected(f"{self._vm.name}: no disk was read")
        suspects = [point.original for point in copied.suspects]
        document = manifest.document(
            self._around.job_run.marker, taken.frozen, copied.documents, copied.results, taken.config, suspects
        )
        return writer.commit(document, partial=bool(copied.failed))

    def _refused(self) -> dict[str, str]:
        """Refuse what cannot be read before any snapshot is made.

        Raises:
            SourceError: some disk cannot be read, and the rest alone was not asked for.
            NothingProtected: there is no disk to read.
        """
        vm = self._vm
        refused = refusals(vm.disks, self._around.storage)
        if not vm.disks:
            raise NothingProtected(
                f"{vm.name} has no disk: there is nothing to protect; not:moref:{vm.moref} leaves it out of a set"
            )
        if len(refused) == len(vm.disks) or (refused and not self._choices.partial):
            hint = "" if len(refused) == len(vm.disks) else "; --partial backs up the other disks alone"
            raise SourceError(f"{vm.name}: {told(vm.disks, refused)}{hint}")
        return refused

    def _refused_when_frozen(self, frozen: VmSnapshot, known: Collection[str]) -> dict[str, str]:
        """What has become unreadable since the VM was looked at.

        Raises:
            SourceError: something has, and the rest alone was not asked for.
        """
        found = {disk.key: refusal(disk) for disk in frozen.disks if disk.key not in known}
        new = {key: reason for key, reason in found.items() if reason is not None}
        if new and not self._choices.partial:
            raise SourceError(f"{self._vm.name}: {told(frozen.disks, new)}; --partial backs up the other disks alone")
        return new

    def _read(self, frozen: VmSnapshot, refused: dict[str, str], planner: Planner, copier: DiskCopier) -> None:
        if frozen.unquiesced is not None and frozen.unquiesced.cause not in _AS_WANTED:
            self._warn(f"not quiesced, its disks are as after a power cut: {frozen.unquiesced}")
        # By the snapshot's own word too: a disk may have been made independent, or moved, since it was listed.
        refused = {**refused, **self._refused_when_frozen(frozen, refused)}
        if {disk.key for disk in frozen.disks} | set(refused) != {disk.key for disk in self._vm.disks}:
            missing = {disk.key for disk in self._vm.disks} - {disk.key for disk in frozen.disks} - set(refused)
            extra = {disk.key for disk in frozen.disks} - {disk.key for disk in self._vm.disks}
            changed = ", ".join(sorted(missing | extra))
            raise Changed(file=self._vm.name, reason=f"its disks changed as the snapshot was made: {changed}")
        readable = [disk for disk in frozen.disks if disk.key not in refused]
        plans = planner.plans(frozen, readable)
        failures = [plan.failure for plan in plans.values() if plan.failure is not None]
        if failures and not self._choices.partial:
            raise failures[0]
        for disk in frozen.disks:
            if disk.key in refused:
                copier.leave_out(disk.key, disk.capacity_bytes, refused[disk.key])
            else:
                copier.copy(disk, plans[disk.key])
        for key in sorted(set(refused) - {disk.key for disk in frozen.disks}):
            copier.leave_out(key, 0, refused[key])

    def _config_files(self, frozen: VmSnapshot, config: VmConfig) -> tuple[dict[str, bytes], dict[str, str]]:
        storage = self._around.storage.seen_by(frozen.disks)
        paths = [file.path for file in config.files]
        unknown: dict[str, str] = {}
        if frozen.quiesced:
            try:
                paths += vss_manifests(storage, paths[0])
            except SourceError as error:
                unknown["*-vss_manifests*.zip"] = str(error)
        found, failed = read_all(storage, paths)
        return found, failed | unknown

    def _config(self, writer: PointInto, frozen: VmSnapshot, config: VmConfig) -> dict[str, Any]:
        found, failed = self._config_files(frozen, config)
        if failed:
            with contextlib.suppress(ManagerError):  # the VM may have moved since
                config = vmconfig.capture(self._around.session, self._vm, frozen)
                found, failed = self._config_files(frozen, config)
        for name, data in found.items():
            writer.file(name, data)
        for name, reason in failed.items():
            self._warn(f"configuration file {name} was not kept: {reason}")
        self._vmx_missing = any(file.role is vmconfig.Role.VMX and file.path.name in failed for file in config.files)
        return {**config.document, "files": sorted(found), "files_missing": failed}

    def _step(self, message: str) -> None:
        self._around.watcher.step(f"{self._vm.name}: {message}")

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._around.watcher.said(f"{self._vm.name}: {message}")
