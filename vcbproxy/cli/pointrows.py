"""Restore points as lists show them, wherever they lie: the keys of ``docs/json.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcbproxy.cli.moments import when
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.cli.placed import Placed
    from vcbproxy.repository.points import PointSummary


def in_repository(point: PointSummary) -> dict[str, Any]:
    """One in the repository."""
    return {
        "point": point.short_id,
        "point_id": point.id,
        "first_id": point.original,
        "vm": point.vm,
        "instance_uuid": point.instance_uuid,
        "time": point.name.rpartition("@")[2],
        "size": None if point.size_bytes is None else human(point.size_bytes),
        "size_bytes": point.size_bytes,
        "stored": None if point.added_bytes is None else human(point.added_bytes),
        "bytes_stored": point.added_bytes,
        "method": point.method or None,
        "policy": point.policy or None,
        "partial": point.partial,
        "suspect": point.suspect,
        "pinned": point.pinned,
        "pinned_because": point.pinned_because or None,
        "tags": list(point.tags),
        "on": "repository",
        "base": None,
        "media_set": None,
        "barcodes": [],
        "away": [],
        "kept_until": None,
    }


def on_tape(placed: Placed) -> dict[str, Any]:
    """One on tape; where its cartridges are is as it was last seen."""
    point = placed.point
    stored = sum(part.size_bytes for part in point.parts)
    return {
        "point": point.id[:8],
        "point_id": point.id,
        "first_id": point.id,
        "vm": point.vm,
        "instance_uuid": point.vm_uuid,
        "time": point.name.rpartition("@")[2],
        "size": None if point.size_bytes is None else human(point.size_bytes),
        "size_bytes": point.size_bytes,
        "stored": human(stored),
        "bytes_stored": stored,
        "method": "full" if point.base is None else "incremental",
        "policy": None,
        "partial": point.partial,
        "suspect": point.suspect,
        "pinned": point.pinned,
        "pinned_because": point.pinned_because or None,
        "tags": [],
        "on": f"tape:{point.pool}",
        "base": point.base,
        "media_set": point.media_set,
        "barcodes": list(point.barcodes),
        "away": [f"{barcode} ({placed.where(barcode)})" for barcode in point.barcodes if not placed.is_here(barcode)],
        "kept_until": when(placed.kept_until),
    }
