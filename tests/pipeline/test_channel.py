"""Channels and crews: what happens when things end, well or badly."""

from __future__ import annotations

import threading
import time

import pytest

from vcbproxy.errors import Cancelled
from vcbproxy.pipeline.channel import Channel, Closed
from vcbproxy.pipeline.crew import Crew


def test_closing_hands_out_what_is_left() -> None:
    channel: Channel[int] = Channel(3)
    for number in (1, 2, 3):
        channel.put(number)
    channel.close()
    assert list(channel) == [1, 2, 3]
    with pytest.raises(Closed):
        channel.get()
    with pytest.raises(Closed):
        channel.put(4)


def test_aborting_drops_it_and_tells_everybody() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    channel.abort()
    with pytest.raises(Closed):
        list(channel)


def test_put_waits_for_room() -> None:
    channel: Channel[int] = Channel(2)
    taken = []
    with Crew("test") as crew:
        crew.start(lambda: [channel.put(number) for number in range(5)] and channel.close())
        for number in channel:
            assert len(channel._items) <= 2
            taken.append(number)
    assert taken == [0, 1, 2, 3, 4]


def test_the_first_error_wins_and_everybody_is_woken() -> None:
    before = threading.active_count()

    def fail() -> None:
        time.sleep(0.01)
        raise ZeroDivisionError("first")

    def job() -> None:
        with Crew("test") as crew:
            channel = crew.channel(1)
            for _ in range(3):
                crew.start(channel.get)
            crew.start(fail)
            channel.get()

    with pytest.raises(ZeroDivisionError, match="first"):
        job()
    assert threading.active_count() == before


def test_the_owners_own_error_is_not_hidden() -> None:
    def job() -> None:
        with Crew("test") as crew:
            crew.start(crew.channel(1).get)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()


def test_a_channel_made_too_late_is_aborted_too() -> None:
    def job() -> None:
        with Crew("test") as crew:
            crew.start(lambda: 1 // 0)
            while not crew.stopping:
                time.sleep(0.001)
            crew.channel(1).get()

    with pytest.raises(ZeroDivisionError):
        job()


def test_whoever_waits_hears_of_the_cancel() -> None:
    cancel = threading.Event()

    def job() -> None:
        with Crew("test", cancel) as crew:
            channel = crew.channel(1)
            crew.start(cancel.set)
            channel.get()

    with pytest.raises(Cancelled):
        job()
