"""An archive on tape as the target of backups: one image for each disk, streamed onto a cartridge.

    source ─▶ image_stream (read, compress) ─▶ PartedFile (ring, drive) ─▶ cartridge, cartridge, …

Nothing is staged: what the drive does not take waits in the ring, and then the reading waits. An image gets its place
in the index only when its disk is known to have stood still; one that did not is nobody's, and read again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from jobs.manifest import KeptDisk
from jobs.target import Committed, Effort, Past, PastPoint, Sample, Taken
from tape.ltfs.stream import RING_BYTES
from vcbproxy.archive.agekeys import Recipients
from vcbproxy.archive.appetite import Appetite
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Image, Kind
from vcbproxy.archive.parts import PartedFile
from vcbproxy.archive.point import Identity, TapePoint
from vcbproxy.archive.shelf import Shelf
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.device import MappedDevice
from vcbproxy.pipeline.agefilter import encrypted
from vcbproxy.pipeline.archive import ImageFacts, ImageOptions, image_stream
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.repository.writer import PointInfo


class Ledger(Protocol):
    """Where it is written down what lies on which cartridge: the catalog."""

    def add(self, point: ArchivedPoint) -> None:
        """Note a restore point that is safe on its cartridges."""


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """How an archive is written.

    Attributes:
        lanes: how many drives are written to at once.
        level: zstd's; None: as hard as the drive leaves time for.
        ring_bytes: what may wait for each drive.
        recipients: whom images are encrypted to; None: they are not.
        encryption: what ``vm.json`` is to say of it; never a key.
    """

    lanes: int = 1
    level: int | None = None
    ring_bytes: int = RING_BYTES
    recipients: Recipients | None = None
    encryption: Mapping[str, Any] = field(default_factory=dict)


class IntoArchive:
    """Backups go onto cartridges of one pool."""

    def __init__(
        self,
        shelf: Shelf,
        ledger: Ledger,
        options: ArchiveOptions | None = None,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a pool's cartridges, and note what is on them in a catalog."""
        self.options = options or ArchiveOptions()
        self._shelf = shelf
        self._ledger = ledger
        self._new_id = new_id
        self._monotonic = monotonic

    @property
    def lanes(self) -> int:
        """One VM for each drive."""
        return self.options.lanes

    @contextmanager
    def lane(self) -> Iterator[_Lane]:
        """A drive; its cartridge is loaded when the first image comes."""
        with TapeLane(self._shelf) as lane:
            yield _Lane(lane, self._ledger, self.options, self._new_id, self._monotonic)

    def points(self) -> Sequence[PastPoint]:
        """None yet that others can build on."""
        return []

    def past(self, point: PastPoint) -> Past:
        """There is none."""
        raise AssertionError(f"{point.name} was never offered")

    def unfit(self, kept: KeptDisk) -> str | None:
        """There is nothing to build on."""
        return f"has {kept.key} on tape"


@dataclass(frozen=True, slots=True)
class _Lane:
    lane: TapeLane
    ledger: Ledger
    options: ArchiveOptions
    new_id: Callable[[], str]
    monotonic: Callable[[], float]

    def begin(self, info: PointInfo) -> _Point:
        identity = Identity(self.new_id(), info.vm_name, info.instance_uuid, self.options.encryption)
        point = TapePoint(self.lane, identity, info.time)
        return _Point(point, self.ledger, self.options, self.monotonic)


class _Point:
    def __init__(
        self, point: TapePoint, ledger: Ledger, options: ArchiveOptions, monotonic: Callable[[], float]
    ) -> None:
        self._point = point
        self._ledger = ledger
        self._options = options
        self._monotonic = monotonic
        self._streaming_s = 0.0

    def taken_at(self, moment: datetime) -> None:
        self._point.taken_at(moment)

    def disk(self, key: str, size_bytes: int) -> _Disk:
        return _Disk(self, self._point, key, size_bytes, self._options, self._monotonic)

    def streamed(self, seconds: float) -> None:
        """So long a disk took, from its first byte on tape to its last."""
        self._streaming_s += seconds

    def file(self, name: str, data: bytes) -> None:
        self._point.keep(name, data)

    def suspect(self, earlier: PastPoint) -> None:
        raise AssertionError(f"{earlier.name} was never offered as a base")

    def commit(self, manifest: Mapping[str, Any], *, partial: bool = False) -> Committed:
        began_s = self._monotonic()
        point = self._point.commit(manifest)
        self._ledger.add(point)
        return Committed(point.id, media_of(point, self._point, self._streaming_s, self._monotonic() - began_s))

    def __enter__(self) -> Self:
        self._point.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._point.__exit__(kind, error, trace)


def media_of(point: ArchivedPoint, written: TapePoint, streaming_s: float, closing_s: float) -> dict[str, Any]:
    """What a result says of the cartridges, and of how fast they were written."""
    flow = written.flow
    rate = flow.written_bytes / streaming_s if streaming_s else 0.0
    return {
        "pool": point.pool,
        "media_set": point.media_set,
        "barcodes": list(point.barcodes),
        "bytes_on_tape": flow.written_bytes,
        "seconds": round(streaming_s, 3),
        "bytes_per_second": round(rate),
        "closing_seconds": round(closing_s, 3),
        "starved_seconds": round(flow.starved_s, 3),
        "starvations": flow.starvations,
        "held_up_seconds": round(flow.held_up_s, 3),
    }


class _Disk:
    def __init__(
        self,
        above: _Point,
        point: TapePoint,
        key: str,
        size_bytes: int,
        options: ArchiveOptions,
        monotonic: Callable[[], float],
    ) -> None:
        self._above = above
        self._point = point
        self._key = key
        self._size_bytes = size_bytes
        self._options = options
        self._monotonic = monotonic
        self._file: PartedFile | None = None
        self._facts: ImageFacts | None = None
        self._began_s = 0.0

    @property
    def recorded(self) -> Mapping[str, Any]:
        """Where it lies stands beside, in the same ``vm.json``."""
        return {}

    def whole(self, source: MappedDevice, effort: Effort) -> Taken:
        self._drop()
        self._began_s = self._monotonic()
        self._facts = self._stream(f"{self._key}.raw.zst", source, effort)
        facts = self._facts
        return Taken(facts.size_bytes, facts.bytes_read, facts.bytes_zero, facts.image_bytes)

    def _stream(self, name: str, source: MappedDevice, effort: Effort) -> ImageFacts:
        """An image onto tape, encrypted on the way where that is wanted."""
        recipients = self._options.recipients
        ring_bytes = self._options.ring_bytes
        self._file = file = self._point.begin_file(name if recipients is None else f"{name}.age", ring_bytes=ring_bytes)
        fixed = self._options.level
        level = Appetite(file.fill).level if fixed is None else lambda: fixed
        options = ImageOptions(workers=effort.workers)
        with image_stream(source, level, options=options, cancel=effort.cancel, interrupt=effort.interrupt) as stream:
            sealed = nullcontext(iter(stream)) if recipients is None else encrypted(stream, recipients)
            with sealed as pieces:
                for piece in pieces:
                    file.write(piece)
                    effort.progress(stream.position)
            return stream.facts

    def changes(self, source: MappedDevice, base: object, changed: Areas, effort: Effort) -> Taken:
        raise AssertionError(f"{source.name}: no base was offered")

    def audit(self, source: MappedDevice, base: object, changed: Areas, sample: Sample, effort: Effort) -> Audit:
        raise AssertionError(f"{source.name}: no base was offered")

    def keep(self) -> None:
        assert self._file is not None, "nothing was copied"
        assert self._facts is not None, "nothing was copied"
        parts = self._file.finish()
        self._above.streamed(self._monotonic() - self._began_s)
        self._point.add_image(
            Image(self._key, self._file.name, Kind.FULL, self._facts.size_bytes, self._facts.sha256, parts)
        )

    def abandon(self) -> None:
        self._drop()

    def _drop(self) -> None:
        """What was copied before is not to be there."""
        file, self._file, self._facts = self._file, None, None
        if file is not None:
            file.abort()
            self._point.abandon(file.parts)
            self._point.forget_name(file.name)
