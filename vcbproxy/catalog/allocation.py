"""Which media set is written to, and which cartridge of it: pure functions.

today's set?  ─▶ goes_on(newest set) ── yes ─▶ its cartridge with room
│ no                        │ none
▼                           ▼
a new set ─────────▶ scratch ─▶ expired, the oldest first ─▶ ask a person for one
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import MediaSet, Medium, State
from vcbproxy.config.barcodes import BarcodeRange
from vcbproxy.config.repository import Day
from vcbproxy.config.tape import Allocation


@dataclass(frozen=True, slots=True)
class Terms:
    """A pool's rules.

    Attributes:
        pool: its name.
        barcodes: which cartridges it may take.
        allocation: when a new media set is begun.
        weekday: with ``weekly``: on which day.
        appendable_for: with ``continue``: how long after it began a set is appended to.
        retention: how long after the last writing none of a set is overwritten.
        zone: whose midnights part the days.
    """

    pool: str
    barcodes: tuple[BarcodeRange, ...]
    allocation: Allocation
    weekday: Day | None
    appendable_for: Length
    retention: Length
    zone: tzinfo

    def may_take(self, barcode: str) -> bool:
        """Whether the pool's ranges have it."""
        return any(barcode in barcodes for barcodes in self.barcodes)


def goes_on(newest: MediaSet | None, terms: Terms, now: datetime) -> bool:
    """Whether a job run that begins now appends to the pool's newest media set.

    Within one job run a set is never left, whatever the hour.
    """
    if newest is None or newest.closed or terms.allocation is Allocation.ALWAYS:
        return False
    if newest.began > now:  # a clock was set back: what it means is not known
        return True
    if terms.allocation is Allocation.WEEKLY:
        assert terms.weekday is not None, "held by the configuration"
        return newest.began >= last_weekday(terms.weekday, now, terms.zone)
    return now < terms.appendable_for.after(newest.began)


def last_weekday(day: Day, now: datetime, zone: tzinfo) -> datetime:
    """The midnight with which the newest such day of the week began, today's included."""
    here = now.astimezone(zone)
    back = (here.weekday() - list(Day).index(day)) % 7
    return (here - timedelta(days=back)).replace(hour=0, minute=0, second=0, microsecond=0)


def may_append(medium: Medium, media_set: str) -> bool:
    """Whether a set goes on on this cartridge."""
    return medium.state is State.APPENDABLE and medium.media_set == media_set


@dataclass(frozen=True, slots=True)
class Candidates:
    """Cartridges for writing, the best first.

    Attributes:
        here: in the library, and not in use.
        elsewhere: that would do if somebody brought them, as labels; the best first.
    """

    here: tuple[Medium, ...]
    elsewhere: tuple[str, ...]


def candidates(
    media: Iterable[Medium],
    held: Collection[str],
    terms: Terms,
    media_set: str,
    present: Collection[str],
    taken: Collection[str],
) -> Candidates:
    """Sort out which cartridges a set may be written to.

    Args:
        media: all that the catalog knows.
        held: labels of those that must not be overwritten; see ``expiry``.
        terms: the pool's.
        media_set: the set that is written.
        present: barcodes in the library, those that the catalog does not know among them.
        taken: barcodes that somebody writes to or reads.
    """
    known = {medium.barcode: medium for medium in media}
    ranked: list[tuple[int, datetime, str, Medium]] = []
    for medium in known.values():
        rank = _rank(medium, media_set, terms, held)
        if rank is not None and medium.barcode not in taken:
            ranked.append((rank, medium.last_written or medium.first_written or _NEVER, medium.barcode, medium))
    for barcode in sorted(set(present) - set(known) - set(taken)):
        if terms.may_take(barcode):
            ranked.append((_UNKNOWN, _NEVER, barcode, Medium(barcode, State.SCRATCH)))
    ranked.sort(key=lambda item: item[:3])
    return Candidates(
        tuple(medium for *_, medium in ranked if medium.barcode in present),
        tuple(medium.barcode for *_, medium in ranked if medium.barcode not in present),
    )


_APPENDABLE, _SCRATCH, _UNKNOWN, _EXPIRED = range(4)
_NEVER = datetime.min.replace(tzinfo=UTC)


def _rank(medium: Medium, media_set: str, terms: Terms, held: Collection[str]) -> int | None:
    if may_append(medium, media_set):
        return _APPENDABLE
    if not terms.may_take(medium.barcode):
        return None
    if medium.state is State.SCRATCH:
        return _SCRATCH
    if is_expired(medium, held) and medium.pool == terms.pool and medium.media_set != media_set:
        return _EXPIRED
    return None


def is_expired(medium: Medium, held: Collection[str]) -> bool:
    """Whether a cartridge with data may be overwritten: nothing holds it, it is sound, and it can be."""
    return medium.state in (State.APPENDABLE, State.FULL) and medium.barcode not in held and not medium.worm
