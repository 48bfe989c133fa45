"""What every wrapper round a backend has in common: whatever it does not say otherwise is as the wrapped one has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vcbproxy.repository.backend.base import Backend, FileKind, FileName, Stored, Traits
from vcbproxy.repository.ids import Buffer


class Around:
    """A backend that is another one; a wrapper says what it does differently."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def location(self) -> str:
        """The wrapped backend's."""
        return self._inner.location

    @property
    def traits(self) -> Traits:
        """The wrapped backend's."""
        return self._inner.traits

    def create(self) -> None:
        """As the wrapped backend."""
        self._inner.create()

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """As the wrapped backend."""
        self._inner.save(name, parts)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """As the wrapped backend."""
        self._inner.load(name, offset, buf)

    def size(self, name: FileName) -> int:
        """As the wrapped backend."""
        return self._inner.size(name)

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """As the wrapped backend."""
        return self._inner.list(kind)

    def remove(self, name: FileName) -> None:
        """As the wrapped backend."""
        self._inner.remove(name)
