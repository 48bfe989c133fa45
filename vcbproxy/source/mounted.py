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
    try:
        found = (root / path).resolve()
    except RuntimeError:  # links that lead in a circle
        return None
    return found if found.is_relative_to(root.resolve()) and found.is_file() else None


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Which file it is, and what was last done to it, as its server says now.

    stat(2) would do on a local file system. An NFS client answers it from a cache of attributes that may be a minute
    old (nfs(5), acregmax); opening the file makes it ask the server ("close-to-open cache coherence").
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


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
        try:
            found = self._asked(partial(_located, root, path))
            if found is None:
                raise PathNotFound(volume=self._mount, file=path, offset=0, reason="no such file")
            self._path = found
            self._lun: Lun = open_lun(self._path, name=name, patience=patience)
            try:
                self._stamp = self._asked(partial(_stamp, self._path))
            except BaseException:
                self._lun.close()
                raise
        except OSError as error:
            raise CannotOpen(device=name, reason=error.strerror or str(error)) from error

    def _asked(self, question: Callable[[], _T]) -> _T:
        """Ask the server, which may not answer: a hard mount waits for ever."""
        try:
            return self._patience.call(("mount", self._mount), question)
        except GivenUp as given_up:
            raise CannotOpen(device=self._name, reason=f"{self._mount}: {given_up}; is its server up?") from None

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
            CannotOpen: its server does not answer.
        """
        try:
            stamp = self._asked(partial(_stamp, self._path))
        except OSError as error:
            raise Changed(file=self._name, reason=f"it cannot be looked at again: {error.strerror}") from error
        if stamp != self._stamp:
            raise Changed(file=self._name, reason="its inode, size, or time of modification or change differs")

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._lun.close()
