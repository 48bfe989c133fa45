"""Moments as LTFS writes them: UTC with nine digits behind the point. Here: whole nanoseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from tape.errors import FormatError

TAGS = ("creationtime", "changetime", "modifytime", "accesstime", "backuptime")
"""The five moments that a file or directory has, in the index's order."""

_FORM = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})\.(\d{9})Z")
_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=256)  # a file's five are mostly one
def written(moment_ns: int) -> str:
    """``2026-11-22T01:00:00.000000000Z``."""
    seconds, rest = divmod(moment_ns, _SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z".rjust(30, "0")


def read(text: str, where: str) -> int:
    """Nanoseconds since 1970.

    Raises:
        FormatError: it is no moment in this form.
    """
    try:
        return _read(text)
    except ValueError as error:
        raise FormatError(where=where, reason=f"{text[:40]!r} is no time: {error}") from error


@lru_cache(maxsize=256)
def _read(text: str) -> int:
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError("it should look like 2026-11-22T01:00:00.000000000Z")
    year, month, day, hour, minute, second, rest = map(int, found.groups())
    # A leap second is written as the 60th; the clock that we count by has none.
    moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    whole = (moment - _EPOCH).days * 86400 + (moment - _EPOCH).seconds + (second - min(second, 59))
    return whole * _SECOND + rest
