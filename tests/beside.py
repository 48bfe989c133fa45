"""Work beside the test's own, which waits for what it sees and not for the clock."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


def until(condition: Callable[[], object], what: str = "that", timeout_s: float = 120) -> None:
    """Wait for it, as long as a busy machine takes."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.01)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do some work in a thread meanwhile; what it raised is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised again, by the test
            raised.append(error)

    thread = threading.Thread(target=run, name="beside")
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if raised:
        raise raised[0]


class Keyboard:
    """An operator's; what the program says of an interrupt shows that it was heard: two at once are one to the kernel.

    Args:
        heard: what is logged meanwhile.
    """

    def __init__(self, heard: pytest.LogCaptureFixture) -> None:
        self._heard = heard

    def ctrl_c(self) -> None:
        """Press it, and wait until it was noted."""
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: "interrupted; first comes" in self._heard.text)

    def insist(self) -> None:
        """Press it twice."""
        self.ctrl_c()
        os.kill(os.getpid(), signal.SIGINT)
