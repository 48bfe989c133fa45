"""Cartridges given up: those that have expired, by rule; those of which a person says so, by what was seen on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vcbproxy.archive.identify import Found
from vcbproxy.archive.keeper import Keeper, cleared
from vcbproxy.catalog.expiry import Hold
from vcbproxy.catalog.medium import Medium, State
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.catalog.recycling import expired, lost_with
from vcbproxy.errors import UsageError


@dataclass(frozen=True, slots=True)
class Release:
    """What a person gives up.

    Attributes:
        hold: why it would be kept.
        lost: restore points that go with it.
        released: whether it was, or it was only said what would be.
    """

    hold: Hold | None
    lost: tuple[ArchivedPoint, ...]
    released: bool


def release(keeper: Keeper, barcode: str, found: Found, fingerprint: str | None) -> Release:
    """Allow what lies on a cartridge to be overwritten, if it is exactly what was meant.

    Args:
        keeper: of the catalog.
        barcode: its label.
        found: what lies on it now.
        fingerprint: of what is meant; None, or another one: nothing is released.

    Raises:
        UsageError: it was retired, failed, or is a cleaning cartridge; or something that needs it is pinned.
    """
    catalog = keeper.catalog
    with catalog.transaction():
        known = catalog.media.get(barcode)
        if known is not None and known.state in (State.RETIRED, State.DAMAGED, State.CLEANING):
            raise UsageError(f"cartridge {barcode} is {known.state.value}, and not written to: {known.reason or '-'}")
        hold = keeper.holds().get(barcode)
        lost = tuple(lost_with(catalog.points.listed(), [barcode]))
        if fingerprint != found.fingerprint:
            return Release(hold, lost, released=False)
        if pinned := [point.name for point in lost if point.pinned]:
            raise UsageError(f"{', '.join(pinned)} needs {barcode}, and is pinned: `vcbproxy points unpin` first")
        for point in lost:
            catalog.points.remove(point.id)
        medium = cleared(known or Medium(barcode, State.SCRATCH), worm=found.worm)
        medium = replace(medium, serial=found.serial, volume_uuid=found.volume_uuid, released=found.fingerprint)
        catalog.media.put(replace(medium, seen=keeper.hand.now()))
        return Release(hold, lost, released=True)


def recycle(keeper: Keeper, pool: str | None, *, dry_run: bool) -> list[tuple[Medium, list[ArchivedPoint]]]:
    """Give expired cartridges to all pools; each with the restore points that were on it.

    Args:
        keeper: of the catalog.
        pool: only this one's.
        dry_run: only say which.
    """
    catalog = keeper.catalog
    with catalog.transaction():
        found = expired(catalog.media.listed(), keeper.holds(), pool=pool)
        outcome = [(medium, catalog.points.of_cartridge(medium.barcode)) for medium in found]
        if not dry_run:
            for medium, _ in outcome:
                # Its volume stays known: only that one may be overwritten.
                catalog.media.put(replace(cleared(medium), volume_uuid=medium.volume_uuid))
            for point in lost_with(catalog.points.listed(), [medium.barcode for medium in found]):
                catalog.points.remove(point.id)
    return outcome
