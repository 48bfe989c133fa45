"""How long a drive of steel takes: threading, seeking, writing as fast as the tape runs, going back when it starved.

    end of tape ─┐      The tape is written to and fro, in wraps: two places far apart in number may lie side by side,
     ┌───────────┘      so how long a seek takes follows from how far along the tape they lie from each other.
     └───────────┐
    beginning ───┘

Time is a clock's that is passed in: rehearsals wait for no minute of it, and a served library can take its time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

from tape.emulator.cartridge import RECORD_BYTES

_MOMENT_S = 1e-6  # sums of seconds are never exact


class Clock(Protocol):
    """What time it is, and waiting."""

    def monotonic(self) -> float:
        """Seconds since whenever."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""


class SystemClock:
    """The machine's."""

    def monotonic(self) -> float:
        """Seconds since whenever."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        time.sleep(seconds)


class StoppableClock(SystemClock):
    """The machine's; once it is stopped nobody sleeps any more, and who slept wakes up."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Let that much time pass, or what is left until it is stopped."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """Have nobody wait any longer."""
        self._stopped.set()


@dataclass(frozen=True, slots=True)
class Timing:
    """What takes how long; zero takes no time.

    Attributes:
        load_s: from a cartridge's arrival until the drive is ready.
        first_load_s: the first time in a cartridge's life, in place of that (LTO-9 and later calibrate).
        unload_s: from there until it can be taken.
        seek_s_min: the shortest seek.
        pass_s: from one end of the tape to the other.
        wraps: how often it is run to and fro, over the whole capacity.
        bytes_per_s: how fast it writes and reads.
        backhitch_s: what it costs when the drive had to stop for want of data.
        buffer_bytes: what the drive takes ahead of the tape.
        cleaning_s: how long a cleaning cartridge works.
        move_s: how long the robot takes from place to place.
    """

    load_s: float = 0.0
    first_load_s: float = 0.0
    unload_s: float = 0.0
    seek_s_min: float = 0.0
    pass_s: float = 0.0
    wraps: int = 1
    bytes_per_s: float = 0.0
    backhitch_s: float = 0.0
    buffer_bytes: int = 1 << 30
    cleaning_s: float = 0.0
    move_s: float = 0.0


AT_ONCE = Timing()
LTO8 = Timing(15.0, 15.0, 24.0, 3.0, 110.0, 208, 360e6, 3.0, 1 << 30, 120.0, 10.0)
"""Full height; by what makers publish of loading and locating, the rest by order of magnitude."""
LTO9 = Timing(17.0, 40 * 60.0, 24.0, 3.0, 110.0, 280, 400e6, 3.0, 1 << 30, 120.0, 10.0)


class Pace:
    """The pace of one drive, or of a robot."""

    def __init__(self, timing: Timing = AT_ONCE, clock: Clock | None = None) -> None:
        self.timing = timing
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.stops = 0
        """How often it had to stop for want of data, since a cartridge was loaded."""
        self._ready_at = 0.0
        self._drained_at: float | None = None
        self._runs_from = 0.0

    def load(self, *, first: bool = False) -> None:
        """A cartridge has arrived."""
        wait_s = self.timing.first_load_s if first and self.timing.first_load_s else self.timing.load_s
        self._ready_at = self.clock.monotonic() + wait_s
        self._drained_at = None
        self.stops = 0

    def clean(self) -> None:
        """A cleaning cartridge has arrived."""
        self._ready_at = self.clock.monotonic() + self.timing.cleaning_s

    @property
    def ready(self) -> bool:
        """Whether what had arrived is ready."""
        return self.clock.monotonic() >= self._ready_at

    def unload(self) -> None:
        """Rewind, and give it out."""
        self.settle()
        self._wait(self.timing.unload_s)

    def write(self, size: int) -> None:
        """Take a block: at once while there is room in the buffer, which the tape empties at its own speed."""
        if not self.timing.bytes_per_s:
            return
        now = self.clock.monotonic()
        drained_at = self._drained_at
        if drained_at is None:
            drained_at = now
        elif drained_at < now:  # it starved: it stops, goes back, and starts anew
            self.stops += 1
            drained_at = self._runs_from = now + self.timing.backhitch_s
        self._drained_at = drained_at + size / self.timing.bytes_per_s
        has_room_at = self._drained_at - self.timing.buffer_bytes / self.timing.bytes_per_s
        if has_room_at > self._runs_from + _MOMENT_S:
            self._wait(has_room_at - now)

    def move(self) -> None:
        """Carry a cartridge."""
        self._wait(self.timing.move_s)

    def read(self, size: int) -> None:
        """Give a block."""
        if self.timing.bytes_per_s:
            self._wait(size / self.timing.bytes_per_s)

    def settle(self) -> None:
        """Wait until the buffer is on tape; whoever writes on then was not too slow."""
        if self._drained_at is not None:
            self._wait(self._drained_at - self.clock.monotonic())
            self._drained_at = None

    def seek(self, start: int, end: int, capacity_bytes: int) -> None:
        """From one block's number to another's."""
        if not self.timing.pass_s or start == end:
            return
        apart = abs(self._along(start, capacity_bytes) - self._along(end, capacity_bytes))
        self._wait(self.timing.seek_s_min + apart * self.timing.pass_s)

    def _along(self, block: int, capacity_bytes: int) -> float:
        """How far along the tape a block lies: from 0 to 1, to and fro."""
        wrap = block * RECORD_BYTES * self.timing.wraps / max(capacity_bytes, 1)
        there = wrap % 2
        return there if there <= 1 else 2 - there

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self.clock.sleep(seconds)
