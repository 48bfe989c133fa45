"""Copying the disks of a frozen VM, each by its plan, and proving that none of them moved meanwhile.

    plan: whole        open ─▶ copy all ───────────────────────────────▶ stood still? ─▶ kept
    plan: incremental  open ─▶ audit ──as told──▶ copy what changed ───▶ stood still? ─▶ kept
                                └──differs──▶ stood still? ──yes──▶ ALARM: copy all ─▶ …
                                                  └──no───▶ it was moved: read again

An audit that finds a difference in a disk that stood still proves that the list of changes was not whole, now or for
some restore point before: those that rest on such lists are suspect, and this one is read whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from jobs import manifest
from jobs.bases import DiskBase, VmHistory
from jobs.choices import Choices, Surroundings
from jobs.incremental import Plan
from jobs.outcome import AuditResult, DiskResult
from jobs.standstill import Standstill
from jobs.target import DiskInto, Effort, PastPoint, PointInto, Sample, Taken
from vcbproxy.config import Mode, OnCbtLost
from vcbproxy.device import MappedDevice
from vcbproxy.errors import Changed, Diverged, IntegrityError, ManagerError, NothingProtected, SourceError, Thawed
from vcbproxy.extent import Kind
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.vm import Vm
from vcbproxy.pipeline.allocated import Allocated, audit_unused
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.source.vmdisk import VmDisk, open_vm_disk

ATTEMPTS_MAX = 2
_SEED_BITS = 48  # any JSON reader keeps so large a number whole


@dataclass(slots=True)
class Copied:
    """What came of a VM's disks so far.

    Attributes:
        results: of each disk that was tried.
        documents: what the manifest says of those that were copied.
    """

    results: list[DiskResult] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    _suspects: dict[str, PastPoint] = field(default_factory=dict)

    @property
    def failed(self) -> list[DiskResult]:
        """Those that were not copied."""
        return [result for result in self.results if result.error is not None]

    @property
    def alarmed(self) -> bool:
        """Whether an audit found a difference."""
        return any(result.audit is not None and result.audit.differing for result in self.results)

    @property
    def suspects(self) -> list[PastPoint]:
        """Restore points that an audit found not to be relied upon, oldest first."""
        return sorted(self._suspects.values(), key=lambda point: point.time)

    def suspect(self, points: Iterable[PastPoint]) -> None:
        """Note some more of these."""
        self._suspects.update((point.id, point) for point in points)


class DiskCopier:
    """Copies the disks of one VM under one snapshot."""

    def __init__(
        self,
        around: Surroundings,
        writer: PointInto,
        vm: Vm,
        choices: Choices,
        history: VmHistory,
        still: Standstill,
        warn: Callable[[str], None],
    ) -> None:
        self.copied = Copied()
        self._around = around
        self._writer = writer
        self._vm = vm
        self._choices = choices
        self._history = history
        self._still = still
        self._warn = warn
        self._alarms: dict[str, tuple[str, AuditResult]] = {}  # by disk key: what an audit found, in which attempt ever

    def leave_out(self, key: str, size_bytes: int, reason: str) -> None:
        """A disk that cannot be read is not in this restore point."""
        self.copied.results.append(DiskResult(key, size_bytes, attempts=0, error=reason))
        self._warn(f"{key} skipped: {reason}")

    def copy(self, disk: Disk, plan: Plan) -> None:
        """Copy a disk, once more when it was moved meanwhile.

        Raises:
            SourceError: it failed, and the other disks alone are not wanted.
        """
        into = self._writer.disk(disk.key, disk.capacity_bytes)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                if plan.failure is not None:
                    raise plan.failure
                self.copied.results.append(self._copy_once(into, disk, plan, attempt))
            except Thawed:
                raise  # --partial or not: what was not read yet stands still no more
            except Changed as error:
                again = None if attempt == ATTEMPTS_MAX or isinstance(error, Diverged) else self._still.anew(disk)
                if again is None:
                    self._give_up(into, disk, attempt, error)
                    return
                self._warn(f"{disk.key} is read again from its start: {error}")
                disk, plan = self._anew(disk, again, plan)
            except SourceError as error:
                self._give_up(into, disk, attempt, error)
                return
            else:
                return

    def _give_up(self, into: DiskInto, disk: Disk, attempts: int, error: SourceError) -> None:
        """Go on without a disk, where that was asked for.

        Raises:
            SourceError: it was not.
        """
        if not self._choices.partial:
            raise error
        into.abandon()
        self.copied.results.append(DiskResult(disk.key, disk.capacity_bytes, attempts=attempts, error=str(error)))
        self._warn(f"{disk.key} failed: {error}")

    def _anew(self, before: Disk, again: Disk, plan: Plan) -> tuple[Disk, Plan]:
        """A disk that was moved while it was read: its content is as frozen, so that what changed is what changed.

        Unless its landmark is another one now: then the tracker began anew as well, and neither its old answers nor the
        moment that its new landmark stands for are known any more.
        """
        if again.change_id == before.change_id:
            return again, plan
        again = replace(again, change_id=None)
        reason = "its changes are counted anew since it was moved"
        wanted = self._choices.tracking
        if plan.base is not None and (wanted.mode is Mode.INCREMENTAL or wanted.on_lost is OnCbtLost.FAIL):
            failure = f"{self._vm.name} {again.key}: {reason}; --mode full reads it whole, and the next is incremental"
            return again, Plan(failure=SourceError(f"{failure} again"))
        return again, Plan(full_because=reason)

    def _copy_once(self, into: DiskInto, disk: Disk, plan: Plan, attempt: int) -> DiskResult:
        try:
            return self._copied(into, disk, plan, attempt)
        except (Changed, ManagerError):
            raise
        except SourceError as error:
            self._still.explain(disk, error)
            raise

    def _copied(self, into: DiskInto, disk: Disk, plan: Plan, attempt: int) -> DiskResult:
        with open_vm_disk(self._around.storage, disk, self._around.clock) as source:
            taken, result = self._read(into, source, disk, plan)
            self._still.confirm(source, disk)
            into.keep()
            links = source.links
        result = replace(result, attempts=attempt)
        kept = {"bytes_read": taken.bytes_read, "bytes_zero": taken.bytes_zero, **into.recorded}
        self.copied.documents.append(manifest.disk_document(disk, links, result, kept))
        return result

    def _read(self, into: DiskInto, source: VmDisk, disk: Disk, plan: Plan) -> tuple[Taken, DiskResult]:
        if disk.key in self._alarms:  # found out before it was moved: another sample might miss what that one met
            reason, audited = self._alarms[disk.key]
            taken, result = self._whole(into, source, disk, reason)
            return taken, replace(result, audit=audited)
        if plan.changed is None:
            return self._whole(into, source, disk, plan.full_because)
        if plan.base is None:
            return self._in_use(into, source, disk, plan, plan.changed)
        try:
            base = plan.base.load()
            self._around.watcher.step(f"{self._vm.name}: looking at a sample of {disk.key} for untold changes")
            wanted = self._choices.tracking
            sample = Sample(self._seed(), wanted.audit_fraction, wanted.audit_chunks_min)
            found = into.audit(source, base, plan.changed, sample, self._effort())
        except IntegrityError as error:
            if self._choices.tracking.mode is Mode.INCREMENTAL:
                told = f"{self._vm.name} {disk.key}: only what changed was to be read, and its base cannot be used"
                raise SourceError(f"{told}: {error}; --mode auto reads it whole") from error
            self._warn(f"{disk.key} is read whole: its base cannot be used: {error}")
            return self._whole(into, source, disk, f"its base cannot be used: {error}")
        audited = _audited(found)
        if not audited.differing:
            taken = self._changes(into, source, disk, base, plan.changed)
            result = replace(_result(disk, taken), method="incremental", base=plan.base.id)
            result = replace(result, bytes_read=result.bytes_read + audited.bytes_read)
            # What lies around changes is read with them: a sample more, which costs nothing.
            audited = replace(audited, chunks=audited.chunks + len(taken.untold), differing=taken.untold)
        if audited.differing:
            reason = self._alarm(source, disk, plan.base, audited)
            taken, result = self._whole(into, source, disk, reason)
        return taken, replace(result, bytes_changed=plan.changed.total_bytes, audit=audited)

    def _in_use(self, into: DiskInto, source: VmDisk, disk: Disk, plan: Plan, used: Areas) -> tuple[Taken, DiskResult]:
        """Read what was ever written, unless a sample of the rest says that this is not all.

        Nothing at all, of a disk whose map has data, is no answer to rely on: a sample is too few to call it empty.
        """
        if not len(used) and any(extent.kind is not Kind.ZERO for extent in source.extents()):
            self._warn(f"all of {disk.key} is read: nothing of it is in use, it was told, and its map says otherwise")
            return self._whole(into, source, disk, plan.full_because)
        wanted = self._choices.tracking
        self._around.watcher.step(f"{self._vm.name}: looking at a sample of {disk.key} that is not in use")
        share, least = wanted.audit_fraction, wanted.audit_chunks_min
        audited = _audited(audit_unused(source, used, self._seed(), share=share, least=least))
        if audited.differing:
            self._still.confirm(source, disk)
            reason = f"ALARM: the list of what is in use was not whole: {_where(audited)}"
            self._alarms[disk.key] = reason, audited
            self._warn(f"{disk.key}: {reason}; it is read whole now")
            taken, result = self._whole(into, source, disk, reason)
        else:
            taken, result = self._whole(into, Allocated(source, used), disk, plan.full_because)
        return taken, replace(result, bytes_changed=used.total_bytes, audit=audited)

    def _seed(self) -> int:
        given = self._choices.tracking.audit_seed
        return secrets.randbits(_SEED_BITS) if given is None else given

    def _effort(self, progress: Callable[[int], None] = lambda done: None) -> Effort:
        around = self._around
        return Effort(self._choices.workers, progress, around.storage.patience.interrupt, around.stop)

    def _changes(self, into: DiskInto, source: VmDisk, disk: Disk, base: object, changed: Areas) -> Taken:
        with self._around.watcher.disk(f"{self._vm.name} {disk.key}, changes", source.size_bytes) as advance:
            return into.changes(source, base, changed, self._effort(advance))

    def _whole(self, into: DiskInto, source: MappedDevice, disk: Disk, reason: str | None) -> tuple[Taken, DiskResult]:
        with self._around.watcher.disk(f"{self._vm.name} {disk.key}", source.size_bytes) as advance:
            taken = into.whole(source, self._effort(advance))
        if taken.bytes_read == 0 and any(extent.kind is not Kind.ZERO for extent in source.extents()):
            raise NothingProtected(f"{source.name}: nothing was read from a disk that has data")
        return taken, replace(_result(disk, taken), method="full", full_because=reason)

    def _alarm(self, source: VmDisk, disk: Disk, base: DiskBase, audited: AuditResult) -> str:
        """Something changed that was not told: see whom that makes suspect, and say so.

        Raises:
            Changed: the disk was only moved meanwhile.
        """
        self._still.confirm(source, disk)
        chain = self._history.chain(base)
        newest, oldest = chain[0].name, chain[-1].name
        reason = f"ALARM: changed block tracking did not tell all that changed since {newest}: {_where(audited)}"
        self._alarms[disk.key] = reason, audited
        self._warn(f"{disk.key}: {reason}; it is read whole now")
        self.copied.suspect(chain)
        for point in chain:
            self._writer.suspect(point)
        more = f" and {len(chain) - 1} before it, back to {oldest}," if len(chain) > 1 else ""
        self._warn(f"{disk.key}: {newest}{more} may hold old data of this disk: now marked suspect")
        return reason


def _audited(found: Audit) -> AuditResult:
    return AuditResult(found.seed, found.chunks, found.bytes_read, tuple(start for start, _ in found.differing))


def _where(audited: AuditResult) -> str:
    differing = len(audited.differing)
    return f"{differing} of {audited.chunks} chunks that were read differ, the first at offset {audited.differing[0]}"


def _result(disk: Disk, taken: Taken) -> DiskResult:
    return DiskResult(disk.key, taken.bytes_total, taken.bytes_read, taken.bytes_stored)
