"""Bandwidth limits with time windows: the night is the backup's, the day is other people's.

    [repository.traffic]
    limits = [{ from = "08:00", to = "18:00", days = ["mon", "tue"], upload_mib_s = 20, download_mib_s = 50 }]

A bucket of allowance fills at the rate of the window that holds now; the first one that holds counts, and where none
does nothing is limited. Whoever finds it not overdrawn goes, and takes the allowance of all that he sends, more than is
there if need be; the next one waits until it is paid. So a pack travels at the speed of the line and is followed by a
pause; over some seconds the rate is what was asked for. What is tried again counts again: it went over the line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time

from vcbproxy.clock import Clock
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import Backend, FileKind, FileName
from vcbproxy.repository.backend.retry import never
from vcbproxy.repository.ids import Buffer

_NAP_S = 0.25  # how soon an interruption, or another window, is seen
_TICK_S = 0.001
_DAYS = range(7)


@dataclass(frozen=True, slots=True)
class Window:
    """When which limits hold; times are the proxy's local time of day.

    Attributes:
        begin: the first moment of it.
        end: the first moment after it; not after ``begin``: of the next day.
        days: on which it begins, Monday is 0.
        upload_bytes_s: None for no limit.
        download_bytes_s: likewise.
    """

    begin: time
    end: time
    upload_bytes_s: float | None = None
    download_bytes_s: float | None = None
    days: frozenset[int] = frozenset(_DAYS)

    def holds(self, local: datetime) -> bool:
        """Whether it is open at that local time."""
        now, today = local.time(), local.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= now < self.end
        return (today in self.days and now >= self.begin) or ((today - 1) % 7 in self.days and now < self.end)


class Bucket:
    """Allowance for one direction, shared by all threads; they are served in turn."""

    def __init__(
        self,
        rate_bytes_s: Callable[[datetime], float | None],
        clock: Clock,
        interrupted: Callable[[], bool] = never,
    ) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._clock = clock
        self._interrupted = interrupted
        self._turn = threading.Lock()
        self._allowed_bytes = 0.0
        self._filled_s = clock.monotonic()

    def take(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` may go. Interrupted, it waits no more: what then still goes is little."""
        with self._turn:
            while (rate := self._fill()) is not None and self._allowed_bytes < 0 and not self._interrupted():
                self._clock.sleep(min(max(-self._allowed_bytes / rate, _TICK_S), _NAP_S))
            if rate is not None:
                self._allowed_bytes -= size_bytes

    def _fill(self) -> float | None:
        """Add what the time since the last call allows, of one second at most; gives the rate that holds."""
        now_s = self._clock.monotonic()
        elapsed_s, self._filled_s = now_s - self._filled_s, now_s
        rate = self._rate_bytes_s(self._clock.now())
        if rate is None:
            self._allowed_bytes = 0.0
        else:
            self._allowed_bytes = min(self._allowed_bytes + elapsed_s * rate, rate)
        return rate


class LimitedBackend(Around):
    """A backend that sends and fetches no faster than it may."""

    def __init__(
        self,
        inner: Backend,
        windows: Sequence[Window],
        clock: Clock,
        interrupted: Callable[[], bool] = never,
        local: Callable[[datetime], datetime] = datetime.astimezone,
    ) -> None:
        """Wrap ``inner``.

        Args:
            inner: at the other end of the line.
            windows: the first that holds counts.
            clock: tells when.
            interrupted: once true nobody waits any more.
            local: from the clock's time to that of the windows.
        """

        def held(now: datetime) -> Window | None:
            return next((window for window in windows if window.holds(local(now))), None)

        def upload(now: datetime) -> float | None:
            window = held(now)
            return window.upload_bytes_s if window else None

        def download(now: datetime) -> float | None:
            window = held(now)
            return window.download_bytes_s if window else None

        super().__init__(inner)
        self._up = Bucket(upload, clock, interrupted)
        self._down = Bucket(download, clock, interrupted)

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a file, when it may go. Locks are never held up: others wait for them, and they keep us alive."""
        if name.kind is not FileKind.LOCK:
            self._up.take(sum(memoryview(part).nbytes for part in parts))
        self._inner.save(name, parts)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Fill ``buf``, when it may come."""
        if name.kind is not FileKind.LOCK:
            self._down.take(buf.nbytes)
        self._inner.load(name, offset, buf)
