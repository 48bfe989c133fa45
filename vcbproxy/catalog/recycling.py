"""What may be written over, and what goes with it: pure functions. What they give is carried out elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from vcbproxy.catalog.allocation import is_expired
from vcbproxy.catalog.medium import Medium
from vcbproxy.catalog.records import Outlined

_P = TypeVar("_P", bound=Outlined)


def expired(media: Iterable[Medium], held: Collection[str], *, pool: str | None = None) -> list[Medium]:
    """Cartridges with data that nothing holds any more; by barcode.

    Args:
        media: all there are.
        held: labels of those that must be kept; see ``expiry``.
        pool: only this one's.
    """
    found = [medium for medium in media if is_expired(medium, held) and pool in (None, medium.pool)]
    return sorted(found, key=lambda medium: medium.barcode)


def lost_with(points: Sequence[_P], barcodes: Collection[str]) -> list[_P]:
    """Restore points that cannot be restored without some cartridges: those on them, and what builds upon those."""
    lost = {point.id for point in points if any(barcode in barcodes for barcode in point.barcodes)}
    while True:
        more = {point.id for point in points if point.base in lost} - lost
        if not more:
            return [point for point in points if point.id in lost]
        lost |= more
