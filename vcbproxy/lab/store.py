"""Where the lab keeps a datastore's files: a VMFS volume in LUN images, or a folder that stands for an NFS export.

Paths are absolute inside the datastore: ``/web01/web01-flat.vmdk``.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from vcbproxy.lab.vmfs import Allocation

_STEP_BYTES = 1 << 20
Ranges = list[tuple[int, int]]


class Store(Protocol):
    """A datastore's files as the host that runs the VMs sees them; safe to use from several threads."""

    def mkdir(self, path: str) -> None:
        """Make a directory; its parent exists."""

    def create_file(
        self, path: str, size_bytes: int = 0, data: bytes = b"", *, allocation: Allocation = Allocation.THIN
    ) -> None:
        """Make a file of a size, or with content."""

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file; it grows when the data end past its end."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read all of a range of a file, or raise."""

    def exists(self, path: str) -> bool:
        """Whether there is something at a path."""

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def size(self, path: str) -> int:
        """The file's length in bytes."""

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut or extend a file; what is added reads as zeroes."""

    def rename(self, old: str, new: str) -> None:
        """Move a file; one at the new name is replaced."""

    def delete(self, path: str) -> None:
        """Remove a file."""

    def data_ranges(self, path: str) -> Ranges:
        """(offset, length) of what was ever written, in order; all else reads as zeroes."""


class FolderStore:
    """An NFS export: a folder of plain files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()

    def _path(self, path: str) -> Path:
        return self._folder / path.removeprefix("/")

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self._path(path).mkdir()

    def create_file(
        self, path: str, size_bytes: int = 0, data: bytes = b"", *, allocation: Allocation = Allocation.THIN
    ) -> None:
        """Make a file; NFS knows no to-be-zeroed blocks, so only an eager file is written out."""
        with self._lock, self._path(path).open("xb") as file:
            if allocation is Allocation.EAGER:
                for offset in range(0, size_bytes, _STEP_BYTES):
                    file.write(bytes(min(_STEP_BYTES, size_bytes - offset)))
                file.seek(0)
            file.write(data)
            file.truncate(max(size_bytes, len(data)))

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write at an offset."""
        with self._lock, self._path(path).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read all of a range."""
        with self._lock, self._path(path).open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise ValueError(f"{path}: {length} bytes at {offset} are past the end")
        return data

    def exists(self, path: str) -> bool:
        """Whether there is something."""
        return self._path(path).exists()

    def list(self, path: str) -> list[str]:
        """The names in a directory."""
        return sorted(entry.name for entry in self._path(path).iterdir())

    def size(self, path: str) -> int:
        """The file's length."""
        return self._path(path).stat().st_size

    def truncate(self, path: str, size_bytes: int) -> None:
        """Cut or extend."""
        with self._lock:
            os.truncate(self._path(path), size_bytes)

    def rename(self, old: str, new: str) -> None:
        """Move a file."""
        with self._lock:
            self._path(old).replace(self._path(new))

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._lock:
            self._path(path).unlink()

    def data_ranges(self, path: str) -> Ranges:
        """What the file system below has allocated."""
        ranges: list[tuple[int, int]] = []
        with self._lock, self._path(path).open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            position = 0
            while position < end:
                try:
                    start = os.lseek(file.fileno(), position, os.SEEK_DATA)
                except OSError:  # ENXIO: nothing but a hole up to the end
                    break
                position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                ranges.append((start, position - start))
        return ranges
