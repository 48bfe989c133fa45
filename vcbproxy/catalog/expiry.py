"""What must not be overwritten, until when, and why: a pure function.

A media set is kept until the latest of what was written down when it was written, on each of its cartridges and in the
catalog, and of what the pool's present rule says. Longer rules hold at once, shorter ones for what is written from now
on. What a kept delta builds upon is kept as long, and so is every cartridge of which the end is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import FOREVER, MediaSet, Medium
from vcbproxy.catalog.records import Placed

_PLAUSIBLE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Hold:
    """A cartridge that must not be overwritten.

    Attributes:
        barcode: which.
        until: until when.
        because: why, in a few words.
    """

    barcode: str
    until: datetime
    because: str


def ends(
    media: Iterable[Medium], sets: Iterable[MediaSet], retention: Mapping[str, Length]
) -> dict[str, datetime | None]:
    """When each media set may be overwritten; None where nobody knows.

    Args:
        media: all cartridges.
        sets: all media sets.
        retention: the present rule of each pool.
    """
    found: dict[str, datetime | None] = {}
    for one in sets:
        known = [one.retention_until, _by_rule(one.last_written, one.pool, retention)]
        found[one.id] = max((end for end in known if end is not None), default=None)
    for medium in media:
        if medium.media_set is None or not medium.has_data:
            continue
        known = [
            found.get(medium.media_set),
            medium.retention_until,
            _by_rule(medium.last_written, medium.pool, retention),
        ]
        found[medium.media_set] = max((end for end in known if end is not None), default=None)
    return found


def _by_rule(last_written: datetime | None, pool: str | None, retention: Mapping[str, Length]) -> datetime | None:
    if last_written is None or pool is None or pool not in retention:
        return None
    return retention[pool].after(last_written)


def before_a_pause(sets: Iterable[MediaSet], now: datetime) -> tuple[set[str], datetime | None]:
    """Media sets that were written before a pause so long that rather the clock is wrong, as by a dead battery.

    By such a clock everything has expired. What was written before it is not overwritten by rule alone.

    Returns:
        The ids of the sets, and when the last of them was written to; none and None, if there was no such pause.
    """
    before: set[str] = set()
    found: datetime | None = None
    seen: set[str] = set()
    end: datetime | None = None
    for one in sorted(sets, key=lambda one: one.began):
        if end is not None and one.began - end > _PLAUSIBLE:
            before, found = set(seen), end
        seen.add(one.id)
        end = max(one.last_written or one.began, end or one.began)
    if end is not None and now - end > _PLAUSIBLE:
        before, found = seen, end
    return before, found


def holds(
    media: Sequence[Medium],
    sets: Sequence[MediaSet],
    points: Sequence[Placed],
    retention: Mapping[str, Length],
    now: datetime,
) -> list[Hold]:
    """Every cartridge with data that must not be overwritten now.

    Args:
        media: all cartridges.
        sets: all media sets.
        points: all restore points on tape.
        retention: the present rule of each pool.
        now: the time.

    Returns:
        One for each, by barcode.
    """
    end_of = ends(media, sets, retention)
    kept: dict[str, Hold] = {}
    for medium in media:
        if not medium.has_data:
            continue
        hold = _own(medium, end_of, retention)
        if hold.until > now:
            kept[medium.barcode] = hold
    _spread(kept, points)
    return [kept[barcode] for barcode in sorted(kept)]


def _own(medium: Medium, end_of: Mapping[str, datetime | None], retention: Mapping[str, Length]) -> Hold:
    if medium.media_set is None:
        known = [medium.retention_until, _by_rule(medium.last_written, medium.pool, retention)]
        end = max((end for end in known if end is not None), default=None)
    else:
        end = end_of.get(medium.media_set)
    if end is None:
        return Hold(medium.barcode, FOREVER, "nobody knows how long it is kept")
    whose = f"media set {medium.media_set}" if medium.media_set else "it"
    return Hold(medium.barcode, end, f"{whose} is kept")


def _spread(kept: dict[str, Hold], points: Sequence[Placed]) -> None:
    """What a kept restore point lies on, and what it builds upon, is kept as long; whatever set that is in.

    A restore point is kept as long as any of its cartridges is.
    """
    by_id = {point.id: point for point in points}
    until: dict[str, datetime] = {}
    pending = []
    for point in points:
        ends_known = [kept[barcode].until for barcode in point.barcodes if barcode in kept]
        if ends_known:
            pending.append((point, max(ends_known)))
    while pending:
        point, end = pending.pop()
        if until.get(point.id, end) > end or (point.id in until and until[point.id] == end):
            continue
        until[point.id] = end
        for barcode in point.barcodes:
            if barcode not in kept or kept[barcode].until < end:
                kept[barcode] = Hold(barcode, end, f"{point.name} is kept")
        if point.base is not None and point.base in by_id:
            pending.append((by_id[point.base], end))
