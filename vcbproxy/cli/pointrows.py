"""Restore points as lists show them, wherever they lie: the keys of ``docs/json.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcbproxy.cli.moments import when
from vcbproxy.units import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcbproxy.catalog.records import ArchivedPoint
    from vcbproxy.cli.placed import Placed
    from vcbproxy.repository.points import PointSummary


def in_repository(point: PointSummary) -> dict[str, Any]:
    """One in the repository."""
    return _row(
        point,
        on="repository",
        first_id=point.original,
        instance_uuid=point.instance_uuid,
        stored_bytes=point.added_bytes,
        method=point.method or None,
        policy=point.policy or None,
        tags=point.tags,
    )


def on_tape(placed: Placed) -> dict[str, Any]:
    """One on tape; where its cartridges are is as it was last seen."""
    point = placed.point
    away = [f"{barcode} ({placed.where(barcode)})" for barcode in point.barcodes if not placed.is_here(barcode)]
    return _row(
        point,
        on=f"tape:{point.pool}",
        first_id=point.id,
        instance_uuid=point.vm_uuid,
        stored_bytes=sum(part.size_bytes for part in point.parts),
        method="full" if point.base is None else "incremental",
    ) | {
        "base": point.base,
        "media_set": point.media_set,
        "barcodes": list(point.barcodes),
        "away": away,
        "kept_until": when(placed.kept_until),
    }


def _row(
    point: PointSummary | ArchivedPoint,
    *,
    on: str,
    first_id: str,
    instance_uuid: str,
    stored_bytes: int | None,
    method: str | None,
    policy: str | None = None,
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """All keys in their order; those that only tape has are empty."""
    return {
        "point": point.id[:8],
        "point_id": point.id,
        "first_id": first_id,
        "vm": point.vm,
        "instance_uuid": instance_uuid,
        "time": point.name.rpartition("@")[2],
        "size": None if point.size_bytes is None else human(point.size_bytes),
        "size_bytes": point.size_bytes,
        "stored": None if stored_bytes is None else human(stored_bytes),
        "bytes_stored": stored_bytes,
        "method": method,
        "policy": policy,
        "partial": point.partial,
        "suspect": point.suspect,
        "pinned": point.pinned,
        "pinned_because": point.pinned_because or None,
        "tags": list(tags),
        "on": on,
        "base": None,
        "media_set": None,
        "barcodes": [],
        "away": [],
        "kept_until": None,
    }
