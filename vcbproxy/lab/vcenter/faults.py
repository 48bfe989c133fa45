"""Trouble on demand: what a test tells the server to do wrong, and how often."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vcbproxy.lab.vcenter.schema import moid


class Where(Enum):
    """When trouble strikes."""

    CALL = "call"
    """Instead of the method."""
    ANSWER = "answer"
    """After the method was carried out: its answer is lost on the way."""
    TASK = "task"
    """In the task that the method began."""


@dataclass(slots=True)
class Trouble:
    """One thing that goes wrong. Without ``fault`` and ``drop`` it is only a delay."""

    method: str
    fault: Callable[[], Exception] | None
    where: Where
    drop: bool
    delay_s: float
    times_left: int
    skip_left: int
    moref: str


class Dropped(Exception):
    """The connection is to be cut without an answer."""


class Faults:
    """All trouble a server has in stock. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stock: list[Trouble] = []
        self._stop = threading.Event()

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
    ) -> None:
        """Let a method fail, or come late.

        Args:
            method: as on the wire: ``CreateSnapshot_Task``; ``*`` for all.
            fault: what to answer with, or the end of the task; a fault of pyVmomi, or what makes one.
            times: how many calls it hits.
            where: instead of the call, after it, or in the task it began.
            drop: cut the connection instead of answering.
            delay_s: wait so long first.
            after: how many calls to let pass before.
            moref: only on this object; with ``Where.TASK`` the VM that the task is about.
        """
        raised = (lambda: fault) if isinstance(fault, Exception) else fault
        with self._lock:
            self._stock.append(Trouble(method, raised, where, drop, delay_s, times, after, moref))

    def clear(self) -> None:
        """Let all go well from now on."""
        with self._lock:
            self._stock.clear()

    def stop(self) -> None:
        """End all delays: the server is going down."""
        self._stop.set()

    def strike(self, method: str, where: Where, this: Any) -> None:
        """Do what is in stock for this call.

        Raises:
            Dropped: the connection is to be cut.
            Exception: the fault that was ordered.
        """
        trouble = self._take(method, where, "" if this is None else moid(this))
        if trouble is None:
            return
        if trouble.delay_s > 0:
            self._stop.wait(trouble.delay_s)
        if trouble.drop:
            raise Dropped
        if trouble.fault is not None:
            raise trouble.fault()

    def _take(self, method: str, where: Where, moref: str) -> Trouble | None:
        with self._lock:
            for trouble in self._stock:
                fits = trouble.method in (method, "*") and trouble.moref in ("", moref)
                if not fits or trouble.where is not where or trouble.times_left <= 0:
                    continue
                if trouble.skip_left > 0:
                    trouble.skip_left -= 1
                    continue
                trouble.times_left -= 1
                return trouble
        return None
