"""Restore points on tape, as the catalog has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from vcbproxy import pointname
from vcbproxy.catalog.database import Database
from vcbproxy.catalog.marks import Marks
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint, Outline
from vcbproxy.catalog.tables import PartRow, PinRow, PointRow, SuspicionRow


class Points:
    """Questions about restore points, and changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, point: ArchivedPoint) -> None:
        """Note one; what was known under its id is replaced, but for marks: that it is suspect is only added.

        Raises:
            Error: the catalog cannot be written.
        """
        with self._database.transaction() as session:
            known = session.get(PointRow, point.id)
            if known is not None:
                session.delete(known)
                session.flush()
            session.add(_row(point))
            if point.suspect and session.get(SuspicionRow, point.id) is None:
                session.add(SuspicionRow(point=point.id, because=point.suspect_because))
            session.flush()

    def listed(self, *, pool: str | None = None) -> list[ArchivedPoint]:
        """All, or a pool's, the oldest first."""
        with self._database.transaction() as session:
            return _records(session, *(() if pool is None else (PointRow.pool == pool,)))

    def outlines(self) -> list[Outline]:
        """All, the oldest first, with no more than what one needs to know what must be kept: cheap at any number."""
        with self._database.transaction() as session:
            where: dict[str, list[str]] = {}
            for point, barcode in session.execute(select(PartRow.point, PartRow.barcode).distinct()):
                where.setdefault(point, []).append(barcode)
            question = select(PointRow.id, PointRow.vm, PointRow.time, PointRow.base)
            return [
                Outline(point, f"{vm}@{time:%Y-%m-%dT%H:%M:%SZ}", base, tuple(where.get(point, ())))
                for point, vm, time, base in session.execute(question.order_by(PointRow.time, PointRow.id))
            ]

    def get(self, point_id: str) -> ArchivedPoint | None:
        """The one with that id, or None."""
        with self._database.transaction() as session:
            return next(iter(_records(session, PointRow.id == point_id)), None)

    def find(self, text: str) -> ArchivedPoint:
        """The one named by ``web01@latest``, ``web01@2026-11-27T01:00:00Z``, or the beginning of an id.

        Raises:
            UsageError: none or several; the message lists what there is.
        """
        return find(self.listed(), text)

    def suspect(self, points: Collection[str], because: str) -> None:
        """Note that restore points, by their ids, are not to be relied upon; see ``Marks``."""
        Marks(self._database).suspect(points, because)

    def of_cartridge(self, barcode: str) -> list[ArchivedPoint]:
        """All of which some part lies on a cartridge, the oldest first."""
        on_it = select(PartRow.point).where(PartRow.barcode == barcode)
        with self._database.transaction() as session:
            return _records(session, PointRow.id.in_(on_it))

    def remove(self, point_id: str) -> None:
        """Forget one; nothing happens to the cartridges."""
        with self._database.transaction() as session:
            row = session.get(PointRow, point_id)
            if row is not None:
                session.delete(row)


def find(points: Sequence[ArchivedPoint], text: str) -> ArchivedPoint:
    """The restore point that a text names, among some, the oldest first; see ``pointname``.

    Raises:
        UsageError: none or several; the message lists what there is.
    """
    return pointname.choose(points, text, "on tape")


def _row(point: ArchivedPoint) -> PointRow:
    parts = [
        PartRow(
            point=point.id,
            place=place,
            file=part.file,
            number=part.number,
            path=part.path,
            barcode=part.barcode,
            volume_uuid=part.volume_uuid,
            size_bytes=part.size_bytes,
            sha256=part.sha256,
        )
        for place, part in enumerate(point.parts)
    ]
    return PointRow(
        id=point.id,
        vm=point.vm,
        vm_uuid=point.vm_uuid,
        time=point.time,
        pool=point.pool,
        media_set=point.media_set,
        base=point.base,
        size_bytes=point.size_bytes,
        partial=point.partial,
        parts=parts,
    )


def _records(session: Session, *conditions: ColumnElement[bool]) -> list[ArchivedPoint]:
    """Columns, not objects: at thousands of restore points that is four times as quick."""
    parts: dict[str, list[ArchivedPart]] = {}
    of_them = select(
        PartRow.point, PartRow.file, PartRow.number, PartRow.path, PartRow.barcode, PartRow.volume_uuid,
        PartRow.size_bytes, PartRow.sha256,
    ).order_by(PartRow.point, PartRow.place)  # fmt: skip
    if conditions:
        of_them = of_them.where(PartRow.point.in_(select(PointRow.id).where(*conditions)))
    for point, file, number, path, barcode, volume_uuid, size_bytes, sha256 in session.execute(of_them):
        part = ArchivedPart(file, number, path, barcode, volume_uuid, size_bytes, sha256)
        parts.setdefault(point, []).append(part)
    question = (
        select(
            PointRow.id, PointRow.vm, PointRow.vm_uuid, PointRow.time, PointRow.pool, PointRow.media_set, PointRow.base,
            PointRow.size_bytes, PointRow.partial, SuspicionRow.because, PinRow.reason,
        )
        .outerjoin(SuspicionRow, SuspicionRow.point == PointRow.id)
        .outerjoin(PinRow, and_(PinRow.point == PointRow.id, PinRow.holds))
        .order_by(PointRow.time, PointRow.id)
    )  # fmt: skip
    return [
        ArchivedPoint(
            point, vm, vm_uuid, time, pool, media_set, base, tuple(parts.get(point, ())),
            size_bytes, partial, because or "", reason is not None, reason or "",
        )
        for point, vm, vm_uuid, time, pool, media_set, base, size_bytes, partial, because, reason
        in session.execute(question.where(*conditions))
    ]  # fmt: skip
