"""A repository in memory: for tests, demonstrations and dry runs. Nothing of it survives the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from vcbproxy.repository.backend.base import FileExists, FileKind, FileMissing, FileName, FileShort, Stored, Traits
from vcbproxy.repository.ids import Buffer


class MemoryBackend:
    """Files in a dictionary."""

    def __init__(self, files: Mapping[FileName, bytes] | None = None, location: str = "memory") -> None:
        self._files = dict(files or {})
        self._lock = threading.Lock()
        self._location = location

    @property
    def location(self) -> str:
        """What messages call it."""
        return self._location

    @property
    def traits(self) -> Traits:
        """Two at once; the lock makes creation atomic."""
        return Traits(connections=2, settle_s=0)

    def files(self) -> dict[FileName, bytes]:
        """A copy of what is stored, to look at or to start another backend from."""
        with self._lock:
            return dict(self._files)

    def create(self) -> None:
        """Nothing to make."""

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Keep a copy."""
        content = b"".join(parts)
        with self._lock:
            if name.kind.single and name in self._files:
                raise FileExists(location=self._location, path=name.path)
            self._files[name] = content

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Copy out."""
        content = self._content(name)
        end = offset + len(buf)
        if end > len(content):
            raise FileShort(location=self._location, path=name.path, end=end)
        buf[:] = memoryview(content)[offset:end]

    def size(self, name: FileName) -> int:
        """The length of the content."""
        return len(self._content(name))

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """What was there when the listing began."""
        return (Stored(name, len(content)) for name, content in self.files().items() if name.kind is kind)

    def remove(self, name: FileName) -> None:
        """Forget it."""
        with self._lock:
            if self._files.pop(name, None) is None:
                raise FileMissing(location=self._location, path=name.path)

    def _content(self, name: FileName) -> bytes:
        with self._lock:
            content = self._files.get(name)
        if content is None:
            raise FileMissing(location=self._location, path=name.path)
        return content
