"""Threads that are waited for to their very end, whatever a signal's handler raises meanwhile.

A ``threading.Thread.join`` that such an exception breaks off takes the thread for ended (Python 3.9 to 3.12): the next
one returns at once, and what the thread still works with is closed under it. Here one waits for an event instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

_LOOK_AGAIN_S = 1.0


class Thread(threading.Thread):
    """A thread that ``join`` does not take for ended before it is."""

    def __init__(self, target: Callable[[], None], name: str, *, daemon: bool = False) -> None:
        """Run ``target``, once it is started.

        Args:
            target: what it does.
            name: for who looks at the process.
            daemon: the process may end before it does.
        """
        super().__init__(target=target, name=name, daemon=daemon)
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether its work has ended."""
        return self._over.is_set()

    def run(self) -> None:
        """Work; called in the thread."""
        try:
            super().run()
        finally:
            self._over.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for so many seconds."""
        if self._over.wait(timeout):
            super().join()


def join_all(
    threads: Sequence[Thread],
    interrupted: Callable[[BaseException], None] = lambda error: None,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Wait until all have ended, also when a signal's handler raises meanwhile: that is raised then, not before.

    What it raises the second time is obeyed at once: somebody insists.

    Args:
        threads: that were told to end, or end by themselves.
        interrupted: told of the first interrupt, to hurry them.
        meanwhile: called each second.
    """
    try:
        _join(threads, meanwhile)
    except BaseException as error:
        interrupted(error)
        _join(threads, meanwhile)
        raise


def _join(threads: Sequence[Thread], meanwhile: Callable[[], None]) -> None:
    for thread in threads:
        while not thread.over:
            thread.join(_LOOK_AGAIN_S)
            meanwhile()
        thread.join()
