"""How hard to compress: as hard as can be while the drive always finds something to write.

A drive that has to wait for its next block stops, goes back and starts again: it wears the tape and loses seconds. So
the level follows how full the ring before the drive is:

    empty                                                   full
    │ below a quarter: │ below a half:      │   leave it    │ for a second: one harder, unless that one
    │ fastest, at once │ one faster         │               │ was too slow only a while ago
    └──────────────────┴────────────────────┴───────────────┴────────────────────────────────────────────
    0                 0.25                 0.5             0.75                                          1

A level that let the ring fall is too slow for this source, drive and machine. It is not tried again for a while, which
doubles each time: what is on a disk changes along the way, but seldom by the second. Where even the fastest level
leaves the ring empty it is the source that is slow; nothing is gained by compressing harder then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

LEVELS = (-20, -10, -5, -2, 1, 3, 5, 6, 9)
"""From the fastest to the hardest; what lies between gains too little. On programs and libraries, by one core of 2026:
1.6:1 at 1650 MB/s of the disk, 1.7 at 1290, 1.9 at 1080, 2.1 at 850, 2.4 at 700, 2.6 at 420, 2.7 at 220 and 170, 2.8 at
95."""

_EMPTY = 0.25
_LOW = 0.5
_HIGH = 0.75
_DOWN_S = 0.1
_UP_S = 1.0
_AVOID_S = 10.0
_AVOID_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class State:
    """What is decided, and what it takes to decide anew.

    Attributes:
        rung: of the levels, from the fastest on.
        changed_s: when it became so.
        changed_fill: how full the ring was then.
        high_since_s: since when the ring is well filled; None while it is not.
        fallen: whether the ring has fallen since it was last well filled.
        rung_max: those above were too slow, until ``avoid_until_s``.
        avoid_until_s: when one of them may be tried again.
        avoid_s: for how long the last one was avoided.
    """

    rung: int
    changed_s: float
    changed_fill: float
    high_since_s: float | None
    fallen: bool
    rung_max: int
    avoid_until_s: float
    avoid_s: float


def begin(now_s: float) -> State:
    """At the beginning the ring is empty, and nothing is known: the fastest."""
    return State(0, now_s, 0.0, None, False, 0, now_s, _AVOID_S)


def decide(state: State, fill: float, now_s: float, rungs: int = len(LEVELS)) -> State:
    """The next state.

    Args:
        state: the present one.
        fill: how full the ring is, 0 to 1.
        now_s: the time; it never goes back.
        rungs: how many levels there are.
    """
    if fill < _HIGH:
        state = replace(state, high_since_s=None)
    elif state.high_since_s is None:
        state = replace(state, high_since_s=now_s, fallen=False)
    if state.rung and fill < _EMPTY:
        return _fallen(state, 0, fill, now_s)
    falls = fill < min(_LOW, state.changed_fill) or (fill < _LOW and not state.fallen)
    if state.rung and falls and now_s - state.changed_s >= _DOWN_S:
        return _fallen(state, state.rung - 1, fill, now_s)
    return _risen(state, fill, now_s, rungs)


def _fallen(state: State, rung: int, fill: float, now_s: float) -> State:
    """This rung is too slow."""
    found = replace(state, rung=rung, changed_s=now_s, changed_fill=fill, fallen=True, rung_max=max(state.rung - 1, 0))
    if state.fallen:  # one more step of the same fall
        return found
    was_long_ago = now_s - state.avoid_until_s > state.avoid_s
    avoid_s = _AVOID_S if was_long_ago else min(2 * state.avoid_s, _AVOID_MAX_S)
    return replace(found, avoid_until_s=now_s + avoid_s, avoid_s=avoid_s)


def _risen(state: State, fill: float, now_s: float, rungs: int) -> State:
    """One rung up, where the ring has been well filled for a while."""
    since_s = state.high_since_s
    rung_max = state.rung_max if now_s < state.avoid_until_s else rungs - 1
    if since_s is None or now_s - max(since_s, state.changed_s) < _UP_S or state.rung >= rung_max:
        return state
    return replace(state, rung=state.rung + 1, changed_s=now_s, changed_fill=fill)


class Appetite:
    """Says which level the next frame gets; for many threads.

    Args:
        fill: how full the ring before the drive is, 0 to 1; None while there is none, between two files or cartridges:
            then nothing is learned.
        levels: to choose from, the fastest first.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        fill: Callable[[], float | None],
        *,
        levels: tuple[int, ...] = LEVELS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fill = fill
        self._levels = levels
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._state = begin(monotonic())
        self.chosen = dict.fromkeys(levels, 0)
        """How many frames each level was chosen for."""

    def level(self) -> int:
        """The level for the next frame."""
        fill = self._fill()
        with self._lock:
            if fill is not None:
                self._state = decide(self._state, fill, self._monotonic(), len(self._levels))
            level = self._levels[self._state.rung]
            self.chosen[level] += 1
            return level
