"""How often, and for how long, a step of a VM snapshot's life is tried, and how long to pause between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from vcbproxy.clock import Clock
from vcbproxy.errors import CredentialsError, ManagerError
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.lifecycle import Event, event_of

log = logging.getLogger(__name__)

_FAILURES_MAX = 5
_HOPELESS = (Trouble.PERMISSION, Trouble.TRUST, Trouble.GONE)  # gone: the VM itself
PAUSE_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the steps of a snapshot's life may take.

    Attributes:
        create_s: the creation, the guest's quiescing included.
        busy_s: waiting for other operations on the VM, and for a manager that does not answer.
        remove_s: one removal or consolidation; hours, when the guest wrote much meanwhile.
        pause_s: the first pause before something is tried again; it doubles up to a minute.
        settle_s: how long a request whose answer was lost may still be on its way through the manager.
    """

    create_s: float = 900.0
    busy_s: float = 900.0
    remove_s: float = 12 * 3600.0
    pause_s: float = 2.0
    settle_s: float = 10.0


@dataclass(slots=True)
class Tries:
    """How often, and for how long, one step was tried; says when there is no more point in it."""

    clock: Clock
    limits: Limits
    given_up: Callable[[], bool]
    failures: int = 0
    pause_s: float = 0.0
    deadline: float = field(init=False)
    error: ManagerError | CredentialsError = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = self.clock.monotonic() + self.limits.busy_s
        self.error = ManagerError("it was not tried")

    def without_effect(self) -> Event:
        """The manager reports success; the next look shows whether it is so. The first time that needs no pause."""
        self.error = ManagerError("the manager reports success, and nothing changes")
        self.failures += 1
        if self.failures > 1:
            self.pause_s = self.pause_s or self.limits.pause_s
        return self._or_the_end(Event.FAULT)

    def failed(self, error: ManagerError | CredentialsError) -> Event:
        """What is to be done about it: wait, try again, or no more."""
        self.error = error
        self.pause_s = self.pause_s or self.limits.pause_s
        event = event_of(error)
        trouble = trouble_of(error)
        log.warning("%s", error)
        if trouble in _HOPELESS:
            return Event.LATE
        patient = event in (Event.BUSY, Event.LOST) and trouble is not Trouble.OTHER
        if not patient:
            self.failures += 1
        elif self.clock.monotonic() >= self.deadline:
            return Event.LATE
        return self._or_the_end(event)

    def _or_the_end(self, event: Event) -> Event:
        if self.given_up():
            return Event.INSIST
        return Event.LATE if self.failures >= _FAILURES_MAX else event

    def pause(self) -> None:
        """Before the next one; longer each time."""
        pause(self.clock, self.pause_s, self.given_up)
        self.pause_s = min(2 * self.pause_s, PAUSE_MAX_S)


def pause(clock: Clock, pause_s: float, ended: Callable[[], bool]) -> None:
    """Sleep, in steps of a second, unless there is no more point in it."""
    until = clock.monotonic() + pause_s
    while not ended() and (left_s := until - clock.monotonic()) > 0:
        clock.sleep(min(left_s, 1.0))
