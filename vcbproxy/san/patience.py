"""Calls that may never return, made by threads that can be given up.

A read of a LUN whose paths are all gone may neither succeed nor fail: the kernel queues it, and whoever made it hangs
(state D), deaf to signals, SIGKILL among them. If that were the thread that holds a VM snapshot, the snapshot would
grow until the datastore is full. So each such call is made by a *hand*, and the caller waits for the hand, not longer
than its patience:

    caller ──call──▶ hand ──preadv──▶ kernel          answered: the hand waits for the next call
      │                │
      ╰─ timeout_s ────┴─ given up: the caller raises; the hand stays with its call, and with all memory that the
                          kernel may still write into, until the kernel answers, or until the process is gone

A handover costs some 20 µs (measured on 2 cores), a read of a megabyte off a SAN a hundred times that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

_T = TypeVar("_T")

_LOG = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 300.0
"""Longer than what gives up by itself below us: SCSI after some 30 s, iSCSI 120 s, multipath (as we advise) 60 s."""

_JOIN_S = 5.0  # an idle hand ends in microseconds; a machine that is busy beyond reason must not hang us


class GivenUp(Exception):
    """A call was not answered. A signal inside this package: callers turn it into an error with a device's name."""

    def __init__(self, waited_s: float, *, interrupted: bool) -> None:
        super().__init__(f"no answer for {waited_s:.0f} s")
        self.waited_s = waited_s
        self.interrupted = interrupted


class Patience:
    """How long to wait for calls, and the hands that make them; owned by a ``with``.

    Args:
        timeout_s: how long a call may take.
    """

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Hand] = []
        self._waiting: set[_Call[Any]] = set()
        self._overdue: set[_Call[Any]] = set()
        self._closed = False

    def call(self, owner: object, function: Callable[[], _T], discard: Callable[[_T], None] | None = None) -> _T:
        """Have ``function`` called, and wait for what comes of it.

        Args:
            owner: whose call it is: while a call of an equal one is overdue, no other is begun.
            function: what may hang. It must hold on to all memory that is written meanwhile.
            discard: takes what a call gave that was given up, in the hand's own thread.

        Raises:
            GivenUp: no answer in time, or an earlier call of the same owner is still without one.
        """
        call: _Call[_T] = _Call(owner, function, discard)
        with self._lock:
            out = [other for other in self._overdue if other.owner == owner]
            if out:
                raise GivenUp(max(other.waited_s for other in out), interrupted=False)
            self._waiting.add(call)
            hand = self._idle.pop() if self._idle else None
        if hand is None:
            hand = _Hand(self._take_back)
            hand.start()
        hand.give(call)
        try:
            answered = call.done.acquire(timeout=self.timeout_s)
        except BaseException:  # Ctrl-C: the call goes on without us
            self._let_go(call)
            raise
        if not answered:
            if self._let_go(call, overdue=True):
                raise GivenUp(call.waited_s, interrupted=False)
            call.done.acquire()  # answered at the last moment
        return call.outcome()

    @property
    def overdue(self) -> bool:
        """Whether a call that was given up is still without an answer."""
        with self._lock:
            return bool(self._overdue)

    def interrupt(self, threads: Collection[int] | None = None) -> None:
        """Let nobody wait any longer for what is out now: the job is ending. Later calls are made as ever.

        Args:
            threads: by their identities: only what these wait for; None: whoever waits.
        """
        with self._lock:
            waiting = {call for call in self._waiting if threads is None or call.thread in threads}
            self._waiting -= waiting
        for call in waiting:
            call.error = GivenUp(call.waited_s, interrupted=True)
            call.done.release()

    def _let_go(self, call: _Call[Any], *, overdue: bool = False) -> bool:
        """Give a call up; False when it was answered at the last moment."""
        with self._lock:
            if call not in self._waiting:
                return False
            self._waiting.remove(call)
            if overdue:
                self._overdue.add(call)
            return True

    def _take_back(self, hand: _Hand, call: _Call[Any], result: Any, error: BaseException | None) -> bool:
        """A hand is done with a call: answer it if anybody waits. Says whether the hand is to wait for another."""
        with self._lock:
            wanted = call in self._waiting
            self._waiting.discard(call)
            self._overdue.discard(call)
            stays = not self._closed
            if stays:
                self._idle.append(hand)
        if wanted:
            call.result, call.error = [result], error
            call.done.release()
        elif error is None and call.discard is not None:
            call.discard(result)
        return stays

    def close(self) -> None:
        """End the hands that are free. Those that hang cannot be ended by anyone."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            overdue = len(self._overdue)
        for hand in idle:
            hand.give(None)
        for hand in idle:
            hand.join(_JOIN_S)
        if overdue:
            _LOG.warning("a read never came back: the kernel may keep this process, doing nothing, until it does")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Call(Generic[_T]):
    """One call on its way. ``done`` is released once: by its hand or an interrupt, whichever takes it off the list."""

    __slots__ = ("_since_s", "discard", "done", "error", "function", "owner", "result", "thread")

    def __init__(self, owner: object, function: Callable[[], _T], discard: Callable[[_T], None] | None) -> None:
        self.owner = owner
        self.thread = threading.get_ident()
        self.function = function
        self.discard = discard
        self.done = threading.Lock()
        self.done.acquire()
        self.result: list[_T] = []
        self.error: BaseException | None = None
        self._since_s = time.monotonic()

    @property
    def waited_s(self) -> float:
        """For how long it has been on its way."""
        return time.monotonic() - self._since_s

    def outcome(self) -> _T:
        """What came of it, once; raises what it raised."""
        error, self.error = self.error, None
        if error is None:
            return self.result[0]
        try:
            raise error
        finally:
            del error, self  # else the error, by its traceback, would hold itself and what was to be read into


class _Hand(threading.Thread):
    """A thread that makes calls. A daemon: the interpreter must be able to end while it hangs."""

    def __init__(self, take_back: Callable[[_Hand, _Call[Any], Any, BaseException | None], bool]) -> None:
        super().__init__(name="san-hand", daemon=True)
        self._take_back = take_back
        self._call: _Call[Any] | None = None
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, call: _Call[Any] | None) -> None:
        """The next call; None to end."""
        self._call = call
        self._given.release()

    def run(self) -> None:
        """Make calls until there is none."""
        stays = True
        while stays:
            self._given.acquire()
            call, self._call = self._call, None
            if call is None:
                return
            result, error = None, None
            try:
                result = call.function()
            except BaseException as caught:  # noqa: BLE001  # it is raised again, by the caller
                error = caught
            stays = self._take_back(self, call, result, error)
            del call, result, error  # what an idle hand holds would stay in memory
