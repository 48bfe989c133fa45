"""Letting an action end although the operator is impatient.

Ctrl-C and SIGTERM arrive in the main thread, at any instruction. What must not stop half-way, such as removing a
snapshot, runs in a thread of its own meanwhile; the main thread waits, notes the interrupt, tells the action, and
raises the interrupt once the action has come to its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vcbproxy.errors import Cancelled

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 3  # so many interrupts are only noted; the next is obeyed at once
_ROUND_S = 0.5


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
    """Run an action; an interrupt meanwhile is raised only after its end.

    Outside the main thread, where no interrupt arrives, the action simply runs.

    Args:
        action: told of interrupts by its argument.
        what: what is being waited for, to tell the operator.

    Raises:
        KeyboardInterrupt: or Cancelled: the interrupt. What the action itself raised is then its cause.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        return action(interrupts)
    outcome = _Outcome(action, interrupts)
    thread = threading.Thread(target=outcome.run, name=what)
    first: BaseException | None = None
    thread.start()
    while not outcome.ended.is_set():
        try:
            outcome.ended.wait(_ROUND_S)
        except (KeyboardInterrupt, Cancelled) as interrupt:
            first = first or interrupt
            interrupts.count += 1
            if interrupts.given_up():
                log.warning("not waiting any longer for %s", what)
                raise
            log.warning("interrupted; first comes %s", what)
    thread.join()
    if first is not None:
        raise first from outcome.error
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
