"""Lengths of time by the calendar, as the configuration has them: ``30d``, ``1y6m``, ``36h``, ``forever``."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vcbproxy.catalog.medium import FOREVER
from vcbproxy.errors import ConfigError

_LENGTH = re.compile(r"(?=.)(?:([0-9]{1,4})y)?(?:([0-9]{1,5})m)?(?:([0-9]{1,6})d)?(?:([0-9]{1,7})h)?")


@dataclass(frozen=True, slots=True)
class Length:
    """A length of time; or ``forever``."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0
    forever: bool = False

    @classmethod
    def parse(cls, text: str) -> Length:
        """Read one.

        Raises:
            ConfigError: it is none.
        """
        if text == "forever":
            return cls(forever=True)
        match = _LENGTH.fullmatch(text)
        if match is None:
            raise ConfigError(f"{text!r} is no length of time; write it like 1y6m, 30d, 36h or forever")
        years, months, days, hours = (int(part or 0) for part in match.groups())
        return cls(years, months, days, hours)

    def after(self, moment: datetime) -> datetime:
        """This long after a moment, UTC; a month after the 31st of January is the last of February.

        What would lie beyond the year 9999 is for ever.
        """
        if self.forever:
            return FOREVER
        months = moment.year * 12 + moment.month - 1 + self.years * 12 + self.months
        year, month = months // 12, months % 12 + 1
        try:
            day = min(moment.day, calendar.monthrange(year, month)[1])
            end = moment.replace(year=year, month=month, day=day) + timedelta(days=self.days, hours=self.hours)
            return min(end.astimezone(UTC), FOREVER)
        except (ValueError, OverflowError):
            return FOREVER
