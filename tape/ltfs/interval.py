"""How often an index goes onto the data partition while files are written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """Whichever comes first.

    What was written since the last index must be found again by the journal after a crash, and without one is lost.
    An index costs what it is long, and a stop of the tape.

    Attributes:
        size_bytes: so much was written.
        time_s: so much time has passed.
    """

    size_bytes: int = 128 << 30
    time_s: float = 1800.0
