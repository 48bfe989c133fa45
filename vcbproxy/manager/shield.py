"""Letting an action end although the operator is impatient.

Ctrl-C and SIGTERM arrive in the main thread, at any instruction. What must not stop half-way, such as removing a
snapshot, runs in a thread of its own meanwhile; what a signal's handler raises is kept, the action is told, and it is
raised once the action has come to its end.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1  # so many interrupts are only noted; the next is obeyed at once
_running = threading.local()


class Interrupts:
    """What the operator wants by now; asked by the action that is being let end."""

    def __init__(self) -> None:
        self.count = 0

    def asked(self) -> bool:
        """Whether an end was asked for: hurry, and clean up."""
        return self.count > 0

    def given_up(self) -> bool:
        """Whether nobody waits any longer: begin nothing more."""
        return self.count > _PATIENCE


def given_up() -> bool:
    """Whether nobody waits any longer for the action that this thread runs: for waits far below it."""
    interrupts = getattr(_running, "interrupts", None)
    return isinstance(interrupts, Interrupts) and interrupts.given_up()


class _Outcome(Generic[T]):
    """What an action that ran elsewhere returned or raised."""

    def __init__(self, action: Callable[[Interrupts], T], interrupts: Interrupts) -> None:
        self._action = action
        self._interrupts = interrupts
        self.value: T
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        _running.interrupts = self._interrupts
        try:
            self.value = self._action(self._interrupts)
        except BaseException as error:  # noqa: BLE001  # handed over to the waiting thread, whole
            self.error = error
        finally:
            self.ended.set()


def to_the_end(action: Callable[[Interrupts], T], what: str) -> T:
    """Run an action; an interrupt meanwhile is raised only after its end.

    Outside the main thread, where no signal arrives, the action simply runs.

    Args:
        action: told of interrupts by its argument.
        what: what is being waited for, to tell the operator.

    Raises:
        KeyboardInterrupt: or whatever else the signals' own handlers raise. What the action itself raised is then its
            cause.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        return action(interrupts)
    outcome = _Outcome(action, interrupts)
    thread = threading.Thread(target=outcome.run, name=what)
    with _noting_signals(interrupts, what):
        thread.start()
        outcome.ended.wait()
        thread.join()
        if outcome.error is not None:
            raise outcome.error
    return outcome.value


@contextmanager
def _noting_signals(interrupts: Interrupts, what: str) -> Iterator[None]:
    """Let signals reach whoever handles them, and keep what he raises until the end.

    A handler that only answers (sets a flag, says something) does so at once.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    raised: list[BaseException] = []

    def note(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        try:
            if callable(handler):
                handler(number, frame)
        except BaseException as interrupt:
            interrupts.count += 1
            raised.append(interrupt)
            if interrupts.given_up():
                log.warning("not waiting any longer for %s", what)
                raise
            log.warning("interrupted; first comes %s", what)

    ours = [number for number, handler in handlers.items() if callable(handler)]
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    except BaseException as error:
        if raised and error not in raised:
            raise raised[0] from error
        raise
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
    if raised:
        raise raised[0]
