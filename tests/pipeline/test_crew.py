"""Threads with an owner: none outlives its ``with``, whatever interrupts the owner."""

from __future__ import annotations

import threading
import time

import pytest

from tests.alarm import alarm
from vcbproxy.errors import Cancelled
from vcbproxy.pipeline.crew import Crew


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

    with alarm(), pytest.raises(Cancelled):
        owner()
    assert ended.is_set(), "the thread was left behind"


def test_an_interrupt_at_the_very_end_waits_for_the_threads_too() -> None:
    ended = threading.Event()

    def work(crew: Crew) -> None:
        while not crew.stopping:
            time.sleep(0.01)
        ended.set()

    def owner() -> None:
        with Crew("test") as crew:
            crew.start(work, crew)

    with alarm(), pytest.raises(Cancelled):
        owner()
    assert ended.is_set(), "the thread was left behind, or was not told"
