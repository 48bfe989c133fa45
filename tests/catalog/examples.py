"""Cartridges, sets and restore points to try the rules with; each test says only what matters to it."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import md5

from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def point(
    name: str = "web01",
    *barcodes: str,
    time: datetime = NOON,
    media_set: str = "daily-1",
    base: str | None = None,
    point_id: str = "",
) -> ArchivedPoint:
    parts = tuple(
        ArchivedPart("scsi0-0.raw.zst", number, f"/{name}/{number}", barcode, f"volume of {barcode}", 1 << 40, "0" * 64)
        for number, barcode in enumerate(barcodes or ("TAP001L8",), 1)
    )
    own = point_id or md5(f"{name}{time}".encode(), usedforsecurity=False).hexdigest()
    return ArchivedPoint(own, name, f"uuid of {name}", time, "daily", media_set, base, parts)
