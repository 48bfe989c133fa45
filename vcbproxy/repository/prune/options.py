"""What a prune is asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta

from vcbproxy.errors import UsageError
from vcbproxy.units import MiB, parse_size

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Unused:
    """How much that nobody needs may stay in packs that are partly needed: a share of all that stays, or bytes."""

    percent: float | None = 5.0
    size_bytes: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Unused:
        """Read ``5%``, ``10G`` or ``unlimited``.

        Raises:
            UsageError: it is none of them.
        """
        if text == "unlimited":
            return cls(None)
        if re.fullmatch(r"\d+(\.\d+)?%", text):
            percent = float(text[:-1])
            if percent < 100:
                return cls(percent)
            raise UsageError(f"{text!r}: less than 100 % of a repository can be unused; `unlimited` leaves all")
        return cls(None, parse_size(text))

    def limit_bytes(self, used_bytes: int) -> float:
        """How many bytes that is, beside so many that are used."""
        return self.size_bytes if self.percent is None else used_bytes * self.percent / (100 - self.percent)


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How a prune works.

    Attributes:
        max_unused: what may stay although nobody needs it.
        max_repack_bytes: how much at most is written anew; what does not fit waits for the next prune.
        grace: packs are taken out of the index now, and removed by the first prune after so long. None removes at once,
            but lets those wait that an earlier prune promised it to; zero removes them, too.
        pack_bytes: how large new packs become.
        workers: threads that read and verify what is written anew.
        dry_run: decide, change nothing.
    """

    max_unused: Unused = Unused()
    max_repack_bytes: int | None = None
    grace: timedelta | None = None
    pack_bytes: int = 16 * MiB
    workers: int = 2
    dry_run: bool = False


def parse_duration(text: str) -> timedelta:
    """Read ``24h``, ``90m``, ``7d`` or ``0``.

    Raises:
        UsageError: it is no duration.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if text == "0":
        return timedelta(0)
    if match is None:
        raise UsageError(f"not a duration: {text!r}; write it like 24h, 90m or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
