"""Moments as restic writes them: RFC 3339, the fraction without trailing zeroes, ``Z`` for UTC.

We write whole seconds in UTC only; we read nanoseconds and any offset, and keep microseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))")


def canonical(moment: datetime) -> str:
    """Print a moment; an aware one, cut to the second."""
    assert moment.tzinfo is not None, "a time without a zone"
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def precise(moment: datetime) -> str:
    """Print a moment with its microseconds, as locks need them to differ; no trailing zeroes."""
    assert moment.tzinfo is not None, "a time without a zone"
    whole = moment.astimezone(UTC)
    fraction = f".{whole.microsecond:06d}".rstrip("0").rstrip(".")
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def parse(text: str) -> datetime:
    """Read a moment.

    Raises:
        ValueError: it is none.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    micro = int((match[7] or "").ljust(6, "0")[:6])
    zone = UTC if match[8] else timezone(_offset(match[9], int(match[10]), int(match[11])))
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), micro, zone).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"not a time: {text!r}") from error


def _offset(sign: str, hours: int, minutes: int) -> timedelta:
    offset = timedelta(hours=hours, minutes=minutes)
    if offset >= timedelta(days=1):
        raise ValueError("an offset of a day or more")
    return -offset if sign == "-" else offset
