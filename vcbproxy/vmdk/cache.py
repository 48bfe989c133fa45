"""A bounded cache for grain tables and unpacked grains. One a disk, shared by its links and threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Protocol, TypeVar


class Sized(Protocol):
    """A thing that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Its size."""


T = TypeVar("T", bound=Sized)


class Cache:
    """Keeps what was used last, up to ``limit_bytes``. It lives as long as one disk is open, never longer."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._items: OrderedDict[Hashable, Sized] = OrderedDict()
        self._lock = Lock()

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        return self._held_bytes

    def get(self, key: Hashable, kind: type[T], load: Callable[[], T]) -> T:
        """The item under ``key``; loaded outside the lock, so two threads may load one item twice, to no harm."""
        with self._lock:
            item = self._items.get(key)
            if isinstance(item, kind):
                self._items.move_to_end(key)
                return item
        loaded = load()
        with self._lock:
            if key not in self._items:
                self._items[key] = loaded
                self._held_bytes += loaded.nbytes
            while self._held_bytes > self._limit_bytes and len(self._items) > 1:
                _, dropped = self._items.popitem(last=False)
                self._held_bytes -= dropped.nbytes
        return loaded
