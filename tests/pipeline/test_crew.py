"""Threads with an owner: none outlives its ``with``, whatever interrupts the owner."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from vcbproxy.errors import Cancelled
from vcbproxy.pipeline.crew import Crew


@pytest.fixture
def alarm() -> Iterator[None]:
    """A signal that raises in the main thread, in a moment."""

    def ring(_number: int, _frame: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("how", ["join", "wait"])
def test_an_interrupt_waits_for_the_threads_to_end(how: str) -> None:
    ended = threading.Event()

    def work(crew: Crew) -> None:
        while not crew.stopping:
            time.sleep(0.01)
        time.sleep(0.3)  # what it still has to put in order
        ended.set()

    def owner() -> None:
        with Crew("test") as crew:
            crew.start(work, crew)
            while how == "wait" and not crew.wait(10):
                pass
            crew.join()

    with pytest.raises(Cancelled):
        owner()
    assert ended.is_set(), "the thread was left behind"
