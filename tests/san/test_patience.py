"""Calls that hang: a pipe that nobody writes into, until somebody does."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.san.hands import hands, interrupted_once_waiting, wait_for_calls
from vcbproxy.san.patience import GivenUp, Patience


class Pipe:
    """Something whose ``read`` hangs in the kernel until ``answer``."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def read(self) -> bytes:
        return os.read(self._read, 5)

    def answer(self) -> None:
        os.write(self._write, b"late!")

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def wait_for_hands(count: int) -> None:
    deadline = time.monotonic() + 10
    while hands() > count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_call_gives_or_raises_is_handed_on() -> None:
    with Patience() as patience:
        assert patience.call("lun", lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            patience.call("lun", lambda: 1 / 0)


def test_hands_are_kept_and_end_with_it() -> None:
    before = hands()
    with Patience() as patience:
        for _ in range(5):
            patience.call("lun", lambda: None)
        assert hands() == before + 1
        with ThreadPoolExecutor(8) as pool:
            barrier = threading.Barrier(8)
            list(pool.map(lambda _: patience.call("lun", lambda: barrier.wait(10)), range(8)))
        assert hands() == before + 8
    assert hands() == before


def test_a_call_without_an_answer_is_given_up(pipe: Pipe) -> None:
    taken: list[bytes] = []
    before = hands()
    with Patience(timeout_s=0.1) as patience:
        with pytest.raises(GivenUp, match=r"no answer for \d+ s") as given_up:
            patience.call("lun", pipe.read, discard=taken.append)
        assert given_up.value.waited_s >= 0.1
        patience.timeout_s = 60
        with pytest.raises(GivenUp):
            patience.call("lun", lambda: 1)
        assert patience.call("another lun", lambda: 2) == 2
        pipe.answer()
        wait_for_hands(before + 2)
        deadline = time.monotonic() + 10
        while not taken:
            assert time.monotonic() < deadline
        assert taken == [b"late!"], "what nobody waits for any more is discarded, not lost"
        assert patience.call("lun", lambda: 3) == 3, "it answers again"


def test_what_hangs_at_the_end_is_told_and_left(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    before = hands()
    with caplog.at_level(logging.WARNING), Patience(timeout_s=0.05) as patience, pytest.raises(GivenUp):
        patience.call("lun", pipe.read)
    assert "a read never came back" in caplog.text
    assert hands() == before + 1
    pipe.answer()
    wait_for_hands(before)


def test_an_interrupt_ends_what_waits_now_and_nothing_later(pipe: Pipe) -> None:
    with Patience(timeout_s=60) as patience, interrupted_once_waiting(patience):
        with pytest.raises(GivenUp) as caught:
            patience.call("lun", pipe.read)
        assert caught.value.interrupted
        assert patience.call("lun", lambda: 1) == 1
        pipe.answer()


def test_an_interrupt_of_some_threads_leaves_others_waiting(pipe: Pipe) -> None:
    with Patience(timeout_s=60) as patience, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(patience.call, "lun", pipe.read)
        other = pool.submit(patience.call, "other", pipe.read)
        wait_for_calls(patience, 2)
        others = {call.thread for call in patience._waiting if call.owner == "other"}
        patience.interrupt(others)
        with pytest.raises(GivenUp):
            other.result(timeout=10)
        assert not waiting.done()
        pipe.answer()
        pipe.answer()
        assert waiting.result(timeout=10) == b"late!"


def test_nothing_of_a_call_stays_in_memory() -> None:
    """Buffers are large, and must go when their read is over: also when it failed, and without the collector's help."""

    class Buffer:
        pass

    def call(patience: Patience, *, fails: bool) -> weakref.ref[Buffer]:
        buffer = Buffer()

        def read() -> Buffer:
            if fails:
                raise OSError(str(buffer))
            return buffer

        with contextlib.suppress(OSError):
            patience.call("lun", read)
        return weakref.ref(buffer)

    with Patience() as patience:
        for fails in (False, True):
            left = call(patience, fails=fails)
            deadline = time.monotonic() + 10
            while left() is not None:
                assert time.monotonic() < deadline, f"kept, fails: {fails}"
                time.sleep(0.01)


def test_answers_at_the_last_moment_are_not_lost() -> None:
    """Calls that take as long as the patience lasts: each is answered or given up, none is both, none hangs."""
    with Patience(timeout_s=0.002) as patience:
        outcomes = {"answered": 0, "given up": 0}
        for number in range(300):
            try:
                assert patience.call(number, lambda: time.sleep(0.002) or 7) == 7
                outcomes["answered"] += 1
            except GivenUp:
                outcomes["given up"] += 1
        assert sum(outcomes.values()) == 300
