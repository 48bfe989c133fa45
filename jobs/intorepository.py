"""A repository as the target of backups: chunks, and what is spliced upon the list of an earlier restore point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from jobs.manifest import KeptDisk
from jobs.target import Committed, Effort, PastPoint, Sample, Taken
from vcbproxy.device import MappedDevice
from vcbproxy.errors import CartridgeFailed
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit, audit
from vcbproxy.pipeline.backup import Options, copy_disk
from vcbproxy.pipeline.base import Base
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import DiskContent
from vcbproxy.pipeline.incremental import copy_changes
from vcbproxy.repository.diskwriter import DiskWriter
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo, PointWriter


class IntoRepository:
    """Backups go into one repository. Only one VM at a time: a copy keeps all processors busy as it is."""

    lanes = 1

    def __init__(self, target: RepositoryTarget) -> None:
        """Take its rule for cutting."""
        settings = target.repository
        self.rule = Rule(settings.config.polynomial_hex.encode(), settings.chunker.window)
        self._target = target

    @contextmanager
    def lane(self) -> Iterator[Self]:
        """The repository itself."""
        yield self

    def begin(self, info: PointInfo) -> _Point:
        """Begin a restore point."""
        return _Point(self._target.begin(info), self.rule)

    def give_up(self, error: CartridgeFailed) -> None:
        """A repository is no cartridge."""
        raise error

    def points(self) -> Sequence[PointSummary]:
        """All restore points."""
        return self._target.points()

    def past(self, point: PastPoint) -> _Past:
        """Look into one; its index is loaded by then."""
        assert isinstance(point, PointSummary), "a restore point of another target"
        return _Past(PointReader.unlocked(self._target.repository, point))

    def unfit(self, kept: KeptDisk) -> str | None:
        """Another rule cuts at other places."""
        return None if kept.parameters == self.rule.parameters else "was cut by another rule"


class _Past:
    def __init__(self, reader: PointReader) -> None:
        self._reader = reader

    @property
    def point(self) -> PointSummary:
        return self._reader.summary

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._reader.manifest

    def has(self, key: str) -> bool:
        return self._reader.contents.disk(key) is not None

    def base(self, key: str) -> Base:
        """Its list of chunks; those that are missing or damaged in the repository are marked as lost."""
        return Base.of(self._reader.vouched(key))


class _Point:
    def __init__(self, writer: PointWriter, rule: Rule) -> None:
        self._writer = writer
        self._rule = rule

    def taken_at(self, moment: datetime) -> None:
        self._writer.taken_at(moment)

    def disk(self, key: str, size_bytes: int) -> _Disk:
        return _Disk(self._writer.disk(key, size_bytes), self._rule)

    def file(self, name: str, data: bytes) -> None:
        self._writer.file(name, data)

    def suspect(self, earlier: PastPoint) -> None:
        assert isinstance(earlier, PointSummary), "a restore point of another target"
        self._writer.suspect(earlier)

    def commit(self, manifest: Mapping[str, Any], *, partial: bool = False) -> Committed:
        return Committed(self._writer.commit(manifest, partial=partial).id)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class _Disk:
    def __init__(self, writer: DiskWriter, rule: Rule) -> None:
        self._writer = writer
        self._rule = rule
        self._content: DiskContent | None = None

    @property
    def recorded(self) -> Mapping[str, Any]:
        return {"chunker": self._rule.parameters.as_json()}

    def whole(self, source: MappedDevice, effort: Effort) -> Taken:
        self._content = copy_disk(
            source,
            self._writer,
            self._rule,
            options=Options(workers=effort.workers),
            progress=lambda seen: effort.progress(seen.bytes_done),
            interrupt=effort.interrupt,
        )
        return _taken(self._content)

    def changes(self, source: MappedDevice, base: object, changed: Areas, effort: Effort) -> Taken:
        assert isinstance(base, Base), "the base of another target"
        self._content = copy_changes(
            source,
            base,
            changed,
            self._writer,
            self._rule,
            options=Options(workers=effort.workers),
            progress=lambda seen: effort.progress(seen.bytes_done),
            interrupt=effort.interrupt,
        )
        return _taken(self._content)

    def audit(self, source: MappedDevice, base: object, changed: Areas, sample: Sample, effort: Effort) -> Audit:
        assert isinstance(base, Base), "the base of another target"
        return audit(
            source,
            base,
            changed,
            self._rule,
            sample.seed,
            share=sample.share,
            least=sample.least,
            workers=effort.workers,
            interrupt=effort.interrupt,
        )

    def keep(self) -> None:
        assert self._content is not None, "nothing was copied"
        self._writer.finish(self._content.ids, self._content.lengths, self._content.taken_over)

    def abandon(self) -> None:
        self._writer.abandon()


def _taken(content: DiskContent) -> Taken:
    stats = content.stats
    untold = tuple(start for start, _ in content.untold)
    return Taken(stats.bytes_total, stats.bytes_read, stats.bytes_zero, stats.bytes_stored, untold)
