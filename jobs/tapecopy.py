"""Restore points copied from the repository onto tape: the same images as a backup makes, from chunks.

    repository ─▶ chunks, some way ahead, digested ─▶ image ─▶ cartridge       as many VMs at a time as there are drives

What comes back from tape is what would come back from the repository, to the byte; the VM and the SAN are not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from jobs.lanes import deal, onto_another
from jobs.target import Committed, DiskInto, Effort, Lane, Past, Taken, Target
from jobs.watcher import Watcher
from vcbproxy.clock import Clock
from vcbproxy.errors import BaseGone, Cancelled, CartridgeFailed, Error, IntegrityError, Partial
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.content import Lengths
from vcbproxy.pipeline.crew import Cancel
from vcbproxy.pipeline.storeddisk import differing, stored_disk
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.manifest import DiskEntry
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one restore point.

    Attributes:
        source: in the repository.
        committed: on tape; None when it could not be read.
        size_bytes: of its disks.
        bytes_stored: of its images.
        seconds: how long it took.
        error: why not.
    """

    source: PointSummary
    committed: Committed | None = None
    size_bytes: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    error: IntegrityError | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    results: tuple[Copied, ...] = field(default=())

    def raise_unless_ok(self) -> None:
        """Turn damage into the error that has its exit code.

        Raises:
            IntegrityError: nothing could be copied.
            Partial: some could not, or is not the whole of its VM, or suspect.
        """
        bad = [result for result in self.results if result.error is not None]
        if bad and len(bad) == len(self.results):
            raise IntegrityError(f"nothing was copied: {bad[0].source.name}: {bad[0].error}")
        if bad:
            raise Partial(f"not copied, damaged in the repository: {', '.join(one.source.name for one in bad)}")
        doubtful = [result.source for result in self.results if not result.source.good]
        if doubtful:
            raise Partial(
                f"copied, but not the whole of their VMs, or suspect: {', '.join(one.name for one in doubtful)}"
            )


def run(
    repository: RepositoryTarget,
    points: Sequence[PointSummary],
    target: Target,
    watcher: Watcher,
    clock: Clock,
    *,
    workers: int,
    deltas: bool = True,
    results: list[Copied] | None = None,
) -> Report:
    """Copy restore points, each VM's oldest first. What is damaged in the repository fails alone.

    Where they may build upon one another, those of one VM go the same way, one after the other: onto one drive, however
    many there are. Else each takes whichever drive is free.

    Args:
        repository: open, its lock held.
        points: in it.
        target: where they go.
        watcher: is told.
        clock: tells how long it took.
        workers: threads of each kind, for each drive.
        results: filled as it goes on, so that it is known what was done, whatever ends it.
        deltas: where the last restore point of the VM on tape is a copy, too, copy only what is different.

    Raises:
        TargetError: a cartridge could not be written.
        CartridgeWanted: the pool has none left.
        Error: whatever else ends it all.
    """
    results = [] if results is None else results
    repository.repository.indexing.load()  # once, before several threads rely on it
    job = _Copying(repository, target, watcher, clock, workers, deltas, results)
    try:
        deal(target, _rows(points, deltas=deltas), job.in_lane, said=watcher.said)
    except (Error, Cancelled) as error:
        done = [result.source.name for result in results if result.committed]
        error.add_note(f"before that, copied: {', '.join(done) or 'nothing'}")
        raise
    return Report(tuple(sorted(results, key=lambda result: result.source.time)))


def _rows(points: Sequence[PointSummary], *, deltas: bool) -> list[list[PointSummary]]:
    """What is copied by one lane, one after the other, the oldest first."""
    rows: dict[str, list[PointSummary]] = {}
    for point in sorted(points, key=lambda point: point.time):
        rows.setdefault(point.instance_uuid if deltas else point.id, []).append(point)
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class _Copying:
    """One job run's copying; called by a thread for each drive."""

    repository: RepositoryTarget
    target: Target
    watcher: Watcher
    clock: Clock
    workers: int
    deltas: bool
    results: list[Copied]

    def in_lane(self, lane: Lane, points: Sequence[PointSummary], stop: Cancel | None) -> None:
        """Copy these, one after the other."""
        for point in points:
            if stop is not None and stop.is_set():
                return
            began_s = self.clock.monotonic()
            try:
                copied = onto_another(lane, partial(self._one, lane, point, stop), partial(self._failed, point))
            except IntegrityError as error:
                self.watcher.said(f"{point.name}: {error}")
                copied = Copied(point, error=error)
            self.results.append(replace(copied, seconds=self.clock.monotonic() - began_s))

    def _failed(self, point: PointSummary, error: CartridgeFailed) -> None:
        self.watcher.said(f"{point.name} is copied once more, onto another cartridge: {error}")

    def _one(self, lane: Lane, point: PointSummary, stop: Cancel | None) -> Copied:
        self.watcher.step(f"{point.name}: copying it onto tape")
        bases = _Bases(self.repository, self.target, point) if self.deltas else None
        try:
            return self._written(lane, point, bases, stop)
        except BaseGone as error:  # recycled, or forgotten
            self.watcher.said(f"{point.name} is copied once more, all of it: {error}")
            return self._written(lane, point, None, stop)

    def _written(self, lane: Lane, point: PointSummary, bases: _Bases | None, stop: Cancel | None) -> Copied:
        reader = PointReader.unlocked(self.repository.repository, point)
        size = stored = 0
        with lane.begin(PointInfo(point.vm, point.instance_uuid, point.time, policy=point.policy)) as writer:
            writer.taken_at(point.time)
            for disk in reader.disks:
                taken = self._disk(reader, disk, writer.disk(disk.key, disk.size_bytes), bases, stop)
                size += taken.bytes_total
                stored += taken.bytes_stored
            for file in reader.contents.files:
                writer.file(file.key, reader.file(file.key))
            committed = writer.commit(_manifest(reader), partial=point.partial)
        return Copied(point, committed, size, stored)

    def _disk(
        self, reader: PointReader, disk: DiskEntry, into: DiskInto, bases: _Bases | None, stop: Cancel | None
    ) -> Taken:
        name, workers = f"{reader.summary.name} {disk.key}", self.workers
        ids, lengths = reader.disk_content(disk.key)
        with (
            self.watcher.disk(f"{reader.summary.vm} {disk.key}", disk.size_bytes) as advance,
            stored_disk(reader, name, ids, lengths, workers=workers) as source,
        ):
            found = None if bases is None else bases.of(disk, ids, lengths)
            effort = Effort(workers, advance, cancel=stop)
            taken = into.whole(source, effort) if found is None else into.changes(source, *found, effort)
        into.keep()
        return taken


class _Bases:
    """What a copy may build upon: the newest restore point of its VM on tape, if a copy of one that is still here."""

    def __init__(self, repository: RepositoryTarget, target: Target, point: PointSummary) -> None:
        self._past: Past | None = None
        self._reader: PointReader | None = None
        of_vm = [one for one in target.points() if one.instance_uuid == point.instance_uuid and one.time <= point.time]
        if not of_vm or of_vm[-1].suspect:
            return
        with suppress(IntegrityError):
            past = target.past(of_vm[-1])
            copied = past.manifest.get("copied_from")
            original = copied.get("point") if isinstance(copied, dict) else None
            found = next((one for one in repository.points() if one.original == original), None)
            if found is not None:
                self._reader = PointReader.unlocked(repository.repository, found)
                self._past = past

    def of(self, disk: DiskEntry, ids: Ids, lengths: Lengths) -> tuple[object, Areas] | None:
        """The base of a disk, and what is different; None: it is copied whole."""
        if self._past is None or self._reader is None or not self._past.has(disk.key):
            return None
        with suppress(IntegrityError):
            entry = self._reader.contents.disk(disk.key)
            if entry is not None and entry.size_bytes == disk.size_bytes:
                base = self._past.base(disk.key)
                return base, differing(ids, lengths, *self._reader.base_list(disk.key))
        return None


def _manifest(reader: PointReader) -> dict[str, Any]:
    """As the backup recorded it, and which restore point this is a copy of."""
    point = reader.summary
    return {**reader.manifest, "copied_from": {"point": point.original, "suspect": point.suspect}}
