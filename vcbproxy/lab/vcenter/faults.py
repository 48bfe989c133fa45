"""Trouble on demand: what the manager does wrong, with which calls, how often and with what chance.

    a call comes in ──▶ CALL ──▶ the method ──▶ ANSWER ──▶ the answer goes out
                                    └─ begins a task ──▶ TASK ──▶ its work ──▶ it ends

At each of the three the first trouble in stock that fits strikes, at most one. One seed and one sequence of calls give
the same trouble again.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vcbproxy.lab.vcenter.schema import moid, support


class Where(Enum):
    """When trouble strikes."""

    CALL = "call"
    """Instead of the method."""
    ANSWER = "answer"
    """After the method was carried out: its answer is lost on the way."""
    TASK = "task"
    """In the task that the method began."""


class What(Enum):
    """What goes wrong."""

    LATE = "late"
    """It comes after ``delay_s``, and that is all."""
    FAULT = "fault"
    """A fault is the answer, or the end of the task."""
    DROP = "drop"
    """The connection is cut without an answer."""
    BREAK = "break"
    """The method is carried out; the connection is cut in the middle of its answer."""
    TRICKLE = "trickle"
    """The method is carried out; its answer comes in small pieces over ``delay_s``."""
    UNAVAILABLE = "unavailable"
    """HTTP 503, as from the proxy before a manager that is starting."""
    EXPIRE = "expire"
    """All sessions end; the call is not authenticated any more."""
    RESTART = "restart"
    """The manager restarts, and is down for ``delay_s``: sessions, collectors and tasks are forgotten."""
    HANG = "hang"
    """The task does not end, until trouble is cleared: then it does its work after all."""
    HALF = "half"
    """The task ends well, and its work was done half or not at all."""


_IN_ANSWERS = (What.BREAK, What.TRICKLE)
_IN_TASKS = (What.LATE, What.FAULT, What.HANG, What.HALF)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong.

    Attributes:
        method: as on the wire: ``CreateSnapshot_Task``; ``*`` for all.
        fault: makes what is answered with, or what ends the task.
        delay_s: wait so long first; for TRICKLE and RESTART how long that takes.
        times: how many calls it hits; 0: all of them.
        after: how many calls to let pass before.
        chance: of each call that fits, to be hit at all.
        on: only calls about this object, by its id or its type: ``vm-20``, ``VirtualMachineSnapshot``. With TASK
            the object is the VM that the task is about.
    """

    method: str
    what: What = What.FAULT
    where: Where = Where.CALL
    fault: Callable[[], Exception] | None = None
    delay_s: float = 0
    times: int = 1
    after: int = 0
    chance: float = 1
    on: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.what is What.FAULT and self.fault is None:
            raise ValueError("a fault is wanted, and none is given")
        if self.where is Where.TASK and self.what not in _IN_TASKS:
            raise ValueError(f"a task cannot be hit by {self.what.value!r}")
        if self.where is not Where.TASK and self.what in (What.HANG, What.HALF):
            raise ValueError(f"only a task can {self.what.value}")
        if not 0 < self.chance <= 1 or self.times < 0 or self.after < 0 or self.delay_s < 0:
            raise ValueError("times, after and delay are at least 0, a chance is above 0 and at most 1")

    @property
    def strikes_at(self) -> Where:
        """The point at which it is looked for."""
        return Where.ANSWER if self.what in _IN_ANSWERS else self.where


@dataclass(slots=True)
class Stocked:
    """A trouble that was ordered, and what is left of it."""

    trouble: Trouble
    left: int
    skip_left: int

    @property
    def spent(self) -> bool:
        """Whether it has hit as often as it should."""
        return self.trouble.times > 0 and self.left == 0


class Dropped(Exception):
    """The connection is to be cut without an answer."""


class Faults:
    """All trouble a server has in stock. Safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stock: list[Stocked] = []
        self._chance = random.Random(1)
        self._stopping = False
        self._cleared = 0

    def seed(self, seed: int) -> None:
        """Begin the sequence of chances anew."""
        with self._changed:
            self._chance = random.Random(seed)

    def order(self, *troubles: Trouble) -> list[Stocked]:
        """Take trouble into stock; what is left of each can be seen on what comes back."""
        taken = [Stocked(trouble, trouble.times, trouble.after) for trouble in troubles]
        with self._changed:
            self._stock += taken
        return taken

    def add(
        self,
        method: str,
        fault: Callable[[], Exception] | Exception | None = None,
        times: int = 1,
        *,
        where: Where = Where.CALL,
        drop: bool = False,
        delay_s: float = 0,
        after: int = 0,
        moref: str = "",
        chance: float = 1,
    ) -> None:
        """Order the commonest trouble in short: a fault, a cut connection, or else a delay; as in ``Trouble``."""
        made = (lambda: fault) if isinstance(fault, Exception) else fault
        what = What.DROP if drop else What.LATE if made is None else What.FAULT
        self.order(Trouble(method, what, where, made, delay_s, times, after, chance, moref))

    def stock(self) -> list[Stocked]:
        """What may still strike."""
        with self._changed:
            return [stocked for stocked in self._stock if not stocked.spent]

    def clear(self) -> None:
        """Let all go well from now on; what waits or hangs goes on."""
        with self._changed:
            self._stock.clear()
            self._cleared += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """End all waits: the server is going down."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def pause(self, seconds: float | None) -> bool:
        """Let time pass, or (None) all of it; ends early when trouble is cleared. False: the server is going down."""
        with self._changed:
            now = self._cleared
            self._changed.wait_for(lambda: self._stopping or self._cleared != now, seconds)
            return not self._stopping

    def strike(self, method: str, where: Where, *about: Any) -> Trouble | None:
        """Do what is in stock for a call; what only the server can do is left to it.

        Args:
            method: as on the wire.
            where: which point of the call has come.
            about: references of the objects that the call is about.

        Raises:
            Dropped: the connection is to be cut; for a task: the server is going down.
            Exception: the fault that was ordered.
        """
        trouble = self._take(method, where, about)
        if trouble is None:
            return None
        if trouble.what is What.HANG and not self.pause(None):
            raise Dropped
        if trouble.delay_s > 0 and trouble.what not in (What.TRICKLE, What.RESTART):
            self.pause(trouble.delay_s)
        if trouble.what is What.DROP:
            raise Dropped
        if trouble.what is What.FAULT and trouble.fault is not None:
            raise trouble.fault()
        return trouble

    def _take(self, method: str, where: Where, about: Collection[Any]) -> Trouble | None:
        names = {"", *(name for ref in about if ref is not None for name in _names(ref))}
        with self._changed:
            for stocked in self._stock:
                trouble = stocked.trouble
                fits = trouble.method in (method, "*") and trouble.on in names and trouble.strikes_at is where
                if not fits or stocked.spent:
                    continue
                if stocked.skip_left > 0:
                    stocked.skip_left -= 1
                elif self._chance.random() < trouble.chance:
                    stocked.left -= 1
                    return trouble
        return None


def _names(ref: Any) -> tuple[str, str]:
    """What an object is called by: its id and its type."""
    return moid(ref), support.GetWsdlName(type(ref))
