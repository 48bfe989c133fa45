"""The catalog's tables, as the newest step of ``migrations`` leaves them; a test holds the two against each other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, String, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

_BARCODE = String(32)
_SET = String(128)


class UtcTime(TypeDecorator[datetime]):
    """A moment, aware, in UTC; SQLite knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Store it."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read it."""
        if value is None:
            return None
        assert isinstance(value, datetime), "the column's type"
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """The root of all tables."""


class MediumRow(Table):
    """A cartridge."""

    __tablename__ = "medium"

    barcode: Mapped[str] = mapped_column(_BARCODE, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    serial: Mapped[str] = mapped_column(String(64))
    volume_uuid: Mapped[str | None] = mapped_column(String(36))
    pool: Mapped[str | None] = mapped_column(String(64))
    media_set: Mapped[str | None] = mapped_column(_SET)
    first_written: Mapped[datetime | None] = mapped_column(UtcTime)
    last_written: Mapped[datetime | None] = mapped_column(UtcTime)
    retention_until: Mapped[datetime | None] = mapped_column(UtcTime)
    bytes_written: Mapped[int] = mapped_column(BigInteger)
    capacity_bytes: Mapped[int | None] = mapped_column(BigInteger)
    remaining_bytes: Mapped[int | None] = mapped_column(BigInteger)
    worm: Mapped[bool]
    library: Mapped[str | None] = mapped_column(String(64))
    slot: Mapped[int | None]
    vault: Mapped[str | None] = mapped_column(String(200))
    vaulted: Mapped[datetime | None] = mapped_column(UtcTime)
    due_back: Mapped[datetime | None] = mapped_column(UtcTime)
    loads: Mapped[int | None]
    made_on: Mapped[str | None] = mapped_column(String(8))
    life_written_mib: Mapped[int | None] = mapped_column(BigInteger)
    life_read_mib: Mapped[int | None] = mapped_column(BigInteger)
    last_drive: Mapped[str | None] = mapped_column(String(64))
    errors: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    released: Mapped[str | None] = mapped_column(Text)
    seen: Mapped[datetime | None] = mapped_column(UtcTime)


class SetRow(Table):
    """A media set."""

    __tablename__ = "media_set"

    id: Mapped[str] = mapped_column(_SET, primary_key=True)
    pool: Mapped[str] = mapped_column(String(64), index=True)
    began: Mapped[datetime] = mapped_column(UtcTime)
    last_written: Mapped[datetime | None] = mapped_column(UtcTime)
    retention_until: Mapped[datetime | None] = mapped_column(UtcTime)
    closed: Mapped[bool]
    taken_in: Mapped[datetime | None] = mapped_column(UtcTime)


class PointRow(Table):
    """A restore point."""

    __tablename__ = "point"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    vm: Mapped[str] = mapped_column(Text)
    vm_uuid: Mapped[str] = mapped_column(String(64), index=True)
    time: Mapped[datetime] = mapped_column(UtcTime, index=True)
    pool: Mapped[str] = mapped_column(String(64))
    media_set: Mapped[str] = mapped_column(_SET)
    base: Mapped[str | None] = mapped_column(String(32))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    partial: Mapped[bool | None]
    parts: Mapped[list[PartRow]] = relationship(
        order_by="PartRow.place", cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )


class PartRow(Table):
    """One file of a restore point on one cartridge; ``place`` keeps them in their order."""

    __tablename__ = "part"
    __table_args__ = (Index("ix_part_barcode", "barcode"),)

    point: Mapped[str] = mapped_column(ForeignKey("point.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(Integer, primary_key=True)
    file: Mapped[str] = mapped_column(Text)
    number: Mapped[int]
    path: Mapped[str] = mapped_column(Text)
    barcode: Mapped[str] = mapped_column(_BARCODE)
    volume_uuid: Mapped[str] = mapped_column(String(36))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class PinRow(Table):
    """Whether a restore point is pinned, or was and is not any more.

    It outlives the restore point's own row: what a cartridge says of an earlier time is held against it.
    """

    __tablename__ = "pin"

    point: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    holds: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    changed: Mapped[datetime] = mapped_column(UtcTime)


class SuspicionRow(Table):
    """A restore point that an audit found out; it, too, outlives the restore point's own row."""

    __tablename__ = "suspicion"

    point: Mapped[str] = mapped_column(String(32), primary_key=True)
    because: Mapped[str] = mapped_column(Text)
