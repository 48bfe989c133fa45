"""Threads are waited for to their end, also by who is interrupted meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from tests.alarm import alarm
from vcbproxy.errors import Cancelled
from vcbproxy.thread import Thread, join_all


def ending_after(event: threading.Event, *, late_s: float = 0.0) -> Thread:
    """It has something to put in order before it ends."""

    def work() -> None:
        event.wait()
        time.sleep(late_s)

    thread = Thread(work, "slow", daemon=True)
    thread.start()
    return thread


def test_a_join_that_was_broken_off_is_no_end() -> None:
    end = threading.Event()
    thread = ending_after(end)
    with pytest.raises(Cancelled), alarm():
        thread.join()
    assert not thread.over
    thread.join(0.01)
    assert not thread.over
    end.set()
    thread.join()
    assert thread.over
    assert not thread.is_alive()


def test_an_interrupt_comes_after_the_end_of_all() -> None:
    rung = threading.Event()
    threads = [ending_after(rung, late_s=0.1), ending_after(rung, late_s=0.2)]
    told: list[BaseException] = []
    with pytest.raises(Cancelled) as caught, alarm(rung=rung):
        join_all(threads, told.append)
    assert all(thread.over for thread in threads)
    assert told == [caught.value]


def test_who_insists_is_obeyed() -> None:
    end = threading.Event()
    thread = ending_after(end)
    with pytest.raises(Cancelled), alarm(0.05, again_s=0.2):
        join_all([thread])
    assert not thread.over
    end.set()
    thread.join()
