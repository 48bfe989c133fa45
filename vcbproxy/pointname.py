"""How a restore point is named on a command line, wherever it lies: read here, and nowhere else.

web01@latest                    the newest of a VM, unless it is dated in the future
web01@2026-11-22T01:00:00Z      the one of that moment, as lists show it
web01@2026-11-22T03:00+02:00    … in whatever zone; without one it is UTC, as in lists
web01@2026-11-22                the only one of that day; likewise of an hour, a month, a year
<instance uuid>@…               where two VMs share a name
1f0c9a3e                        the beginning of its id, or of one it had before: 4 digits or more

What could mean several is refused, and they are listed: nobody restores a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol, TypeVar

from vcbproxy.errors import UsageError

LATEST = "latest"
_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:[.,]\d{1,9})?)?)?(Z|z|[+-]\d\d:?\d\d)?)?)?)?"
)
_SHOWN_MAX = 5
_AHEAD_MAX = timedelta(days=1)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


class NoSuchPoint(UsageError):
    """No restore point goes by that name, in the place that was looked at. ``text``: as it was written."""


class Nameable(Protocol):
    """A restore point, as far as it is named."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Those that it goes by, the present one first; in hex."""

    @property
    def vm(self) -> str:
        """The VM's name."""

    @property
    def instance_uuid(self) -> str:
        """Which VM, whatever it is called."""

    @property
    def time(self) -> datetime:
        """When it was as it was."""

    @property
    def name(self) -> str:
        """``web01@2026-11-22T01:00:00Z``."""

    @property
    def suspect(self) -> bool:
        """Whether an audit found that it may hold what its VM did not have."""


P = TypeVar("P", bound=Nameable)


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` up to, and without, ``end``; UTC."""

    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


def period(text: str) -> Period:
    """The year, month, day, hour, minute or second that a time means which is written so far.

    Raises:
        ValueError: it is none.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time")
    *fields, zone = match.groups()
    given = [int(field) for field in fields if field is not None]
    start = datetime(*(*given, *(1, 1)[len(given) - 1 :])[:6], tzinfo=_zone(zone))  # type: ignore[misc,arg-type]
    return Period(_utc(start), _utc(_after(start, len(given))))


def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return UTC
    length = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-length if text.startswith("-") else length)


def _after(start: datetime, fields: int) -> datetime:
    """The end of what so many fields of a date and time leave open."""
    try:
        if fields == 1:
            return start.replace(year=start.year + 1)
        if fields == 2:
            return (start + timedelta(days=31)).replace(day=1)
        days, hours, minutes, seconds = (fields == number for number in (3, 4, 5, 6))
        return start + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (ValueError, OverflowError):  # the end of the calendar
        return _LAST


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment.year == 1 else _LAST


def choose(points: Sequence[P], text: str, where: str, now: datetime | None = None) -> P:
    """The one restore point that a text names.

    Args:
        points: all there are, the oldest first.
        text: as the operator wrote it.
        where: they lie, for messages: ``in the repository``.
        now: what is dated later, by more than clocks may differ, is not simply the latest; None: it is not asked.

    Raises:
        NoSuchPoint: there is none of that name; the message lists what there is.
        UsageError: the text names nothing, or several, which are listed.
    """
    vm, at, moment = text.rpartition("@")
    if not at:
        return _by_id(points, text, where)
    of_vm = [point for point in points if vm in (point.vm, point.instance_uuid)]
    if not of_vm:
        known = some_of({point.vm for point in points}, vm)
        raise NoSuchPoint(f"no restore points of {vm!r} {where}; there are some of: {known}", text=text)
    uuids = {point.instance_uuid for point in of_vm}
    if len(uuids) > 1:
        raise UsageError(
            f"{len(uuids)} VMs are called {vm!r}; write <instance uuid>@{moment}: {', '.join(sorted(uuids))}"
        )
    if moment == LATEST:
        _refuse_future(of_vm, text, now)
        return of_vm[-1]
    try:
        meant = period(moment)
    except ValueError:
        raise UsageError(f"{text!r}: after the @ belongs 'latest' or a time; {_candidates(of_vm)}") from None
    return _only([point for point in of_vm if point.time in meant], text, of_vm, where)


def some_of(names: Iterable[str], wanted: str) -> str:
    """The names that were most likely meant, first; and how many more there are."""
    import difflib  # only needed here, and not for nothing

    known = sorted(set(names))
    folded = {name.casefold(): name for name in reversed(known)}
    near = [folded[name] for name in difflib.get_close_matches(wanted.casefold(), folded)]
    shown = list(dict.fromkeys((*near, *known)))[:_SHOWN_MAX]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return ", ".join(name if name.strip() == name else repr(name) for name in shown) + more or "none at all"


def _refuse_future(of_vm: Sequence[P], text: str, now: datetime | None) -> None:
    """A manager whose clock was wrong for a night must not have that night restored for months as the latest.

    Raises:
        UsageError: the newest is dated in the future.
    """
    if now is None or of_vm[-1].time <= now + _AHEAD_MAX:
        return
    told = f"{of_vm[-1].name} is dated in the future: a clock is, or was, wrong"
    raise UsageError(f"{text!r}: {told}; name the one that is meant by its id or time; {_candidates(of_vm)}")


def doubt(points: Sequence[P], chosen: P) -> str:
    """What is to be said before a restore point is used that is suspect; nothing, if it is not."""
    if not chosen.suspect:
        return ""
    good = [point for point in points if point.instance_uuid == chosen.instance_uuid and not point.suspect]
    if not good:
        return f"{chosen.name} is suspect, and no restore point of this VM is not"
    return f"{chosen.name} is suspect; the newest of this VM that is not: {good[-1].ids[0][:8]} {good[-1].name}"


def _by_id(points: Sequence[P], text: str, where: str) -> P:
    hint = f"write {text}@{LATEST}" if any(text == point.vm for point in points) else _candidates(points)
    if not _ID_PREFIX.fullmatch(text):
        raise UsageError(
            f"{text!r} is neither VM@latest, VM@time nor the beginning of an id (4 digits or more); {hint}"
        )
    found = [point for point in points if any(one.startswith(text) for one in point.ids)]
    if not found:
        raise NoSuchPoint(f"no restore point {text!r} {where}; {hint}", text=text)
    return _only(found, text, points, where)


def _only(found: Sequence[P], text: str, among: Sequence[P], where: str) -> P:
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{text!r} means {len(found)} restore points {where}; {_candidates(found)}")
    raise NoSuchPoint(f"no restore point {text!r} {where}; {_candidates(among)}", text=text)


def _candidates(points: Sequence[P]) -> str:
    if not points:
        return "there is none at all"
    shown = ", ".join(f"{point.ids[0][:8]} {point.name}" for point in points[-_SHOWN_MAX:])
    if len(points) == 1:
        return f"there is only {shown}"
    return f"there are {len(points)}: {'… ' if len(points) > _SHOWN_MAX else ''}{shown}"
