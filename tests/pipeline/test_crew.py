"""Threads with an owner: none outlives its ``with``, whatever interrupts the owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.alarm import alarm
from vcbproxy.errors import Cancelled
from vcbproxy.pipeline.crew import Crew
from vcbproxy.san.patience import GivenUp, Patience

HANGS_S = 60.0


@pytest.fixture
def hang() -> Iterator[Callable[[], bool]]:
    """A call that does not come back before the test is over."""
    over = threading.Event()
    yield over.wait
    over.set()
    for thread in threading.enumerate():
        if thread.name == "san-hand":
            thread.join(10)


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

    with pytest.raises(Cancelled), alarm():
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

    with pytest.raises(Cancelled), alarm():
        owner()
    assert ended.is_set(), "the thread was left behind, or was not told"


@pytest.mark.timeout(20)
def test_a_thread_that_begins_to_wait_as_its_crew_fails_is_woken_too(hang: Callable[[], bool]) -> None:
    """As one that reads a LUN that hangs, and was between two reads at that moment."""
    woken: list[str] = []

    def work() -> None:
        for _ in range(3):
            with suppress(GivenUp):
                patience.call(object(), hang)
            woken.append("once more")

    with Patience(HANGS_S) as patience:
        fails_while(work, patience)
    assert len(woken) == 3


@pytest.mark.timeout(20)
def test_a_crew_that_fails_wakes_no_other(hang: Callable[[], bool]) -> None:
    """Two VMs are read at once: what is wrong with one of them costs the other nothing."""
    begun, woken = threading.Event(), threading.Event()

    def work(told: threading.Event) -> None:
        begun.set()
        with suppress(GivenUp):
            patience.call(object(), hang)
        told.set()

    with Patience(HANGS_S) as patience, Crew("other", interrupt=patience.interrupt) as other:
        other.start(work, woken)
        begun.wait(10)
        fails_while(lambda: work(threading.Event()), patience)
        assert not woken.wait(0.2)
        patience.interrupt()
        other.join()


def fails_while(work: Callable[[], None], patience: Patience) -> None:
    """A crew whose owner wants an end while its thread is at work."""

    def owner() -> None:
        with Crew("test", interrupt=patience.interrupt) as crew:
            crew.start(work)
            raise Cancelled

    with pytest.raises(Cancelled):
        owner()
