"""Time, passed in: so that a test can hold it still."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

_LOCAL_TIME = Path("/etc/localtime")


class Clock(Protocol):
    """Where a part that needs the time gets it from."""

    def now(self) -> datetime:
        """The time of day, in UTC, aware."""

    def monotonic(self) -> float:
        """Seconds that never run backwards."""

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The time of day, in UTC, aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""
        time.sleep(seconds)


def local_zone(environment: Mapping[str, str], local_time: Path = _LOCAL_TIME) -> tzinfo:
    """The time zone of this process: ``$TZ``, or the machine's, or UTC where it has none.

    Raises:
        LookupError: ``$TZ`` names none.
        OSError: the machine's cannot be read.
        ValueError: it is none.
    """
    if name := environment.get("TZ", "").removeprefix(":"):
        return ZoneInfo(name)
    try:
        place = local_time.resolve().as_posix().partition("/zoneinfo/")[2] or "local time"
        with local_time.open("rb") as file:
            return ZoneInfo.from_file(file, place)
    except FileNotFoundError:
        return UTC


class ManualClock:
    """A clock that moves only when told to; sleeping moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """The start plus all the time that was slept."""
        from datetime import timedelta

        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        """Seconds slept since the start."""
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Pass at once."""
        self._elapsed_s += seconds
