"""A file of a datastore that is mounted here as a directory: NFS."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from vcbproxy.device import check_range
from vcbproxy.errors import CannotOpen, Changed, PathNotFound
from vcbproxy.extent import Extent, Kind
from vcbproxy.san.lun import Lun, open_lun
from vcbproxy.san.patience import GivenUp, Patience

_T = TypeVar("_T")


def _located(root: Path, path: str) -> Path | None:
    """Where the file is; None when it is not, or not inside the mount."""
    found = (root / path).resolve()
    return found if found.is_relative_to(root.resolve()) and found.is_file() else None


def _attributes(path: Path) -> os.stat_result:
    """What the server says of a file now.

    An NFS client answers ``stat`` from its cache, up to a minute old, but asks the server on each ``open``
    (close-to-open consistency).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


class MountedFile:
    """One file below a mount point, read with O_DIRECT: the hosts write the same export, and a cached page goes stale.

    A host's idea of a hole is not a promise about a file that others write, so all of it is DATA.
    """

    def __init__(self, root: Path, path: str, name: str, patience: Patience) -> None:
        """Open it.

        Raises:
            PathNotFound: there is no such file, or a link leads out of the mount.
            DeviceError: it cannot be opened, or its server does not answer.
        """
        self._name = name
        self._patience = patience
        self._mount = str(root)
        found = self._asked(partial(_located, root, path))
        if found is None:
            raise PathNotFound(volume=str(root), file=path, offset=0, reason="no such file")
        self._path = found
        self._lun: Lun = open_lun(self._path, name=name, patience=patience)
        try:
            self._stamp = self._stat()
        except BaseException:
            self._lun.close()
            raise

    def _stat(self) -> tuple[int, int, int]:
        stat = self._asked(partial(_attributes, self._path))
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _asked(self, question: Callable[[], _T]) -> _T:
        """Ask the server, which may not answer: a hard mount waits for ever."""
        try:
            return self._patience.call(("mount", self._mount), question)
        except GivenUp as given_up:
            raise CannotOpen(device=self._name, reason=f"{self._mount}: {given_up}; is its server up?") from None
        except OSError as error:
            raise CannotOpen(device=self._name, reason=error.strerror or str(error)) from error

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self._lun.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill the buffer, or raise DeviceError."""
        check_range(self, offset, len(buf))
        self._lun.read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        """All DATA."""
        if self.size_bytes:
            yield Extent(0, self.size_bytes, Kind.DATA)

    def recheck(self) -> None:
        """Make sure that nobody wrote, replaced or resized it meanwhile.

        Raises:
            Changed: somebody did.
        """
        if self._stat() != self._stamp:
            raise Changed(file=self._name, reason="its inode, size or modification time differs")

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._lun.close()
