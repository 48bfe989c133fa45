"""Cartridges and media sets, as the catalog has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from sqlalchemy import select

from vcbproxy.catalog.database import Database
from vcbproxy.catalog.medium import MediaSet, Medium, State
from vcbproxy.catalog.tables import MediumRow, SetRow

_FIELDS = tuple(field.name for field in fields(Medium) if field.name != "state")
_SET_FIELDS = tuple(field.name for field in fields(MediaSet))


class Media:
    """Questions about cartridges, and changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, barcode: str) -> Medium | None:
        """The one with that label, or None."""
        with self._database.transaction() as session:
            row = session.get(MediumRow, barcode)
            return None if row is None else _medium(row)

    def listed(self, *, pool: str | None = None, library: str | None = None) -> list[Medium]:
        """All, or a pool's, or those last seen in a library; by barcode."""
        question = select(MediumRow).order_by(MediumRow.barcode)
        if pool is not None:
            question = question.where(MediumRow.pool == pool)
        if library is not None:
            question = question.where(MediumRow.library == library)
        with self._database.transaction() as session:
            return [_medium(row) for row in session.scalars(question)]

    def put(self, medium: Medium) -> None:
        """Note one, whatever was known of it."""
        self.change(medium.barcode, lambda known: medium)

    def change(self, barcode: str, how: Callable[[Medium | None], Medium]) -> Medium:
        """Change what is known of one, in one transaction.

        Args:
            barcode: which.
            how: from what is known of it now, or None, makes what will be. What it raises leaves all as it was.
        """
        with self._database.transaction() as session:
            row = session.get(MediumRow, barcode)
            made = how(None if row is None else _medium(row))
            assert made.barcode == barcode, "a cartridge keeps its label"
            if row is None:
                row = MediumRow(barcode=barcode)
                session.add(row)
            row.state = made.state.value
            for name in _FIELDS:
                setattr(row, name, getattr(made, name))
            session.flush()
            return made

    def remove(self, barcode: str) -> None:
        """Forget one."""
        with self._database.transaction() as session:
            row = session.get(MediumRow, barcode)
            if row is not None:
                session.delete(row)


class MediaSets:
    """Questions about media sets, and changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, set_id: str) -> MediaSet | None:
        """The one with that id, or None."""
        with self._database.transaction() as session:
            row = session.get(SetRow, set_id)
            return None if row is None else _set(row)

    def listed(self, *, pool: str | None = None) -> list[MediaSet]:
        """All, or a pool's, the oldest first."""
        question = select(SetRow).order_by(SetRow.began, SetRow.id)
        if pool is not None:
            question = question.where(SetRow.pool == pool)
        with self._database.transaction() as session:
            return [_set(row) for row in session.scalars(question)]

    def current(self, pool: str, choose: Callable[[MediaSet | None], MediaSet]) -> MediaSet:
        """The set that a pool is written to from now on, chosen in one transaction.

        Args:
            pool: whose.
            choose: from its newest set, or None, makes the one to be written: that one, or a new one. If it is a new
                one, all before it are closed.
        """
        with self._database.transaction():
            before = self.listed(pool=pool)
            chosen = choose(before[-1] if before else None)
            for one in before:
                if one.id != chosen.id and not one.closed:
                    self.put(replace(one, closed=True))
            self.put(chosen)
            return chosen

    def put(self, media_set: MediaSet) -> None:
        """Note one, whatever was known of it."""
        with self._database.transaction() as session:
            row = session.get(SetRow, media_set.id)
            if row is None:
                row = SetRow(id=media_set.id)
                session.add(row)
            for name in _SET_FIELDS:
                setattr(row, name, getattr(media_set, name))
            session.flush()

    def remove(self, set_id: str) -> None:
        """Forget one."""
        with self._database.transaction() as session:
            row = session.get(SetRow, set_id)
            if row is not None:
                session.delete(row)


def _medium(row: MediumRow) -> Medium:
    return Medium(state=State(row.state), **{name: getattr(row, name) for name in _FIELDS})


def _set(row: SetRow) -> MediaSet:
    return MediaSet(**{name: getattr(row, name) for name in _SET_FIELDS})
