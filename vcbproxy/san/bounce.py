"""Bounce buffers: where a read lands first when its own buffer does not suit direct I/O.

A few aligned buffers are kept and lent out again; when more threads ask at once than there are kept buffers, they get
new ones that are dropped after use. So the memory held between reads is bounded, and no thread waits for another.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from vcbproxy import device
from vcbproxy.units import MiB


class BouncePool:
    """At most ``kept_max`` idle buffers of ``size_bytes`` each."""

    def __init__(self, size_bytes: int = MiB, kept_max: int = 8) -> None:
        self.size_bytes = size_bytes
        self._kept_max = kept_max
        self._kept: list[memoryview] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[memoryview]:
        """Lend a page-aligned buffer; its content is whatever the last reader left."""
        with self._lock:
            buf = self._kept.pop() if self._kept else None
        if buf is None:
            buf = device.aligned_buffer(self.size_bytes)
        try:
            yield buf
        finally:
            with self._lock:
                if len(self._kept) < self._kept_max:
                    self._kept.append(buf)
