"""Restore points on tape, as the catalog has them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from vcbproxy.catalog.database import Database
from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.catalog.tables import PartRow, PointRow
from vcbproxy.errors import UsageError

_ID_PREFIX = re.compile(r"[0-9a-f]{4,32}")
_SHOWN_MAX = 5


class Points:
    """Questions about restore points, and changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, point: ArchivedPoint) -> None:
        """Note one; what was known under its id is replaced.

        Raises:
            Error: the catalog cannot be written.
        """
        with self._database.transaction() as session:
            known = session.get(PointRow, point.id)
            if known is not None:
                session.delete(known)
                session.flush()
            session.add(_row(point))

    def listed(self, *, pool: str | None = None) -> list[ArchivedPoint]:
        """All, or a pool's, the oldest first."""
        question = select(PointRow).order_by(PointRow.time, PointRow.id)
        if pool is not None:
            question = question.where(PointRow.pool == pool)
        with self._database.transaction() as session:
            return [_record(row) for row in session.scalars(question)]

    def get(self, point_id: str) -> ArchivedPoint | None:
        """The one with that id, or None."""
        with self._database.transaction() as session:
            row = session.get(PointRow, point_id)
            return None if row is None else _record(row)

    def find(self, text: str) -> ArchivedPoint:
        """The one named by ``web01@latest``, ``web01@2026-11-27T01:00:00Z``, or the beginning of an id.

        Raises:
            UsageError: none or several; the message lists what there is.
        """
        return find(self.listed(), text)

    def of_cartridge(self, barcode: str) -> list[ArchivedPoint]:
        """All of which some part lies on a cartridge, the oldest first."""
        question = (
            select(PointRow)
            .where(PointRow.id.in_(select(PartRow.point).where(PartRow.barcode == barcode)))
            .order_by(PointRow.time, PointRow.id)
        )
        with self._database.transaction() as session:
            return [_record(row) for row in session.scalars(question)]

    def remove(self, point_id: str) -> None:
        """Forget one; nothing happens to the cartridges."""
        with self._database.transaction() as session:
            row = session.get(PointRow, point_id)
            if row is not None:
                session.delete(row)


def find(points: Sequence[ArchivedPoint], text: str) -> ArchivedPoint:
    """The restore point that a text names, among some.

    Args:
        points: the oldest first.
        text: ``VM@latest``, ``VM@time`` (the VM by name or instance uuid), or the beginning of an id.

    Raises:
        UsageError: none or several; the message lists what there is.
    """
    vm, at, moment = text.rpartition("@")
    if not at:
        if not _ID_PREFIX.fullmatch(text):
            raise UsageError(
                f"{text!r} is neither VM@latest, VM@time nor the beginning of an id (4 digits or more); "
                f"{_candidates(points)}"
            )
        return _only([point for point in points if point.id.startswith(text)], text, points)
    of_vm = [point for point in points if vm in (point.vm, point.vm_uuid)]
    if not of_vm:
        names = ", ".join(sorted({point.vm for point in points})[:_SHOWN_MAX]) or "none at all"
        raise UsageError(f"no restore points of {vm!r} on tape; there are some of: {names}")
    uuids = {point.vm_uuid for point in of_vm}
    if len(uuids) > 1:
        raise UsageError(
            f"{len(uuids)} VMs are called {vm!r}; write <instance uuid>@{moment}: {', '.join(sorted(uuids))}"
        )
    if moment == "latest":
        return of_vm[-1]
    wanted = _moment(moment)
    if wanted is None:
        raise UsageError(f"{text!r}: after the @ belongs 'latest' or a time; {_candidates(of_vm)}")
    return _only([point for point in of_vm if point.time.replace(microsecond=0) == wanted], text, of_vm)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).replace(microsecond=0)


def _only(found: Sequence[ArchivedPoint], text: str, among: Sequence[ArchivedPoint]) -> ArchivedPoint:
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text!r} means {len(found)} restore points on tape; {_candidates(found)}")
    raise UsageError(f"no restore point {text!r} on tape; {_candidates(among)}")


def _candidates(points: Sequence[ArchivedPoint]) -> str:
    if not points:
        return "the catalog has none"
    shown = ", ".join(f"{point.id[:8]} {point.name}" for point in points[-_SHOWN_MAX:])
    return f"there are {len(points)}: {'… ' if len(points) > _SHOWN_MAX else ''}{shown}"


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
        parts=parts,
    )


def _record(row: PointRow) -> ArchivedPoint:
    parts = tuple(
        ArchivedPart(part.file, part.number, part.path, part.barcode, part.volume_uuid, part.size_bytes, part.sha256)
        for part in row.parts
    )
    return ArchivedPoint(row.id, row.vm, row.vm_uuid, row.time, row.pool, row.media_set, row.base, parts)
