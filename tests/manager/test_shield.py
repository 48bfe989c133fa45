"""An interrupt is raised only after the shielded action has come to its end."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tests.beside import until
from vcbproxy.errors import Cancelled, ManagerError
from vcbproxy.manager.shield import Interrupts, to_the_end


def interrupt() -> None:
    """Press Ctrl-C on this process."""
    os.kill(os.getpid(), signal.SIGINT)


def test_the_result_comes_through() -> None:
    assert to_the_end(lambda interrupts: 42, "it") == 42


def test_an_error_comes_through() -> None:
    def fail(interrupts: Interrupts) -> None:
        raise ManagerError("no")

    with pytest.raises(ManagerError, match="no"):
        to_the_end(fail, "it")


def test_an_interrupt_waits_for_the_end() -> None:
    told = threading.Event()
    ended = threading.Event()

    def work(interrupts: Interrupts) -> None:
        threading.Thread(target=interrupt).start()
        until(interrupts.asked)
        told.set()
        time.sleep(0.1)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        to_the_end(work, "it")
    assert told.is_set()
    assert ended.is_set()


def test_a_termination_waits_as_well() -> None:
    ended = threading.Event()

    def raise_cancelled(number: int, frame: object) -> None:
        raise Cancelled

    def work(interrupts: Interrupts) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        ended.set()

    before = signal.signal(signal.SIGTERM, raise_cancelled)
    try:
        with pytest.raises(Cancelled):
            to_the_end(work, "it")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.is_set()


def test_an_operator_who_insists_is_obeyed() -> None:
    gone = threading.Event()

    def stuck(interrupts: Interrupts) -> None:
        interrupt()
        until(interrupts.asked)  # two that come at once are one to the kernel
        interrupt()
        until(interrupts.given_up)
        gone.set()

    with pytest.raises(KeyboardInterrupt):
        to_the_end(stuck, "it")
    assert gone.wait(5)


def test_a_handler_that_only_answers_does_so_at_once() -> None:
    answered: list[int] = []

    def work(interrupts: Interrupts) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: answered)
        return "done" if not interrupts.asked() else "asked"

    before = signal.signal(signal.SIGINT, lambda number, frame: answered.append(number))
    try:
        assert to_the_end(work, "it") == "done"
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_the_action_raised_is_the_cause_of_the_interrupt() -> None:
    def fail(interrupts: Interrupts) -> None:
        threading.Thread(target=interrupt).start()
        until(interrupts.asked)
        raise ManagerError("no")

    with pytest.raises(KeyboardInterrupt) as caught:
        to_the_end(fail, "it")
    assert isinstance(caught.value.__cause__, ManagerError)


def test_elsewhere_than_in_the_main_thread_it_simply_runs() -> None:
    seen: list[threading.Thread] = []
    thread = threading.Thread(
        target=lambda: to_the_end(lambda interrupts: seen.append(threading.current_thread()), "it")
    )
    thread.start()
    thread.join()
    assert seen == [thread]
