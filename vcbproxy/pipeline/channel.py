"""A bounded queue between threads that can be closed, or torn down at any time without anybody waiting for ever.

``close`` says that nothing more comes: what is in it is still handed out. ``abort`` says that something went wrong:
everybody who waits, on either end, is woken and told so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from vcbproxy.errors import Cancelled

Item = TypeVar("Item")

_POLL_S = 0.2


class Closed(Exception):
    """The channel was closed and is empty, or was aborted. A signal between threads of ours; no operator sees it."""


class Channel(Generic[Item]):
    """At most ``capacity`` items on their way from those who put to those who get.

    Args:
        capacity: how many may wait; more make ``put`` wait.
        cancelled: asked a few times a second while waiting; once it says yes, whoever would have to wait raises.
    """

    def __init__(self, capacity: int, cancelled: Callable[[], bool] | None = None) -> None:
        self._capacity = capacity
        self._cancelled = cancelled
        self._items: deque[Item] = deque()
        self._closed = False
        self._aborted = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)

    def put(self, item: Item) -> None:
        """Hand over an item; wait while the channel is full.

        Raises:
            Closed: nobody will take it.
            Cancelled: the operator wants an end.
        """
        with self._emptied:
            while not self._closed and len(self._items) >= self._capacity:
                self._wait(self._emptied)
            if self._closed:
                raise Closed
            self._items.append(item)
            self._filled.notify()

    def get(self) -> Item:
        """Take the oldest item; wait while there is none.

        Raises:
            Closed: none will come.
            Cancelled: the operator wants an end.
        """
        with self._filled:
            while not self._closed and not self._items:
                self._wait(self._filled)
            if self._aborted or not self._items:
                raise Closed
            item = self._items.popleft()
            self._emptied.notify()
            return item

    def __iter__(self) -> Iterator[Item]:
        """Take items until the channel is closed and empty; an aborted one raises Closed."""
        while True:
            try:
                item = self.get()
            except Closed:
                if self._aborted:
                    raise
                return
            yield item

    def close(self) -> None:
        """Nothing more comes."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._emptied.notify_all()

    def abort(self) -> None:
        """Drop what is in it and wake everybody."""
        with self._filled:
            self._closed = self._aborted = True
            self._items.clear()
            self._filled.notify_all()
            self._emptied.notify_all()

    def _wait(self, condition: threading.Condition) -> None:
        if self._cancelled is None:
            condition.wait()
            return
        if self._cancelled():
            raise Cancelled
        condition.wait(_POLL_S)
