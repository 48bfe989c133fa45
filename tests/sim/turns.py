"""Several processes at one storage, one call at a time, by turns that are drawn from a seed.

    process A ── call ──▶ waits ┐
    process B ── call ──▶ waits ┼─▶ one is drawn, its call is made, and only then the next is drawn
    process C ── call ──▶ waits ┘

A turn is drawn once every process that still runs has a call waiting, so that the seed decides, not the machine.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import Backend, FileKind, FileName, Stored
from vcbproxy.repository.ids import Buffer

_PATIENCE_S = 5.0


class Turns:
    """Draws whose call is next."""

    def __init__(self, seed: int, sticky: float) -> None:
        """Begin.

        Args:
            seed: of all draws.
            sticky: how likely the same process goes on.
        """
        self._draw = random.Random(seed)
        self._sticky = sticky
        self._changed = threading.Condition()
        self._waiting: dict[str, list[object]] = {}
        self._running: set[str] = set()
        self._turn: object = None

    def run(self, processes: Mapping[str, Callable[[], None]]) -> dict[str, BaseException | None]:
        """Run all of them to their ends; gives what each ended in."""
        ends: dict[str, BaseException | None] = {}

        def live(name: str) -> None:
            try:
                processes[name]()
                ends[name] = None
            except BaseException as error:  # noqa: BLE001  # it is what is asked for
                ends[name] = error
            finally:
                with self._changed:
                    self._running.discard(name)
                    self._changed.notify_all()

        self._running = set(processes)
        threads = [threading.Thread(target=live, args=(name,), name=name) for name in processes]
        for thread in threads:
            thread.start()
        last = ""
        while (name := self._drawn(last)) is not None:
            last = name
        for thread in threads:
            thread.join(_PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} does not end"
        return ends

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait for a turn, and give it back."""
        ticket = object()
        with self._changed:
            self._waiting.setdefault(name, []).append(ticket)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._turn is ticket, 12 * _PATIENCE_S), "nobody draws any more"
        try:
            yield
        finally:
            with self._changed:
                self._turn = None
                self._changed.notify_all()

    def _drawn(self, last: str) -> str | None:
        """Let one call be made; gives whose it was, or None when all have ended."""
        end_s = time.monotonic() + _PATIENCE_S
        with self._changed:
            while self._turn is not None or not self._ready(time.monotonic() > end_s):
                if not self._running and self._turn is None and not any(self._waiting.values()):
                    return None
                self._changed.wait(0.05 if self._turn is None else None)
            names = sorted(name for name, tickets in self._waiting.items() if tickets)
            name = last if last in names and self._draw.random() < self._sticky else self._draw.choice(names)
            self._turn = self._waiting[name].pop(0)
            self._changed.notify_all()
            return name

    def _ready(self, tired: bool) -> bool:
        waiting = {name for name, tickets in self._waiting.items() if tickets}
        return bool(waiting) and (tired or self._running <= waiting)


class TakingTurns(Around):
    """A backend each of whose calls waits for its process's turn."""

    def __init__(self, inner: Backend, turns: Turns, process: str) -> None:
        super().__init__(inner)
        self._turns = turns
        self._process = process

    def create(self) -> None:
        with self._turns.turn(self._process):
            self._inner.create()

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        with self._turns.turn(self._process):
            self._inner.save(name, parts)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        with self._turns.turn(self._process):
            self._inner.load(name, offset, buf)

    def size(self, name: FileName) -> int:
        with self._turns.turn(self._process):
            return self._inner.size(name)

    def list(self, kind: FileKind) -> Iterator[Stored]:
        with self._turns.turn(self._process):
            listed = list(self._inner.list(kind))
        return iter(listed)

    def remove(self, name: FileName) -> None:
        with self._turns.turn(self._process):
            self._inner.remove(name)
