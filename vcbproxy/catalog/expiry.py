"""What must not be overwritten, until when, and why: a pure function.

A media set is kept until the latest of what was written down when it was written, on each of its cartridges and in the
catalog, and of what the pool's present rule says. Longer rules hold at once, shorter ones for what is written from now
on. What a kept delta builds upon is kept as long, and so is every cartridge of which the end is not known.

A set that was read from its cartridges, because the catalog was lost, may have further ones in a vault, written to
until the catalog was lost, with deltas upon what lies here. It is kept as if all of it had been written to when it was
read, by the longest rule that anything of it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import FOREVER, MediaSet, Medium
from vcbproxy.catalog.records import Outlined

_PLAUSIBLE = timedelta(days=90)
_MONTHS_DIFFER = timedelta(days=3)
_WORTH_TELLING = _MONTHS_DIFFER + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Hold:
    """A cartridge that must not be overwritten.

    Attributes:
        barcode: which.
        until: until when.
        because: why, in a few words.
        for_unseen: whether it is so long for cartridges that nobody has seen, if there are any.
    """

    barcode: str
    until: datetime
    because: str
    for_unseen: bool = False


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


def ends_of_unseen(
    media: Iterable[Medium], sets: Iterable[MediaSet], retention: Mapping[str, Length]
) -> dict[str, datetime]:
    """Until when cartridges may be kept that nobody has seen yet; of each media set that was read from cartridges.

    Args:
        media: all cartridges.
        sets: all media sets.
        retention: the present rule of each pool.
    """
    found: dict[str, datetime] = {}
    for one in sets:
        if one.taken_in is not None:
            found[one.id] = max(
                _by_rule(one.taken_in, one.pool, retention) or one.taken_in,
                _as_long_after(one.taken_in, one.last_written, one.retention_until),
            )
    taken_in = {one.id: one.taken_in for one in sets if one.taken_in is not None}
    for medium in media:
        moment = taken_in.get(medium.media_set or "")
        if moment is not None and medium.has_data and medium.media_set is not None:
            end = _as_long_after(moment, medium.last_written, medium.retention_until)
            found[medium.media_set] = max(found[medium.media_set], end)
    return found


def _as_long_after(moment: datetime, last_written: datetime | None, until: datetime | None) -> datetime:
    """As long after a moment as was promised when something was written; months are of different length."""
    if last_written is None or until is None or until < last_written:
        return moment
    if until >= FOREVER:
        return FOREVER
    try:
        return min(moment + (until - last_written) + _MONTHS_DIFFER, FOREVER)
    except OverflowError:
        return FOREVER


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
    points: Sequence[Outlined],
    retention: Mapping[str, Length],
    now: datetime,
    pins: Mapping[str, str] = MappingProxyType({}),
) -> list[Hold]:
    """Every cartridge with data that must not be overwritten now.

    Args:
        media: all cartridges.
        sets: all media sets.
        points: all restore points on tape.
        retention: the present rule of each pool.
        now: the time.
        pins: why which restore points are pinned, by their ids; nothing, where nobody said why.

    Returns:
        One for each, by barcode.
    """
    end_of = ends(media, sets, retention)
    unseen = ends_of_unseen(media, sets, retention)
    taken_in = {one.id: one.taken_in for one in sets}
    kept: dict[str, Hold] = {}
    for medium in media:
        if not medium.has_data:
            continue
        hold = _own(medium, end_of, retention)
        end = unseen.get(medium.media_set or "", hold.until)
        if end - hold.until > _WORTH_TELLING:
            hold = Hold(medium.barcode, end, _unseen(medium.media_set, taken_in[medium.media_set or ""]), True)
        elif end > hold.until:
            hold = replace(hold, until=end)
        if hold.until > now:
            kept[medium.barcode] = hold
    _spread(kept, points)
    _pin(kept, points, pins)
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


def _unseen(media_set: str | None, taken_in: datetime | None) -> str:
    return (
        f"media set {media_set} was read from its cartridges on {taken_in:%Y-%m-%d}, others may lie elsewhere "
        "(if not: `vcbproxy tape catalog rebuild --complete`): it is kept"
    )


def _spread(kept: dict[str, Hold], points: Sequence[Outlined]) -> None:
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


def _pin(kept: dict[str, Hold], points: Sequence[Outlined], pins: Mapping[str, str]) -> None:
    """What a pinned restore point lies on, and what it builds upon, is kept until it is unpinned."""
    by_id = {point.id: point for point in points}
    for pinned in (by_id[one] for one in pins if one in by_id):
        because = f" ({pins[pinned.id]})" if pins[pinned.id] else ""
        point: Outlined | None = pinned
        seen: set[str] = set()
        while point is not None and point.id not in seen:
            seen.add(point.id)
            for barcode in point.barcodes:
                kept[barcode] = Hold(barcode, FOREVER, f"{pinned.name} is pinned{because}: it is kept")
            point = by_id.get(point.base or "")
