"""A restore point on tape, and where its cartridges are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from vcbproxy.catalog.expiry import Hold
    from vcbproxy.catalog.medium import Medium
    from vcbproxy.catalog.records import ArchivedPoint


@dataclass(frozen=True, slots=True)
class Placed:
    """A restore point, and what is known of its cartridges.

    Attributes:
        point: as the catalog has it.
        media: all cartridges, by label.
        holds: why which of them must be kept.
    """

    point: ArchivedPoint
    media: Mapping[str, Medium]
    holds: Mapping[str, Hold]

    def where(self, barcode: str) -> str:
        """Where a cartridge was seen last, or taken to."""
        return self.media[barcode].location if barcode in self.media else "not known"

    def is_here(self, barcode: str) -> bool:
        """Whether it lies in a library."""
        known = self.media.get(barcode)
        return known is not None and known.library is not None and known.vault is None

    @property
    def hold(self) -> Hold | None:
        """What ends first of all that keeps its own cartridges; None, when one may be overwritten by now."""
        found = [self.holds.get(barcode) for barcode in self.point.barcodes]
        kept = [hold for hold in found if hold is not None]
        return min(kept, key=lambda hold: hold.until) if kept and len(kept) == len(found) else None

    @property
    def kept_until(self) -> datetime | None:
        """Until when none of its cartridges is overwritten; None: one may be."""
        return self.hold.until if self.hold is not None else None
