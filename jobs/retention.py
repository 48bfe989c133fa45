"""Which restore points stay and which may go: a pure function that gives its reasons.

    points ─▶ by VM (its instance UUID) and policy ─▶ each rule, newest first ─▶ keep or forget, and why

The rules are restic's and mean what they mean there: the last of each of so many hours, days, ISO weeks, months, years
that have one; the oldest of all while a rule's count is not used up; and everything within a time before the newest.
What stock ``restic forget`` does not know, or does otherwise (decision 23):

- Days begin at midnight in a time zone that is given. The hour that the clock shows twice in autumn is two hours.
- One that lacks a disk, or that is suspect, never counts against a good one. It stays where it stands for an hour, day,
  ... that has no good one, in addition to all that stays without it.
- One dated later than now is counted by no rule. It stays, and pushes nothing out.
- Pinned ones stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo

from vcbproxy.errors import UsageError
from vcbproxy.repository.points import PointSummary

UNLIMITED = -1
_DURATION = re.compile(r"(?=.)(?:([0-9]{1,4})y)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})d)?(?:([0-9]{1,7})h)?")


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time by the calendar, as restic writes it: ``1y6m``, ``30d``, ``36h``."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read one.

        Raises:
            UsageError: it is none, or of no length.
        """
        match = _DURATION.fullmatch(text)
        parts = [int(part or 0) for part in match.groups()] if match else [0]
        if not any(parts):
            raise UsageError(f"{text!r} is no length of time; write it like 1y6m, 30d or 36h")
        return cls(*parts)

    def before(self, moment: datetime) -> datetime:
        """This long before a moment, by the calendar of its zone; the 31st of a short month is the next month's 1st."""
        months = moment.year * 12 + moment.month - 1 - self.years * 12 - self.months
        try:
            first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
            that_day = first + timedelta(days=moment.day - 1 - self.days)
            return that_day.astimezone(UTC) - timedelta(hours=self.hours)
        except (ValueError, OverflowError):  # before the year 1
            return datetime.min.replace(tzinfo=UTC)

    def __str__(self) -> str:
        parts = zip((self.years, self.months, self.days, self.hours), "ymdh", strict=True)
        return "".join(f"{number}{unit}" for number, unit in parts if number)


@dataclass(frozen=True, slots=True)
class Rule:
    """What to keep. Counts may be ``UNLIMITED``; 0 and None keep nothing."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration | None = None
    within_hourly: Duration | None = None
    within_daily: Duration | None = None
    within_weekly: Duration | None = None
    within_monthly: Duration | None = None
    within_yearly: Duration | None = None

    @property
    def empty(self) -> bool:
        """Whether it keeps nothing."""
        return not any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one restore point, and why."""

    point: PointSummary
    keep: bool
    reasons: tuple[str, ...]


def judge(points: Iterable[PointSummary], rule: Rule, *, now: datetime, zone: tzinfo) -> list[Verdict]:
    """Apply a rule to each VM and policy by itself.

    Args:
        points: in any order.
        rule: what to keep.
        now: what is later is in the future.
        zone: whose midnights part the days.

    Returns:
        A verdict for each, in the order of the points.

    Raises:
        UsageError: the rule keeps nothing.
    """
    if rule.empty:
        raise UsageError("nothing says what to keep: give --keep-last, --keep-daily, ..., or write [retention]")
    listed = list(points)
    groups: dict[tuple[str, str], list[PointSummary]] = {}
    for point in sorted(listed, key=lambda point: (point.time, point.id), reverse=True):
        groups.setdefault((point.vm_key, point.policy), []).append(point)
    verdicts: dict[str, Verdict] = {}
    for group in groups.values():
        judged = _Group(group, now, zone)
        judged.apply(rule)
        verdicts |= {verdict.point.id: verdict for verdict in judged.verdicts()}
    return [verdicts[point.id] for point in listed]


def last_good(points: Iterable[PointSummary], now: datetime) -> dict[str, PointSummary]:
    """The newest good restore point of each VM; where there is no good one, the newest.

    Good ones from the future come last: they may not be what they say.
    """
    best: dict[str, PointSummary] = {}
    for point in points:
        known = best.get(point.vm_key)
        if known is None or _worth(known, now) < _worth(point, now):
            best[point.vm_key] = point
    return best


def counts(point: PointSummary, now: datetime) -> bool:
    """Whether it is good, and not from the future."""
    return point.good and point.time <= now


def _worth(point: PointSummary, now: datetime) -> tuple[bool, bool, datetime, str]:
    return counts(point, now), point.good, point.time, point.id


Slot = Callable[[PointSummary], object]
Moment = Callable[[datetime], object]

# Of each of these one restore point is kept: rule, what messages call it, and what tells two of them apart.
_SPANS: tuple[tuple[str, str, Moment], ...] = (
    # The offset tells the two hours apart that bear one name when the clock is set back.
    ("hourly", "hour", lambda time: (time.date(), time.hour, time.utcoffset())),
    ("daily", "day", lambda time: time.date()),
    ("weekly", "week", lambda time: time.isocalendar()[:2]),
    ("monthly", "month", lambda time: (time.year, time.month)),
    ("yearly", "year", lambda time: time.year),
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of a rule: one point of each slot, so many slots or those of a length of time."""

    reason: str
    noun: str
    slot: Slot
    count: int = UNLIMITED
    length: Duration | None = None


class _Group:
    """The restore points of one VM and policy while the rules are applied, newest first."""

    def __init__(self, points: Sequence[PointSummary], now: datetime, zone: tzinfo) -> None:
        self._all = points
        self._now = now
        self._counted = [point for point in points if point.time <= now]
        self._good = [point for point in self._counted if point.good]
        self._local = {point.id: point.time.astimezone(zone) for point in points}
        self._kept: dict[str, list[str]] = {point.id: [] for point in points}
        self._gone: dict[str, list[str]] = {point.id: [] for point in points}

    def verdicts(self) -> list[Verdict]:
        """What came of it."""
        reasons = [(point, self._kept[point.id], self._gone[point.id]) for point in self._all]
        return [Verdict(point, bool(kept), tuple(kept or gone)) for point, kept, gone in reasons]

    def apply(self, rule: Rule) -> None:
        """Find all reasons."""
        for point in self._all:
            if point.time > self._now:
                self._kept[point.id].append("in the future")
            if point.pinned:
                self._kept[point.id].append(f"pinned: {point.pinned_because}" if point.pinned_because else "pinned")
        for part in self._parts(rule):
            filled = {part.slot(point) for point in self._good}
            self._among(self._good, part, good=True)
            self._among([one for one in self._counted if one.good or part.slot(one) not in filled], part, good=False)
            for point in self._counted:
                if not point.good and part.slot(point) in filled:
                    self._gone[point.id].append(f"a good one that {part.noun}")

    def _parts(self, rule: Rule) -> Iterator[_Part]:
        if rule.within is not None:
            yield _Part(f"within {rule.within}", "one", lambda point: point.id, length=rule.within)
        if rule.last:
            yield _Part("last snapshot", "one", lambda point: point.id, rule.last)
        for name, noun, of in _SPANS:
            slot = self._slot(of)
            if count := getattr(rule, name):
                yield _Part(f"{name} snapshot", noun, slot, count)
            if (length := getattr(rule, f"within_{name}")) is not None:
                yield _Part(f"{name} within {length}", noun, slot, length=length)

    def _slot(self, of: Moment) -> Slot:
        return lambda point: of(self._local[point.id])

    def _among(self, candidates: Sequence[PointSummary], part: _Part, *, good: bool) -> None:
        """Apply a part of the rule to candidates, newest first; note what it says of good ones, or of the others."""
        recent = candidates[: self._recent(candidates, part.length)]
        slots = [part.slot(point) for point in recent]
        taken = _taken(slots, part.count, oldest_too=len(recent) == len(candidates))
        seen: set[object] = set()
        for point, slot, how in zip(recent, slots, taken, strict=True):
            if point.good is good:
                if how:
                    self._keep(point, f"oldest {part.reason}" if how == "oldest" else part.reason)
                else:
                    why = (
                        f"a newer one that {part.noun}"
                        if slot in seen
                        else f"{part.count} newer {part.noun}{'s' * (part.count != 1)}"
                    )
                    self._gone[point.id].append(why)
            seen.add(slot)
        for point in candidates[len(recent) :]:
            if point.good is good:
                self._gone[point.id].append(f"older than {part.length}")

    def _recent(self, candidates: Sequence[PointSummary], length: Duration | None) -> int:
        """How many of the candidates lie within a length of time before the newest good one (or else the newest)."""
        if length is None or not candidates:
            return len(candidates)
        newest = next(iter(self._good or self._counted))
        limit = length.before(self._local[newest.id])
        return sum(point.time > limit for point in candidates)

    def _keep(self, point: PointSummary, reason: str) -> None:
        flaw = "" if point.good else " (suspect)" if point.suspect else " (partial)"
        self._kept[point.id].append(reason + flaw)


def _taken(slots: Sequence[object], count: int, *, oldest_too: bool) -> list[str]:
    """Which points are taken, and as what: the newest of its slot, or the oldest of all.

    Two neighbours in one slot are one; equal slots are neighbours, because the points are in order.
    """
    taken: list[str] = []
    before: object = None
    for number, slot in enumerate(slots):
        how = "newest" if slot != before else "oldest" if oldest_too and number == len(slots) - 1 else ""
        if how and count:
            before = slot
            count -= count > 0
            taken.append(how)
        else:
            taken.append("")
    return taken
