"""An archive on tape as the target of backups: one image for each disk, streamed onto a cartridge.

    source ─▶ image_stream (read, compress) ─▶ PartedFile (ring, drive) ─▶ cartridge, cartridge, …

Nothing is staged: what the drive does not take waits in the ring, and then the reading waits. An image gets its place
in the index only when its disk is known to have stood still; one that did not is nobody's, and read again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from jobs.manifest import KeptDisk
from jobs.tapebases import Ledger, TapeBase, TapeBases
from jobs.target import Committed, Effort, Past, PastPoint, Sample, Taken
from tape.ltfs.stream import RING_BYTES
from vcbproxy.archive import layout
from vcbproxy.archive.agekeys import Recipients
from vcbproxy.archive.appetite import Appetite
from vcbproxy.archive.delta import DeltaDevice, DeltaMap
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Base, Image, Kind
from vcbproxy.archive.parts import PartedFile
from vcbproxy.archive.point import Identity, TapePoint
from vcbproxy.archive.remembered import FrameSums, Remembered
from vcbproxy.archive.seektable import SeekTable, parse_table
from vcbproxy.archive.shelf import Shelf
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.device import MappedDevice
from vcbproxy.errors import BaseGone, CartridgeFailed
from vcbproxy.pipeline.agefilter import encrypted
from vcbproxy.pipeline.archive import ImageFacts, ImageOptions, image_stream
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.audit import Audit
from vcbproxy.pipeline.frameaudit import audit_frames, gone, holes_of
from vcbproxy.repository.writer import PointInfo
from vcbproxy.units import MiB

_RING_BYTES_MIN = 32 * MiB  # a tenth of a second of the fastest drive


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """How an archive is written.

    Attributes:
        lanes: how many drives are written to at once.
        level: zstd's; None: as hard as the drive leaves time for.
        ring_bytes: what may wait for all drives together: memory does not grow with the number of drives.
        recipients: whom images are encrypted to; None: they are not.
        encryption: what ``vm.json`` is to say of it; never a key.
    """

    lanes: int = 1
    level: int | None = None
    ring_bytes: int = RING_BYTES
    recipients: Recipients | None = None
    encryption: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lane_ring_bytes(self) -> int:
        """What may wait for one drive."""
        return max(self.ring_bytes // self.lanes, _RING_BYTES_MIN)


class IntoArchive:
    """Backups go onto cartridges of one pool."""

    def __init__(
        self,
        shelf: Shelf,
        ledger: Ledger,
        remembered: Remembered,
        options: ArchiveOptions | None = None,
        *,
        doubtful: Callable[[], Collection[str]] = tuple,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use a pool's cartridges; what is on them is noted in a catalog, and for the next delta remembered here.

        ``doubtful`` gives the labels of cartridges upon which no delta is to be made.
        """
        self.options = options or ArchiveOptions()
        self.ledger = ledger
        self.remembered = remembered
        self.bases = TapeBases(ledger, remembered, shelf.pool, self.options.encryption, doubtful)
        self.new_id = new_id
        self.monotonic = monotonic
        self._shelf = shelf

    @property
    def lanes(self) -> int:
        """One VM for each drive."""
        return self.options.lanes

    @contextmanager
    def lane(self) -> Iterator[_Lane]:
        """A drive with a cartridge in it: when there is none, no VM is frozen for nothing."""
        with TapeLane(self._shelf) as lane:
            self.bases.sets.add(lane.cartridge.media_set)
            yield _Lane(lane, self)

    def points(self) -> Sequence[PastPoint]:
        """Those that deltas can be made upon."""
        return self.bases.points()

    def past(self, point: PastPoint) -> Past:
        """Look into one."""
        return self.bases.past(point)

    def unfit(self, kept: KeptDisk) -> str | None:
        """Images are of any disk."""
        return None


@dataclass(frozen=True, slots=True)
class _Lane:
    lane: TapeLane
    target: IntoArchive

    def begin(self, info: PointInfo) -> _Point:
        target = self.target
        identity = Identity(target.new_id(), info.vm_name, info.instance_uuid, target.options.encryption)
        return _Point(TapePoint(self.lane, identity, info.time), target)

    def give_up(self, error: CartridgeFailed) -> None:
        self.lane.give_up(error)


class _Point:
    def __init__(self, point: TapePoint, target: IntoArchive) -> None:
        self._point = point
        self._target = target
        self._sums: dict[str, FrameSums] = {}
        self._streaming_s = 0.0
        self._base: Base | None = None

    def taken_at(self, moment: datetime) -> None:
        self._point.taken_at(moment)

    def disk(self, key: str, size_bytes: int) -> _Disk:
        return _Disk(self, self._point, key, self._target)

    def kept(self, key: str, sums: FrameSums, seconds: float) -> None:
        """A disk is complete, and took so long from its first byte on tape to its last."""
        self._sums[key] = sums
        self._streaming_s += seconds

    def build_on(self, base: Base) -> None:
        """Its deltas are made upon this one."""
        self._point.build_on(base)
        self._base = base

    def file(self, name: str, data: bytes) -> None:
        self._point.keep(name, data)

    def suspect(self, earlier: PastPoint) -> None:
        self._target.bases.suspect(earlier)

    def commit(self, manifest: Mapping[str, Any], *, partial: bool = False) -> Committed:
        target = self._target
        began_s = target.monotonic()
        self._hold_base()
        point = self._point.commit(manifest)
        target.ledger.add(point)
        target.remembered.keep(point.id, self._point.vm_json, self._sums)
        return Committed(point.id, media_of(point, self._point, self._streaming_s, target.monotonic() - began_s))

    def _hold_base(self) -> None:
        """See that what it builds on was not recycled while it was written: nothing could be restored of it then.

        Raises:
            BaseGone: it was; the next is read whole.
        """
        base = self._base
        if base is not None and all(known.id != base.id for known in self._target.ledger.listed()):
            raise BaseGone(base=base.name)

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
    def __init__(self, above: _Point, point: TapePoint, key: str, target: IntoArchive) -> None:
        self._above = above
        self._point = point
        self._key = key
        self._target = target
        self._file: PartedFile | None = None
        self._map: PartedFile | None = None
        self._facts: ImageFacts | None = None
        self._sums: FrameSums | None = None
        self._base: TapeBase | None = None
        self._began_s = 0.0

    @property
    def recorded(self) -> Mapping[str, Any]:
        """Where it lies stands beside, in the same ``vm.json``."""
        return {}

    def whole(self, source: MappedDevice, effort: Effort) -> Taken:
        self._drop()
        facts, table = self._stream(f"{self._key}.raw.zst", source, effort)
        self._sums = FrameSums.of(table, holes_of(source))
        return Taken(facts.size_bytes, facts.bytes_read, facts.bytes_zero, facts.image_bytes)

    def changes(self, source: MappedDevice, base: object, changed: Areas, effort: Effort) -> Taken:
        """What changed, and what the disk's own map knows to be zeroes by now, whether that was told or not."""
        assert isinstance(base, TapeBase), "the base of another target"
        self._drop()
        areas = changed | gone(source, base.sums)
        packed = DeltaMap(areas.ranges)
        self._base = base
        self._map = self._point.begin_file(f"{self._key}.delta.map", ring_bytes=self._target.options.lane_ring_bytes)
        for piece in packed.encode():
            self._map.write(piece)
        self._map.finish()
        facts, _ = self._stream(f"{self._key}.delta.raw.zst", DeltaDevice(source, packed), effort)
        self._sums = base.sums.after(areas.ranges, holes_of(source))
        return Taken(source.size_bytes, facts.bytes_read, facts.bytes_zero, facts.image_bytes)

    def audit(self, source: MappedDevice, base: object, changed: Areas, sample: Sample, effort: Effort) -> Audit:
        assert isinstance(base, TapeBase), "the base of another target"
        areas = changed | gone(source, base.sums)
        return audit_frames(source, base.sums, areas, sample.seed, share=sample.share, least=sample.least)

    def keep(self) -> None:
        assert self._file is not None, "nothing was copied"
        assert self._facts is not None, "nothing was copied"
        assert self._sums is not None, "nothing was copied"
        parts = self._file.finish()
        self._above.kept(self._key, self._sums, self._target.monotonic() - self._began_s)
        if self._base is None or self._map is None:
            size_bytes = self._facts.size_bytes
            image = Image(self._key, self._file.name, Kind.FULL, size_bytes, self._facts.sha256, parts)
        else:
            self._above.build_on(self._base.point)
            self._point.add_file(self._map.parts)
            size_bytes = self._sums.size_bytes
            image = Image(
                self._key, self._file.name, Kind.DELTA, size_bytes, self._facts.sha256, parts,
                ranges=self._map.name, base_key=self._base.key,
            )  # fmt: skip
        self._point.add_image(image)

    def abandon(self) -> None:
        self._drop()

    def _stream(self, name: str, source: MappedDevice, effort: Effort) -> tuple[ImageFacts, SeekTable]:
        """An image onto tape, encrypted on the way where that is wanted."""
        chosen = self._target.options
        recipients = chosen.recipients
        self._began_s = self._target.monotonic()
        whole_name = name if recipients is None else f"{name}{layout.AGE}"
        self._file = file = self._point.begin_file(whole_name, ring_bytes=chosen.lane_ring_bytes)
        fixed = chosen.level
        level = Appetite(file.fill).level if fixed is None else lambda: fixed
        options = ImageOptions(workers=effort.workers)
        with image_stream(source, level, options=options, cancel=effort.cancel, interrupt=effort.interrupt) as stream:
            last = _Last(stream)
            sealed = nullcontext(iter(last)) if recipients is None else encrypted(last, recipients)
            with sealed as pieces:
                for piece in pieces:
                    file.write(piece)
                    effort.progress(stream.position)
            self._facts = stream.facts
            file.given()
        return self._facts, parse_table(last.piece, name)

    def _drop(self) -> None:
        """What was copied before is not to be there."""
        for file in (self._file, self._map):
            if file is not None:
                file.abort()
                self._point.abandon(file.parts)
                self._point.forget_name(file.name)
        self._file = self._map = self._facts = self._sums = self._base = None


class _Last:
    """Hands pieces on, and keeps the last of them: the seek table of an image."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.piece = b""

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.piece = piece
            yield piece
