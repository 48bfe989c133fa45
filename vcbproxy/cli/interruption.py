"""Whether the operator wants an end: Ctrl-C, SIGTERM and the loss of the terminal are raised in the main thread.

A flag is set, too, for threads that would wait for long: the exception reaches the main thread alone, and that one
waits for the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from vcbproxy import errors

_IMPORTING = "<frozen importlib._bootstrap>"
_POSTPONED_S = 0.01
_POSTPONED_MAX = 300
_wanted = False


def wanted() -> bool:
    """Whether Ctrl-C, SIGTERM or the loss of the terminal was seen."""
    return _wanted


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or loss of the terminal into an exception.

    While that is cleaned up, the second is only answered; the removal of a VM snapshot also outlasts the third.

    Raises:
        Cancelled: or Terminated, in the main thread, at any instruction.
    """
    global _wanted
    _wanted = False
    handler = _Handler(sys.unraisablehook)
    before = {number: signal.signal(number, handler.struck) for number in (signal.SIGINT, signal.SIGTERM)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # by nohup
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _hung_up)
    sys.unraisablehook = handler.dropped
    try:
        yield
    finally:
        sys.unraisablehook = handler.unraisable
        for number, previous in before.items():
            signal.signal(number, previous)


def _hung_up(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)  # who holds SIGTERM back for a while then holds this back too


class _Handler:
    """Raises the first signal, answers the second, raises every further one."""

    def __init__(self, unraisable: Callable[[sys.UnraisableHookArgs], object]) -> None:
        self.unraisable = unraisable  # whose the errors are that are none of ours
        self._count = 0
        self._postponed: int | None = None  # the signal that is sent once more
        self._delays = 0

    def struck(self, number: int, frame: FrameType | None) -> None:
        """A signal came."""
        global _wanted
        if number != self._postponed:
            self._count += 1
        self._postponed = None
        if self._count == 2:
            with contextlib.suppress(OSError):  # the terminal may be what is gone
                os.write(
                    2, b"\nvcbproxy: removing VM snapshots and locks, please wait; twice more to leave them behind\n"
                )
            return
        _wanted = True
        # Python 3.11's importer takes its lock by a plain call. An exception that strikes right after it leaves the
        # lock held for ever, and every thread that imports something hangs; in the importer's weak reference
        # callbacks it is dropped besides.
        importing = frame is not None and frame.f_code.co_filename == _IMPORTING
        if importing and self._delays < _POSTPONED_MAX:
            self._postpone(number)
            return
        raise errors.Cancelled if number == signal.SIGINT else errors.Terminated

    def dropped(self, dropped: sys.UnraisableHookArgs) -> None:
        """Somebody could not pass an exception on: a destructor, a callback, C code. Ours is raised again elsewhere."""
        if isinstance(dropped.exc_value, errors.Cancelled):
            self._postpone(signal.SIGTERM if isinstance(dropped.exc_value, errors.Terminated) else signal.SIGINT)
        else:
            self.unraisable(dropped)

    def _postpone(self, number: int) -> None:
        self._delays += 1
        self._postponed = number
        timer = threading.Timer(_POSTPONED_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
