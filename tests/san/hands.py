"""The threads that make calls for :class:`vcbproxy.san.patience.Patience`: one that hangs stays with its call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.beside import beside, until
from vcbproxy.san.patience import Patience


def hands() -> int:
    """How many there are, idle ones and hanging ones."""
    return sum(thread.name == "san-hand" for thread in threading.enumerate())


def wait_for_calls(patience: Patience, count: int) -> None:
    """Until so many calls are waited for."""
    until(lambda: len(patience._waiting) >= count)


@contextmanager
def interrupted_once_waiting(patience: Patience) -> Iterator[None]:
    """The first call that is waited for inside is interrupted, then and not before."""
    left = threading.Event()

    def interrupt() -> None:
        until(lambda: patience._waiting or left.is_set())
        patience.interrupt()

    with beside(interrupt):
        try:
            yield
        finally:
            left.set()
