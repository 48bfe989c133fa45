"""What became of each VM that was backed up, as a row of ``vcbproxy backup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcbproxy.cli import frame
from vcbproxy.units import human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.outcome import VmResult


def show(results: Sequence[VmResult], as_json: bool) -> None:
    """Print what became of each VM."""
    frame.emit(
        [_row(result) for result in results],
        as_json=as_json,
        columns=("vm", "outcome", "point", "method", "size", "read", "stored", "seconds", "quiesced"),
        columns_if_any=("barcodes", "starved_seconds", "why_full", "suspects"),
    )


def _row(result: VmResult) -> dict[str, Any]:
    from jobs.manifest import method_of

    size = sum(disk.size_bytes for disk in result.disks)
    read = sum(disk.bytes_read for disk in result.disks)
    why = list(dict.fromkeys(disk.full_because for disk in result.disks if disk.full_because))
    stored = sum(disk.bytes_stored for disk in result.disks)
    media = result.media or {}
    return {
        "vm": result.vm,
        "outcome": result.outcome.value,
        "point": result.point and result.point[:8],
        "point_id": result.point,
        "method": method_of(result.disks),
        "why_full": "; ".join(why) or None,
        "size": human(size),
        "size_bytes": size,
        "read": human(read),
        "bytes_read": read,
        "stored": human(stored),
        "bytes_stored": stored,
        "seconds": round(result.seconds, 1),
        "quiesced": result.quiesced,
        "disks": [
            {
                "key": disk.key,
                "size_bytes": disk.size_bytes,
                "bytes_read": disk.bytes_read,
                "bytes_stored": disk.bytes_stored,
                "attempts": disk.attempts,
                "error": disk.error,
                "method": disk.method,
                "base": disk.base,
                "full_because": disk.full_because,
                "bytes_changed": disk.bytes_changed,
                "audit": disk.audit and disk.audit.as_json(),
            }
            for disk in result.disks
        ],
        "snapshot_left": result.snapshot_left,
        "suspects": list(result.suspects),
        "barcodes": list(media.get("barcodes", ())),
        "starved_seconds": media.get("starved_seconds"),
        "tape": media or None,
        "warnings": list(result.warnings),
        "error": None if result.error is None else str(result.error),
    }
