"""What a check is asked for, and what it found."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.repository.packsizes import PackSizes
from vcbproxy.units import parse_size


@dataclass(frozen=True, slots=True)
class Subset:
    """Which packs to read: one part of ``parts`` (by their ids: all parts together are all), or some at random.

    These are a share of them, or so many that they come to about a size.
    """

    part: int = 1
    parts: int = 1
    percent: float | None = None
    size_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Read ``2/7``, ``5%`` or ``10G``.

        Raises:
            UsageError: it is neither.
        """
        try:
            if text.endswith("%"):
                percent = float(text[:-1])
                if 0 < percent <= 100:
                    return cls(percent=percent)
            elif "/" in text:
                part, parts = (int(number) for number in text.split("/"))
                if 1 <= part <= parts <= 256:
                    return cls(part, parts)
            elif (size_bytes := parse_size(text)) > 0:
                return cls(size_bytes=size_bytes)
        except (ValueError, UsageError):
            pass
        raise UsageError(f"{text!r} is no subset of the data: write it like 2/7 (of 256 at most), 5% or 10G")

    def of(self, packs: PackSizes, chance: random.Random) -> NDArray[np.intp]:
        """Rows of those packs asked for that belong to it; of any packs at least one by share or size."""
        rows = packs.asked()
        if self.percent is None and self.size_bytes is None:
            mine: NDArray[np.intp] = rows[packs.first_bytes()[rows] % self.parts == self.part - 1]
            return mine
        drawn = np.array(chance.sample(range(len(rows)), len(rows)), np.intp)
        ends = np.cumsum(packs.sizes[rows[drawn]])
        count = int(np.count_nonzero(ends <= (self.size_bytes or 0)))
        if self.percent is not None:
            count = round(len(rows) * self.percent / 100)
        return np.sort(rows[drawn[: max(1, count)]])


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, and the restore points (or foreign snapshots) that it hurts."""

    message: str
    points: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message} [{', '.join(self.points)}]" if self.points else self.message


@dataclass(frozen=True, slots=True)
class PointLock:
    """A restore point's locks.

    Attributes:
        point: its name.
        record_until: its record's; None when that is not locked.
        needs_until: the shortest of all that it needs to be restored; None when something is not locked.
        short: how many of these files are locked less long than the record.
    """

    point: str
    record_until: datetime | None
    needs_until: datetime | None
    short: int

    @property
    def covered(self) -> bool:
        """Whether everything it needs is locked at least as long as it is."""
        return not self.short


@dataclass(slots=True)
class Report:
    """What a check found."""

    problems: list[Problem] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    packs_read: int = 0
    locks: list[PointLock] = field(default_factory=list)

    def raise_if_damaged(self, location: str) -> None:
        """Turn problems into an error.

        Raises:
            IntegrityError: there are some.
        """
        if not self.problems:
            return
        hurt = sorted({point for problem in self.problems for point in problem.points})
        named = f"these are hurt: {', '.join(hurt)}" if hurt else "no restore point is hurt"
        error = IntegrityError(
            f"{location} is damaged ({len(self.problems)} found); {named}", problems=self.problems, points=hurt
        )
        for problem in self.problems:
            error.add_note(f"- {problem}")
        raise error
