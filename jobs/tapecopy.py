"""Restore points copied from the repository onto tape: the same images as a backup makes, from chunks.

    repository ─▶ chunks, some way ahead, digested ─▶ image ─▶ cartridge

What comes back from tape is what would come back from the repository, to the byte; the VM and the SAN are not asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobs.target import Committed, Effort, Lane, Past, Target
from jobs.watcher import Watcher
from vcbproxy.clock import Clock
from vcbproxy.errors import Error, IntegrityError, Partial
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.content import Lengths
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
    """Copy restore points, oldest first. What is damaged in the repository fails alone.

    Args:
        repository: open, its lock held.
        points: in it.
        target: where they go.
        watcher: is told.
        clock: tells how long it took.
        workers: threads of each kind.
        results: filled as it goes on, so that it is known what was done, whatever ends it.
        deltas: where the last restore point of the VM on tape is a copy, too, copy only what is different.

    Raises:
        TargetError: a cartridge could not be written.
        CartridgeWanted: the pool has none left.
        Error: whatever else ends it all.
    """
    results = [] if results is None else results
    with target.lane() as lane:
        for point in sorted(points, key=lambda point: point.time):
            began_s = clock.monotonic()
            try:
                with repository.open(point) as reader:
                    bases = _Bases(repository, target, point) if deltas else None
                    results.append(_copy(reader, lane, bases, watcher, clock, began_s, workers))
            except IntegrityError as error:
                watcher.said(f"{point.name}: {error}")
                results.append(Copied(point, error=error, seconds=clock.monotonic() - began_s))
            except Error as error:
                done = [result.source.name for result in results if result.committed]
                error.add_note(f"before that, copied: {', '.join(done) or 'nothing'}")
                raise
    return Report(tuple(results))


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


def _copy(
    reader: PointReader,
    lane: Lane,
    bases: _Bases | None,
    watcher: Watcher,
    clock: Clock,
    began_s: float,
    workers: int,
) -> Copied:
    point = reader.summary
    watcher.step(f"{point.name}: copying it onto tape")
    size = stored = 0
    with lane.begin(PointInfo(point.vm, point.instance_uuid, point.time, policy=point.policy)) as writer:
        writer.taken_at(point.time)
        for disk in reader.disks:
            ids, lengths = reader.disk_content(disk.key)
            into = writer.disk(disk.key, disk.size_bytes)
            with (
                watcher.disk(f"{point.vm} {disk.key}", disk.size_bytes) as advance,
                stored_disk(reader, f"{point.name} {disk.key}", ids, lengths, workers=workers) as source,
            ):
                found = None if bases is None else bases.of(disk, ids, lengths)
                effort = Effort(workers, advance)
                taken = into.whole(source, effort) if found is None else into.changes(source, *found, effort)
            into.keep()
            size += taken.bytes_total
            stored += taken.bytes_stored
        for file in reader.contents.files:
            writer.file(file.key, reader.file(file.key))
        committed = writer.commit(_manifest(reader), partial=point.partial)
    return Copied(point, committed, size, stored, clock.monotonic() - began_s)


def _manifest(reader: PointReader) -> dict[str, Any]:
    """As the backup recorded it, and which restore point this is a copy of."""
    point = reader.summary
    return {**reader.manifest, "copied_from": {"point": point.original, "suspect": point.suspect}}
