"""A backend that fails on purpose, and one that remembers what was durable after every step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.base import FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.ids import Buffer


class FailingBackend(MemoryBackend):
    """Refuses to save what ``refuse`` picks, like a disk that is full."""

    def __init__(self, files: dict[FileName, bytes] | None = None) -> None:
        super().__init__(files)
        self.refuse: Callable[[FileName], bool] = lambda name: False
        self.saves = 0
        self._count = threading.Lock()

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        with self._count:
            self.saves += 1
        if self.refuse(name):
            raise TargetError(f"{self.location}: cannot write {name.path}: No space left on device")
        super().save(name, parts)


class RecordingBackend(MemoryBackend):
    """Keeps a copy of the whole repository as it was after every change."""

    def __init__(self, files: dict[FileName, bytes] | None = None) -> None:
        super().__init__(files)
        self.history: list[dict[FileName, bytes]] = []
        self._order = threading.Lock()

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        with self._order:
            super().save(name, parts)
            self.history.append(self.files())

    def remove(self, name: FileName) -> None:
        with self._order:
            super().remove(name)
            self.history.append(self.files())
