"""Letting an action end although the operator is impatient.

Ctrl-C and SIGTERM arrive in the main thread, at any instruction. What must not stop half-way, such as removing a
snapshot, runs in a thread of its own meanwhile; the signals are only noted, the action is told, and they are delivered
to whom they were meant for once the action has come to its end.
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
_PATIENCE = 3  # so many signals are only noted; the next is obeyed at once


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


class _Outcome(Generic[T]):
    """What an action that ran elsewhere returned or raised."""

    def __init__(self, action: Callable[[Interrupts], T], interrupts: Interrupts) -> None:
        self._action = action
        self._interrupts = interrupts
        self.value: T
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            self.value = self._action(self._interrupts)
        except BaseException as error:  # noqa: BLE001  # handed over to the waiting thread, whole
            self.error = error
        finally:
            self.ended.set()


def to_the_end(action: Callable[[Interrupts], T], what: str) -> T:
    """Run an action; signals meanwhile are delivered only after its end.

    Outside the main thread, where no signal arrives, the action simply runs.

    Args:
        action: told of signals by its argument.
        what: what is being waited for, to tell the operator.

    Raises:
        KeyboardInterrupt: or whatever else the signals' own handlers raise. What the action itself raised is then its
            context.
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
    """Note the signals that somebody handles; hand them on at the end."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    noted: list[int] = []

    def deliver(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        interrupts.count += 1
        if interrupts.given_up():
            log.warning("not waiting any longer for %s", what)
            deliver(number, frame)
        else:
            log.warning("interrupted; first comes %s", what)

    ours = [number for number, handler in handlers.items() if callable(handler)]
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
        if noted:
            deliver(noted[0], None)
