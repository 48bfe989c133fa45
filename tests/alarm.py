"""A signal whose handler raises in the main thread, as Ctrl-C does, in a moment: while something is waited for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from vcbproxy.errors import Cancelled


@contextmanager
def alarm(after_s: float = 0.1, *, again_s: float = 0.0) -> Iterator[None]:
    """``Cancelled`` is raised after so long; again and again, if that is wanted."""

    def ring(_number: int, _frame: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after_s, again_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
