"""What people and audits say of restore points on tape: that one is pinned, that one is suspect.

A mark outlives the catalog's record of its restore point, so that one that is read from its cartridges again has it.
What is said of a pin has a time, and the last word counts, wherever it comes from: the catalog, or a cartridge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select

from vcbproxy.catalog.database import Database
from vcbproxy.catalog.records import ArchivedPoint, Pin
from vcbproxy.catalog.tables import PinRow, PointRow, SuspicionRow


class Marks:
    """Questions about marks, and changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pins(self) -> dict[str, Pin]:
        """All that is known of pins, also of those that hold no more; by restore point."""
        with self._database.transaction() as session:
            rows = session.scalars(select(PinRow).order_by(PinRow.changed, PinRow.point))
            return {row.point: Pin(row.point, row.name, row.holds, row.reason, row.changed) for row in rows}

    def pin(self, point: ArchivedPoint, reason: str, now: datetime) -> None:
        """Have no rule give up what a restore point needs; with another reason, that one counts."""
        self._say(Pin(point.id, point.name, True, reason, now))

    def unpin(self, point_id: str, now: datetime) -> None:
        """Let the rules decide again."""
        with self._database.transaction():
            if (pin := self.pins().get(point_id)) is not None:
                self._say(replace(pin, holds=False, reason="", changed=now))

    def _say(self, pin: Pin) -> None:
        """The last word, also by a clock that was set back."""
        with self._database.transaction():
            before = self.pins().get(pin.point)
            if before is None or (before.holds, before.reason) != (pin.holds, pin.reason):
                at_least = pin.changed if before is None else before.changed + timedelta(microseconds=1)
                self.take_in([replace(pin, changed=max(pin.changed, at_least))])

    def take_in(self, pins: Iterable[Pin]) -> list[Pin]:
        """Note pins, but for those of which something later is known.

        Returns:
            Those that were news.
        """
        with self._database.transaction() as session:
            news = []
            for pin in pins:
                row = session.get(PinRow, pin.point)
                if row is not None and row.changed >= pin.changed:
                    continue
                if row is None:
                    row = PinRow(point=pin.point)
                    session.add(row)
                row.name, row.holds, row.reason, row.changed = pin.name, pin.holds, pin.reason, pin.changed
                session.flush()
                news.append(pin)
            return news

    def tidy(self) -> None:
        """Forget pins that hold no more, of restore points that are not known any more either."""
        with self._database.transaction() as session:
            over = select(PinRow).where(PinRow.holds.is_(False), PinRow.point.not_in(select(PointRow.id)))
            for row in session.scalars(over).all():
                session.delete(row)

    def suspect(self, points: Iterable[str], because: str) -> None:
        """Note that restore points are not to be relied upon; what was known first stays."""
        with self._database.transaction() as session:
            for point in points:
                if session.get(SuspicionRow, point) is None:
                    session.add(SuspicionRow(point=point, because=because))
                    session.flush()
