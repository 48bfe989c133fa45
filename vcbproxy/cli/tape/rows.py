"""Cartridges and media sets as commands show them: the keys of ``docs/json.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcbproxy.cli.moments import when
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.catalog.expiry import Hold
    from vcbproxy.catalog.medium import Medium
    from vcbproxy.catalog.records import ArchivedPoint
    from vcbproxy.catalog.vaulting import Due


def medium_row(medium: Medium, hold: Hold | None, due: Due | None) -> dict[str, Any]:
    """One cartridge in a list."""
    left, whole = medium.remaining_bytes, medium.capacity_bytes
    return {
        "barcode": medium.barcode,
        "state": medium.state.value,
        "pool": medium.pool,
        "media_set": medium.media_set,
        "location": medium.location,
        "kept_until": when(hold.until) if hold is not None else None,
        "because": hold.because if hold is not None else None,
        "size": human(medium.bytes_written),
        "bytes_written": medium.bytes_written,
        "remaining_bytes": left,
        "capacity_bytes": whole,
        "room": f"{left / whole:.0%}" if left is not None and whole else None,
        "due": str(due) if due is not None else None,
        "reason": medium.reason or None,
    }


def medium_details(medium: Medium, hold: Hold | None, due: Due | None, points: list[ArchivedPoint]) -> dict[str, Any]:
    """One cartridge by itself."""
    return {
        **medium_row(medium, hold, due),
        "serial": medium.serial or None,
        "volume": medium.volume_uuid,
        "worm": medium.worm,
        "first_written": when(medium.first_written),
        "last_written": when(medium.last_written),
        "library": medium.library,
        "slot": medium.slot,
        "vault": medium.vault,
        "vaulted": when(medium.vaulted),
        "due_back": when(medium.due_back),
        "loads": medium.loads,
        "made_on": medium.made_on,
        "life_written_mib": medium.life_written_mib,
        "life_read_mib": medium.life_read_mib,
        "last_drive": medium.last_drive,
        "errors": medium.errors,
        "seen": when(medium.seen),
        "points": [point.name for point in points],
    }
