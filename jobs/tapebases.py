"""Which restore point on tape a delta can be made upon: the newest of its VM in the same media set, remembered here.

    ledger ─▶ of this pool and media set ─▶ the newest of each VM ─▶ same keys, chain whole and not too long ─▶ offered

Only the newest is offered, so that all deltas of one restore point build on one other. Beyond ``DELTAS_MAX`` the next
is a full one: each delta more is a cartridge more that a restore may need.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from jobs.target import PastPoint
from vcbproxy.archive.bases import chain, suspect_with
from vcbproxy.archive.manifest import Base, Document
from vcbproxy.archive.remembered import FrameSums, Remembered
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import IntegrityError
from vcbproxy.repository.points import PointSummary

DELTAS_MAX = 30


class Ledger(Protocol):
    """Where it is written down what lies on which cartridge: the catalog."""

    def add(self, point: ArchivedPoint) -> None:
        """Note a restore point that is safe on its cartridges."""

    def listed(self) -> list[ArchivedPoint]:
        """All restore points, the oldest first."""

    def suspect(self, points: Collection[str], because: str) -> None:
        """Note that restore points, by their ids, are not to be relied upon."""


@dataclass(frozen=True, slots=True)
class TapeBase:
    """A disk in an earlier restore point on tape: what a delta is made upon.

    Attributes:
        point: the restore point.
        key: what the disk was called there.
        sums: of its frames.
    """

    point: Base
    key: str
    sums: FrameSums


@dataclass(frozen=True, slots=True)
class PointOnTape:
    """A restore point on tape in a list of earlier ones."""

    archived: ArchivedPoint

    @property
    def suspect(self) -> bool:
        """By an audit, or by one before it was copied from the repository."""
        return self.archived.suspect

    @property
    def id(self) -> str:
        """Its id."""
        return self.archived.id

    @property
    def original(self) -> str:
        """The same: it never changes."""
        return self.archived.id

    @property
    def name(self) -> str:
        """``web01@2026-11-27T01:00:00Z``."""
        return self.archived.name

    @property
    def instance_uuid(self) -> str:
        """Of which VM it is."""
        return self.archived.vm_uuid

    @property
    def time(self) -> datetime:
        """When it was frozen."""
        return self.archived.time


@dataclass(frozen=True, slots=True)
class PastOnTape:
    """One that is looked into."""

    point: PointOnTape
    document: Document
    remembered: Remembered

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the backup recorded."""
        return self.document.manifest

    def has(self, key: str) -> bool:
        """Whether the disk is in it."""
        return any(image.key == key for image in self.document.images)

    def base(self, key: str) -> TapeBase:
        """What a delta of a disk is made upon.

        Raises:
            IntegrityError: that is not remembered.
        """
        image = next(image for image in self.document.images if image.key == key)
        sums = self.remembered.sums(self.document.id, key, image.size_bytes)
        return TapeBase(Base(self.document.id, self.document.name), key, sums)


class TapeBases:
    """Bases in one pool."""

    def __init__(
        self,
        ledger: Ledger,
        remembered: Remembered,
        pool: str,
        encryption: Mapping[str, Any],
        doubtful: Callable[[], Collection[str]],
    ) -> None:
        """Use what is known.

        Args:
            ledger: all restore points.
            remembered: what deltas are made by.
            pool: which is written to.
            encryption: of what is written now, as ``vm.json`` has it.
            doubtful: gives the labels of cartridges that nothing more should come to depend on.
        """
        self._encryption = dict(encryption)
        self._doubtful = doubtful
        self._ledger = ledger
        self._remembered = remembered
        self._pool = pool
        self.sets: set[str] = set()
        """The media sets that are written to."""

    def points(self) -> Sequence[PointOnTape]:
        """Those that can be built upon, oldest first; at most one of each VM."""
        listed = self._ledger.listed()
        self._remembered.forget_all_but({point.id for point in listed})
        newest = {point.vm_uuid: point for point in listed if point.pool == self._pool and point.media_set in self.sets}
        doubtful = set(self._doubtful())
        return [
            PointOnTape(point)
            for point in sorted(newest.values(), key=lambda point: point.time)
            if self._remembered.has(point.id) and _holds(point, listed, doubtful) and self._same_keys(point.id)
        ]

    def _same_keys(self, point_id: str) -> bool:
        """Whether it was encrypted as what is written now: who has the key of a delta can read all that is below it."""
        try:
            return self._remembered.document(point_id).encryption == self._encryption
        except IntegrityError:
            return False

    def past(self, point: PastPoint) -> PastOnTape:
        """Look into one.

        Raises:
            IntegrityError: what is remembered of it is damaged.
        """
        assert isinstance(point, PointOnTape), "a restore point of another target"
        return PastOnTape(point, self._remembered.document(point.id), self._remembered)

    def suspect(self, point: PastPoint) -> None:
        """It is not to be relied upon, and no more those that it builds on, down to the last full one.

        Raises:
            Error: that could not be noted.
        """
        assert isinstance(point, PointOnTape), "a restore point of another target"
        found = suspect_with(point.archived, self._ledger.listed())
        self._ledger.suspect(found, "an audit found that changes of its VM were not all told")


def doubt_copies(ledger: Ledger, stored: Iterable[PointSummary]) -> None:
    """Mark copies of what was found suspect in the repository since: the same VM at the same moment.

    Raises:
        Error: that could not be noted.
    """
    suspect = {(point.instance_uuid, point.time.replace(microsecond=0)) for point in stored if point.suspect}
    copies = [one.id for one in ledger.listed() if (one.vm_uuid, one.time) in suspect and not one.suspect]
    ledger.suspect(copies, "the restore point that it is a copy of was found out by an audit")


def _holds(point: ArchivedPoint, listed: Sequence[ArchivedPoint], doubtful: Collection[str]) -> bool:
    """Whether all that it is made of is there, on cartridges that can be relied upon, and not too much of it."""
    try:
        below = chain(point, listed)
    except IntegrityError:
        return False
    return len(below) <= DELTAS_MAX and not any(barcode in doubtful for one in below for barcode in one.barcodes)
