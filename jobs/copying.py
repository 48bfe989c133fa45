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
from jobs.bases import VmHistory
from jobs.choices import Choices, Surroundings
from jobs.incremental import Plan
from jobs.outcome import AuditResult, DiskResult
from jobs.standstill import Standstill
from vcbproxy.errors import Changed, Diverged, IntegrityError, ManagerError, NothingProtected, SourceError, Thawed
from vcbproxy.extent import Kind
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.vm import Vm
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import audit
from vcbproxy.pipeline.backup import Options, Progress, copy_disk
from vcbproxy.pipeline.base import Base
from vcbproxy.pipeline.chunker import hole_lengths
from vcbproxy.pipeline.content import DiskContent, Rows, zero_id
from vcbproxy.pipeline.incremental import copy_changes
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.writer import DiskWriter, PointWriter
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
    _suspects: dict[str, PointSummary] = field(default_factory=dict)

    @property
    def failed(self) -> list[DiskResult]:
        """Those that were not copied."""
        return [result for result in self.results if result.error is not None]

    @property
    def alarmed(self) -> bool:
        """Whether an audit found a difference."""
        return any(result.audit is not None and result.audit.differing for result in self.results)

    @property
    def suspects(self) -> list[PointSummary]:
        """Restore points that an audit found not to be relied upon, oldest first."""
        return sorted(self._suspects.values(), key=lambda point: point.time)

    def suspect(self, points: Iterable[PointSummary]) -> None:
        """Note some more of these."""
        self._suspects.update((point.id, point) for point in points)


class DiskCopier:
    """Copies the disks of one VM under one snapshot."""

    def __init__(
        self,
        around: Surroundings,
        writer: PointWriter,
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
                disk, plan = _anew(disk, again, plan)
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
        self.copied.results.append(DiskResult(disk.key, disk.capacity_bytes, attempts=attempts, error=str(error)))
        self._warn(f"{disk.key} failed: {error}")

    def _copy_once(self, into: DiskWriter, disk: Disk, plan: Plan, attempt: int) -> DiskResult:
        try:
            return self._copied(into, disk, plan, attempt)
        except (Changed, ManagerError):
            raise
        except SourceError as error:
            self._still.explain(disk, error)
            raise

    def _copied(self, into: DiskWriter, disk: Disk, plan: Plan, attempt: int) -> DiskResult:
        with open_vm_disk(self._around.storage, disk, self._around.clock) as source:
            content, result = self._read(into, source, disk, plan)
            self._still.confirm(source, disk)
            into.finish(content.ids, content.lengths)
            links = source.links
        result = replace(result, attempts=attempt)
        rule, stats = self._around.rule, content.stats
        self.copied.documents.append(manifest.disk_document(disk, links, stats, rule, result))
        return result

    def _read(self, into: DiskWriter, source: VmDisk, disk: Disk, plan: Plan) -> tuple[DiskContent, DiskResult]:
        if plan.changed is None:
            return self._whole(into, source, disk, plan.full_because)
        try:
            base = plan.base.load() if plan.base is not None else _of_zeroes(into, disk.capacity_bytes)
            audited = self._audited(source, base, plan.changed)
        except IntegrityError as error:
            self._warn(f"{disk.key} is read whole: its base cannot be used: {error}")
            return self._whole(into, source, disk, f"its base cannot be used: {error}")
        changed = plan.changed
        if audited.differing:
            reason = self._alarm(source, disk, plan, audited)
            content, result = self._whole(into, source, disk, reason)
            return content, replace(result, bytes_changed=changed.total_bytes, audit=audited)
        with self._around.watcher.disk(f"{self._vm.name} {disk.key}, changes", source.size_bytes) as advance:
            content = copy_changes(
                source,
                base,
                changed,
                into,
                self._around.rule,
                options=Options(workers=self._choices.workers),
                progress=lambda seen: advance(seen.bytes_done),
                interrupt=self._around.storage.patience.interrupt,
            )
        result = replace(
            _result(disk, content),
            method="full" if plan.base is None else "incremental",
            base=None if plan.base is None else plan.base.id,
            full_because=plan.full_because,
            bytes_changed=changed.total_bytes,
            audit=audited,
        )
        return content, replace(result, bytes_read=content.stats.bytes_read + audited.bytes_read)

    def _whole(
        self, into: DiskWriter, source: VmDisk, disk: Disk, reason: str | None
    ) -> tuple[DiskContent, DiskResult]:
        def advanced(seen: Progress) -> None:
            advance(seen.bytes_done)

        with self._around.watcher.disk(f"{self._vm.name} {disk.key}", source.size_bytes) as advance:
            content = copy_disk(
                source,
                into,
                self._around.rule,
                options=Options(workers=self._choices.workers),
                progress=advanced,
                interrupt=self._around.storage.patience.interrupt,
            )
        if content.stats.bytes_read == 0 and any(extent.kind is not Kind.ZERO for extent in source.extents()):
            raise NothingProtected(f"{source.name}: nothing was read from a disk that has data")
        return content, replace(_result(disk, content), method="full", full_because=reason)

    def _audited(self, source: VmDisk, base: Base, changed: Areas) -> AuditResult:
        """Hold a sample of what did not change, it is said, against the base.

        Raises:
            IntegrityError: the base is no list of this disk's chunks.
            SourceError: the disk could not be read.
        """
        wanted = self._choices.tracking
        seed = wanted.audit_seed if wanted.audit_seed is not None else secrets.randbits(_SEED_BITS)
        taken = audit(
            source,
            base,
            changed,
            self._around.rule,
            seed,
            share=wanted.audit_fraction,
            least=wanted.audit_chunks_min,
            workers=self._choices.workers,
            interrupt=self._around.storage.patience.interrupt,
        )
        return AuditResult(seed, taken.chunks, taken.bytes_read, tuple(start for start, _ in taken.differing))

    def _alarm(self, source: VmDisk, disk: Disk, plan: Plan, audited: AuditResult) -> str:
        """Something changed that was not told: see whom that makes suspect, and say so.

        Raises:
            Changed: the disk was only moved meanwhile.
        """
        self._still.confirm(source, disk)
        where = (
            f"{len(audited.differing)} of {audited.chunks} chunks that were read, the first at {audited.differing[0]}"
        )
        if plan.base is None:
            reason = f"ALARM: the list of what is in use was not whole: {where}"
        else:
            chain = self._history.chain(plan.base)
            self.copied.suspect(chain)
            for point in chain:
                self._writer.suspect(point)
            reason = f"ALARM: changed block tracking did not tell all that changed since {chain[0].name}: {where}"
            oldest = f" and {len(chain) - 1} before it, back to {chain[-1].name}," if len(chain) > 1 else ""
            self._warn(f"{disk.key}: {chain[0].name}{oldest} may hold old data of this disk: now marked suspect")
        self._warn(f"{disk.key}: {reason}; it is read whole now")
        return reason


def _of_zeroes(into: DiskWriter, size_bytes: int) -> Base:
    """The chunks of a disk to which nothing was ever written, each of which is in the target then."""
    rows = Rows()
    packer = into.packer()
    for length in rows.append_zeroes(hole_lengths(0, size_bytes)):
        packer.add(BlobKind.DATA, memoryview(bytes(length)), zero_id(length))
    packer.finish()
    return Base(*rows.columns())


def _result(disk: Disk, content: DiskContent) -> DiskResult:
    stats = content.stats
    return DiskResult(disk.key, stats.bytes_total, stats.bytes_read, stats.bytes_stored)


def _anew(before: Disk, again: Disk, plan: Plan) -> tuple[Disk, Plan]:
    """A disk that was moved while it was read: its content is as frozen, so that what changed is still what changed.

    Unless its landmark is another one now: then the tracker began anew as well, and neither its old answers nor the
    moment that its new landmark stands for are known any more.
    """
    if again.change_id == before.change_id:
        return again, plan
    return replace(again, change_id=None), Plan(full_because="its changes are counted anew since it was moved")
