"""Threads are waited for to their end, also by who is interrupted meanwhile."""

from __future__ import annotations

import time

import pytest

from tests.alarm import alarm
from vcbproxy.errors import Cancelled
from vcbproxy.thread import Thread, join_all


def slow(seconds: float = 0.5) -> Thread:
    """It has something to put in order before it ends."""
    thread = Thread(lambda: time.sleep(seconds), "slow", daemon=True)
    thread.start()
    return thread


def test_a_join_that_was_broken_off_is_no_end() -> None:
    thread = slow()
    with alarm(), pytest.raises(Cancelled):
        thread.join()
    assert not thread.over
    thread.join(0.01)
    assert not thread.over
    thread.join()
    assert thread.over
    assert not thread.is_alive()


def test_an_interrupt_comes_after_the_end_of_all() -> None:
    threads = [slow(), slow(0.6)]
    told: list[BaseException] = []
    with alarm(), pytest.raises(Cancelled) as caught:
        join_all(threads, told.append)
    assert all(thread.over for thread in threads)
    assert told == [caught.value]


def test_who_insists_is_obeyed() -> None:
    thread = slow(1.5)
    with alarm(0.05, again_s=0.2), pytest.raises(Cancelled):
        join_all([thread])
    assert not thread.over
    thread.join()
