"""The backup of one VM: freeze, copy every disk, prove that nothing moved, release, commit.

    refusals ─▶ begin point ─▶ VM snapshot ─▶ each disk: open ─ copy ─ recheck ─▶ snapshot gone ─▶ commit
                                  │ any error or signal: snapshot removed, point aborted, nothing listed

The snapshot is held no longer than the reading takes: packs, index and trees are finished after it is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from jobs import manifest
from jobs.cleanup import manager_of
from jobs.eligibility import refusals, told
from jobs.outcome import DiskResult, Outcome, VmResult
from jobs.ownership import FrozenVm, JobRun, Registry
from jobs.standstill import Standstill
from jobs.watcher import Watcher
from vcbproxy.clock import Clock
from vcbproxy.config import Quiesce
from vcbproxy.errors import (
    Changed,
    Diverged,
    ManagerError,
    NothingProtected,
    SnapshotLeft,
    SourceError,
    Thawed,
)
from vcbproxy.extent import Kind
from vcbproxy.manager import snapshot as vm_snapshot
from vcbproxy.manager import vmconfig
from vcbproxy.manager.disk import Disk, refusal
from vcbproxy.manager.quiesce import Cause
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.vmconfig import VmConfig
from vcbproxy.pipeline import backup as pipeline
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import DiskWriter, PointInfo, PointWriter
from vcbproxy.source.configfiles import read_all, vss_manifests
from vcbproxy.source.storage import Storage
from vcbproxy.source.vmdisk import VmDisk, open_vm_disk

ATTEMPTS_MAX = 2
_AS_WANTED = (Cause.NOT_ASKED, Cause.POWERED_OFF)


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
    limits: vm_snapshot.Limits = field(default_factory=vm_snapshot.Limits)
    keep_going: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a backup works with; made once per job run."""

    session: Session
    storage: Storage
    target: RepositoryTarget
    rule: Rule
    job_run: JobRun
    registry: Registry
    clock: Clock
    watcher: Watcher


def back_up_vm(around: Surroundings, vm: Vm, choices: Choices) -> VmResult:
    """Back up one VM.

    Returns:
        What became of it; OK or PARTIAL means that its restore point is committed.

    Raises:
        SourceError: the VM could not be read; nothing was committed and no snapshot of ours is left.
        NothingProtected: it has no disk, or none that can be read.
        TargetError: the repository failed: the whole job run is over.
        Cancelled: likewise.
    """
    return _VmBackup(around, vm, choices).run()


class _VmBackup:
    def __init__(self, around: Surroundings, vm: Vm, choices: Choices) -> None:
        self._around = around
        self._vm = vm
        self._choices = choices
        self._disks: list[DiskResult] = []
        self._warnings: list[str] = []
        self._documents: list[dict[str, Any]] = []
        self._vmx_missing = False

    def run(self) -> VmResult:
        around, vm = self._around, self._vm
        started = around.clock.monotonic()
        vm_snapshot.refuse(vm, self._choices.quiesce)
        refused = self._refused()
        if vm.consolidation_needed:
            self._warn("its disks need consolidation since before this backup; that is done after it")
        point = PointInfo(vm.name, vm.instance_uuid, around.clock.now(), policy=self._choices.policy)
        left: str | None = None
        read = False
        with around.target.begin(point) as writer:
            try:
                self._step("freezing it by a snapshot")
                around.job_run.freezing(FrozenVm(manager_of(around.session), vm.moref, vm.name))
                with vm_snapshot.held(
                    around.session,
                    vm,
                    name=f"vcbproxy {around.job_run.marker.job_run_id}",
                    marker=around.job_run.marker,
                    quiesce=self._choices.quiesce,
                    clock=around.clock,
                    limits=self._choices.limits,
                ) as frozen:
                    since_s = around.clock.monotonic()
                    still = Standstill(around.session, vm, frozen, around.job_run.marker, around.clock, self._warn)
                    writer.taken_at(frozen.created)
                    self._step(f"frozen{', quiesced' if frozen.quiesced else ''}; reading it off the SAN")
                    try:
                        # Asked now: a manager that restarts in the hours of reading then spoils nothing.
                        known = vmconfig.capture(around.session, vm, frozen)
                        self._read(writer, frozen, refused, still)
                        config = self._config(writer, frozen, known)
                        read = True
                    finally:
                        self._step("read; releasing it" if read else "broken off; releasing it")
                around.job_run.released(vm.moref)
                self._step(f"released after {around.clock.monotonic() - since_s:.0f} s")
            except SnapshotLeft as error:
                if not read:
                    raise
                # All was read and checked before the removal failed: the point is good, and the operator is told.
                left = str(error)
                self._warn(f"its restore point is good, but: {left}")
            self._require_protection()
            document = manifest.document(around.job_run.marker, frozen, self._documents, self._disks, config)
            failed = [disk for disk in self._disks if disk.error is not None]
            committed = writer.commit(document, partial=bool(failed))
        return VmResult(
            vm=vm.name,
            outcome=Outcome.PARTIAL if failed or left or self._vmx_missing or still.added else Outcome.OK,
            disks=tuple(self._disks),
            point=committed.id,
            quiesced=frozen.quiesced,
            snapshot_left=left,
            warnings=tuple(self._warnings),
            seconds=around.clock.monotonic() - started,
        )

    def _refused(self) -> dict[str, str]:
        """Refuse what cannot be read before any snapshot is made.

        Raises:
            SourceError: some disk cannot be read, and the rest alone was not asked for.
            NothingProtected: there is no disk to read.
        """
        vm = self._vm
        refused = refusals(vm.disks, self._around.storage)
        if not vm.disks:
            raise NothingProtected(f"{vm.name} has no disk: there is nothing to protect")
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

    def _read(self, writer: PointWriter, frozen: VmSnapshot, refused: dict[str, str], still: Standstill) -> None:
        if frozen.unquiesced is not None and frozen.unquiesced.cause not in _AS_WANTED:
            self._warn(f"not quiesced, its disks are as after a power cut: {frozen.unquiesced}")
        # By the snapshot's own word too: a disk may have been made independent, or moved, since it was listed.
        refused = {**refused, **self._refused_when_frozen(frozen, refused)}
        if {disk.key for disk in frozen.disks} | set(refused) != {disk.key for disk in self._vm.disks}:
            missing = {disk.key for disk in self._vm.disks} - {disk.key for disk in frozen.disks} - set(refused)
            extra = {disk.key for disk in frozen.disks} - {disk.key for disk in self._vm.disks}
            changed = ", ".join(sorted(missing | extra))
            raise Changed(file=self._vm.name, reason=f"its disks changed as the snapshot was made: {changed}")
        for disk in frozen.disks:
            if disk.key in refused:
                self._disks.append(DiskResult(disk.key, disk.capacity_bytes, attempts=0, error=refused[disk.key]))
                self._warn(f"{disk.key} skipped: {refused[disk.key]}")
                continue
            self._copy(writer, still, disk)
        for key in sorted(set(refused) - {disk.key for disk in frozen.disks}):
            self._disks.append(DiskResult(key, 0, attempts=0, error=refused[key]))
            self._warn(f"{key} skipped: {refused[key]}")

    def _copy(self, writer: PointWriter, still: Standstill, disk: Disk) -> None:
        into = writer.disk(disk.key, disk.capacity_bytes)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                self._disks.append(self._copy_once(into, still, disk, attempt))
            except Thawed:
                raise  # --partial or not: what was not read yet stands still no more
            except Changed as error:
                again = None if attempt == ATTEMPTS_MAX or isinstance(error, Diverged) else still.anew(disk)
                if again is None:
                    self._give_up(into, disk, attempt, error)
                    return
                self._warn(f"{disk.key} is read again from its start: {error}")
                disk = again
            except SourceError as error:
                self._give_up(into, disk, attempt, error)
                return
            else:
                return

    def _give_up(self, into: DiskWriter, disk: Disk, attempts: int, error: SourceError) -> None:
        """Go on without a disk, where that was asked for.

        Raises:
            SourceError: it was not.
        """
        if not self._choices.partial:
            raise error
        into.abandon()
        self._disks.append(DiskResult(disk.key, disk.capacity_bytes, attempts=attempts, error=str(error)))
        self._warn(f"{disk.key} failed: {error}")

    def _copy_once(self, into: DiskWriter, still: Standstill, disk: Disk, attempt: int) -> DiskResult:
        try:
            return self._copied(into, still, disk, attempt)
        except (Changed, ManagerError):
            raise
        except SourceError as error:
            still.explain(disk, error)
            raise

    def _copied(self, into: DiskWriter, still: Standstill, disk: Disk, attempt: int) -> DiskResult:
        around = self._around
        with open_vm_disk(around.storage, disk, around.clock) as source:
            with around.watcher.disk(f"{self._vm.name} {disk.key}", source.size_bytes) as advance:
                content = pipeline.copy_disk(
                    source,
                    into,
                    around.rule,
                    options=pipeline.Options(workers=self._choices.workers),
                    progress=lambda seen: advance(seen.bytes_done),
                    interrupt=around.storage.patience.interrupt,
                )
            still.confirm(source, disk)
            if content.stats.bytes_read == 0 and _has_data(source):
                raise NothingProtected(f"{source.name}: nothing was read from a disk that has data")
            into.finish(content.ids, content.lengths)
            links = source.links
        stats = content.stats
        self._documents.append(manifest.disk_document(disk, links, stats, around.rule))
        return DiskResult(disk.key, stats.bytes_total, stats.bytes_read, stats.bytes_stored, attempt)

    def _config_files(self, frozen: VmSnapshot, config: VmConfig) -> tuple[dict[str, bytes], dict[str, str]]:
        paths = [file.path for file in config.files]
        unknown: dict[str, str] = {}
        if frozen.quiesced:
            try:
                paths += vss_manifests(self._around.storage, paths[0])
            except SourceError as error:
                unknown["*-vss_manifests*.zip"] = str(error)
        found, failed = read_all(self._around.storage, paths)
        return found, failed | unknown

    def _config(self, writer: PointWriter, frozen: VmSnapshot, config: VmConfig) -> dict[str, Any]:
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

    def _require_protection(self) -> None:
        if not any(disk.error is None for disk in self._disks):
            raise NothingProtected(f"{self._vm.name}: no disk was read")

    def _step(self, message: str) -> None:
        self._around.watcher.step(f"{self._vm.name}: {message}")

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._around.watcher.said(f"{self._vm.name}: {message}")


def _has_data(source: VmDisk) -> bool:
    return any(extent.kind is not Kind.ZERO for extent in source.extents())
