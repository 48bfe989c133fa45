"""Threads with an owner: started inside a ``with``, all ended when it ends, whichever way it does.

    with Crew("copy", cancel) as crew:
        work = crew.channel(capacity=16)
        crew.start(worker, work)
        ...                     an exception here, or in any worker: every channel is aborted, every thread joined
        crew.join()             waits for the workers, raises the first error of any of them

The first error wins and is the one that is raised; what the others say on being woken is not interesting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self

from vcbproxy.errors import Cancelled
from vcbproxy.pipeline.channel import Channel, Closed
from vcbproxy.thread import Thread, join_all

_Args = ParamSpec("_Args")


class Cancel(Protocol):
    """Something like a ``threading.Event`` that the operator sets to have an end."""

    def is_set(self) -> bool:
        """Whether to stop."""


Interrupt = Callable[[Collection[int]], None]
"""Has threads, by their identities, wait no longer for what does not come."""


class Crew:
    """The threads of one job and the channels between them.

    Args:
        name: of the threads.
        cancel: looked at while they wait.
        interrupt: called with its threads at the first error, and each second from there on until they have ended, for
            one of them may just have begun to wait: wakes those that wait elsewhere than at a channel.
    """

    def __init__(self, name: str, cancel: Cancel | None = None, interrupt: Interrupt | None = None) -> None:
        self._name = name
        self._cancel = cancel
        self._interrupt = interrupt
        self._threads: list[Thread] = []
        self._channels: list[Channel[Any]] = []
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def channel(self, capacity: int) -> Channel[Any]:
        """A channel that is aborted when the crew fails."""
        channel: Channel[Any] = Channel(capacity, None if self._cancel is None else self._cancel.is_set)
        with self._lock:
            self._channels.append(channel)
            if self._error is not None:
                channel.abort()
        return channel

    def start(self, work: Callable[_Args, None], *args: _Args.args, **kwargs: _Args.kwargs) -> None:
        """Run ``work`` in a thread of its own."""

        def run() -> None:
            try:
                work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # whatever it is: it is raised again, by the owner
                self._fail(error)

        thread = Thread(run, f"{self._name}-{len(self._threads)}")
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no room for one more
            self._threads.pop()
            raise

    @property
    def stopping(self) -> bool:
        """Whether a thread that does not wait at any channel should end by itself."""
        return self._error is not None or (self._cancel is not None and self._cancel.is_set())

    def check(self) -> None:
        """Raise the first error of any thread, or Cancelled if the operator wants an end."""
        if self._error is not None:
            raise self._error
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled

    def wait(self, timeout_s: float) -> bool:
        """Wait a while for the threads; say whether all have ended."""
        for thread in self._threads:
            if not thread.over:
                thread.join(timeout_s)
                break
        return all(thread.over for thread in self._threads)

    def join(self) -> None:
        """Wait for the threads to end; raise the first error of any of them."""
        join_all(self._threads, self._fail, self._wake)
        self.check()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            first = self._error is None
            if first:
                self._error = error
            channels = list(self._channels)
        for channel in channels:
            channel.abort()
        if first:
            self._wake()

    def _wake(self) -> None:
        if self._error is not None and self._interrupt is not None:
            self._interrupt([thread.ident for thread in self._threads if thread.ident is not None])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        join_all(self._threads, self._fail, self._wake)
        # A Closed that reached us only means that a thread failed before: raise what it failed of.
        if isinstance(error, Closed) and self._error is not error and self._error is not None:
            raise self._error from None
        if error is None and self._error is not None:
            raise self._error
