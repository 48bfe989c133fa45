"""Moments as commands show them."""

from __future__ import annotations

from datetime import UTC, datetime


def when(moment: datetime | None) -> str | None:
    """A moment, or ``forever``."""
    from vcbproxy.catalog.medium import FOREVER

    if moment is None:
        return None
    return "forever" if moment >= FOREVER else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
