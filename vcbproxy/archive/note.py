"""What a cartridge says of itself beyond LTFS: whose it is, and until when it must not be overwritten.

An attribute of the volume's root directory, in JSON, so that any LTFS implementation shows it (``getfattr -n
user.vcbproxy.medium /mnt``), and the catalog can be made anew from it:

    {"format": 1, "barcode": "TAP001L8", "pool": "daily", "media_set": "daily-20261127T010000-1f0c",
     "set_began": "2026-11-27T01:00:00Z", "first_written": …, "last_written": …,
     "retention_until": … or "forever", "full": false}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vcbproxy.catalog.medium import FOREVER

KEY = "vcbproxy.medium"
_FORMAT = 1
_FOREVER = "forever"


@dataclass(frozen=True, slots=True)
class Note:
    """What it says.

    Attributes:
        barcode: its label.
        pool: that it was written for; None for one that was only formatted.
        media_set: the id of the set that it belongs to; None likewise.
        set_began: when that was begun.
        first_written: when the volume was first written to.
        last_written: and last.
        retention_until: when it may be overwritten.
        full: whether it was left full; nothing more is written to it then.
    """

    barcode: str
    pool: str | None = None
    media_set: str | None = None
    set_began: datetime | None = None
    first_written: datetime | None = None
    last_written: datetime | None = None
    retention_until: datetime | None = None
    full: bool = False

    def encode(self) -> bytes:
        """As the attribute's value."""
        document = {
            "format": _FORMAT,
            "barcode": self.barcode,
            "pool": self.pool,
            "media_set": self.media_set,
            "set_began": _written(self.set_began),
            "first_written": _written(self.first_written),
            "last_written": _written(self.last_written),
            "retention_until": _written(self.retention_until),
            "full": self.full,
        }
        return json.dumps(document).encode()


def decode(value: bytes) -> Note:
    """Read it.

    Raises:
        ValueError: it is none, or of a newer kind.
    """
    document = json.loads(value)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("a note of a kind that is not known: a newer vcbproxy wrote it")
    barcode = _text(document, "barcode")
    if barcode is None:
        raise ValueError("a note without a barcode")
    return Note(
        barcode,
        _text(document, "pool"),
        _text(document, "media_set"),
        _moment(document, "set_began"),
        _moment(document, "first_written"),
        _moment(document, "last_written"),
        _moment(document, "retention_until"),
        document.get("full") is True,
    )


def _written(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return _FOREVER if moment >= FOREVER else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {key} is no text")
    return value


def _moment(document: Mapping[str, Any], key: str) -> datetime | None:
    text = _text(document, key)
    if text is None or text == _FOREVER:
        return None if text is None else FOREVER
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
