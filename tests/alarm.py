"""A signal whose handler raises in the main thread, as Ctrl-C does, in a moment: while something is waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vcbproxy.errors import Cancelled


@contextmanager
def alarm(
    after_s: float = 0.1,
    *,
    again_s: float = 0.0,
    rung: threading.Event | None = None,
    error: type[Exception] = Cancelled,
) -> Iterator[None]:
    """An error is raised after so long; once more, if that is wanted.

    Args:
        after_s: until the first time.
        again_s: until the second; 0: there is none.
        rung: set as it rings. Whatever must not end before that waits for it, however slow the machine is.
        error: what is raised.
    """
    rings = iter((True, again_s > 0))

    def ring(_number: int, _frame: object) -> None:
        if rung is not None:
            rung.set()
        if next(rings, False):
            raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after_s, again_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
