"""Pins as cartridges bear them: attributes of the volume's root directory, so that a lost catalog does not lose them.

    user.vcbproxy.pin.1f0c9a3e…    {"format": 1, "name": "web01@2026-11-27T01:00:00Z", "pinned": true,
                                    "reason": "before the move", "changed": …, "cartridges": ["TAP001L8", …]}

All pins that the catalog knows go with each index that is written, to whichever cartridge: nothing is loaded for it. Of
one that was taken back it is said for as long as its restore point is known. The last word counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.records import Outlined, Pin

PREFIX = "vcbproxy.pin."
_FORMAT = 1
_BYTES_MAX = 4096  # of an attribute: the reference implementation's limit


@dataclass(frozen=True, slots=True)
class BornePin:
    """A pin that a cartridge tells of.

    Attributes:
        pin: what it says.
        cartridges: the labels of those that the restore point needs, as far as was known.
    """

    pin: Pin
    cartridges: tuple[str, ...]


def borne(xattrs: Mapping[str, bytes]) -> list[BornePin]:
    """What a volume's root directory tells of pins; what cannot be read is passed over, as a newer kind is."""
    found = []
    for key, value in xattrs.items():
        if key.startswith(PREFIX):
            try:
                found.append(_decode(key.removeprefix(PREFIX), json.loads(value)))
            except (ValueError, KeyError, TypeError):
                continue
    return found


def bear(xattrs: dict[str, bytes], catalog: Catalog) -> None:
    """Have a volume's root directory tell what the catalog knows of pins; what only it knew, the catalog takes in."""
    with catalog.transaction():
        take_in(xattrs, catalog)
        catalog.marks.tidy()
        pins = list(catalog.marks.pins().values())
        points = catalog.points.outlines() if pins else []
    for one in borne(xattrs):  # what a newer version said stays as it is
        del xattrs[PREFIX + one.pin.point]
    for pin in pins:
        xattrs[PREFIX + pin.point] = _encode(pin, needed(pin.point, points))


def take_in(xattrs: Mapping[str, bytes], catalog: Catalog) -> list[Pin]:
    """Have the catalog know what a cartridge tells; gives what was news."""
    return catalog.marks.take_in(one.pin for one in borne(xattrs))


def needed(point_id: str, points: Sequence[Outlined]) -> tuple[str, ...]:
    """The cartridges that a restore point lies on, and those of what it builds upon, as far as they are known."""
    by_id = {point.id: point for point in points}
    chain: dict[str, Outlined] = {}
    below = by_id.get(point_id)
    while below is not None and below.id not in chain:
        chain[below.id] = below
        below = by_id.get(below.base or "")
    return tuple(dict.fromkeys(barcode for point in reversed(chain.values()) for barcode in point.barcodes))


def _encode(pin: Pin, cartridges: Sequence[str]) -> bytes:
    """As an attribute: of a long reason, the beginning that finds room."""
    document = {
        "format": _FORMAT,
        "name": pin.name,
        "pinned": pin.holds,
        "reason": pin.reason,
        "changed": pin.changed.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "cartridges": list(cartridges),
    }
    reason = pin.reason
    while len(value := json.dumps(document, ensure_ascii=False).encode()) > _BYTES_MAX and reason:
        reason = reason[: (_BYTES_MAX - len(value)) // 6]  # no character takes more than six bytes in JSON
        document["reason"] = reason
    return value


def _decode(point: str, document: object) -> BornePin:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("a pin of a kind that is not known")
    name, reason, pinned = document["name"], document["reason"], document["pinned"]
    if not (isinstance(name, str) and isinstance(reason, str) and isinstance(pinned, bool)):
        raise TypeError("a pin that is none")
    cartridges = tuple(one for one in document["cartridges"] if isinstance(one, str))
    changed = datetime.fromisoformat(document["changed"])
    if changed.tzinfo is None or not 0 < len(point) <= 32:
        raise ValueError("a pin without a zone, or of no restore point")
    return BornePin(Pin(point, name, pinned, reason, changed), cartridges)
