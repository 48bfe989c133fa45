"""A file that gets its name only when it is whole.

    web01.raw.partial    created, locked, written at any place by several threads
    web01.raw            after commit: data fsynced, renamed, directory fsynced

What a crash leaves is a ``.partial``, which the next restore to the same name takes over; an error removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vcbproxy.errors import Busy, Error, UsageError


class NewFile:
    """The file while it is being written. Several threads may write, to different places."""

    def __init__(self, fd: int, partial: Path, path: Path, *, overwrite: bool) -> None:
        self._fd = fd
        self._partial = partial
        self._path = path
        self._overwrite = overwrite
        self.committed = False

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Write all of it.

        Raises:
            Error: the disk is full, or worse.
        """
        done = 0
        while done < len(plain):
            try:
                done += os.pwrite(self._fd, plain[done:], offset + done)
            except OSError as error:
                raise _wrapped(self._partial, error) from error

    def commit(self) -> None:
        """Make it durable and give it its name.

        Raises:
            UsageError: a file of that name has appeared meanwhile.
            Error: it cannot be made durable.
        """
        try:
            os.fsync(self._fd)
            _refuse_existing(self._path, overwrite=self._overwrite)
            self._partial.replace(self._path)
            self.committed = True
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise _wrapped(self._path, error) from error


@contextlib.contextmanager
def new_file(path: Path, size_bytes: int, *, overwrite: bool) -> Iterator[NewFile]:
    """Create a sparse file of that size, for its content to be written and then committed; else it is removed.

    Raises:
        UsageError: there is such a file, and it may not be overwritten.
        Busy: somebody else is writing it.
        Error: it cannot be created.
    """
    _refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(path.name + ".partial")
    try:
        # Readable by its owner alone: it is the inside of somebody's machine.
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _wrapped(partial, error) from error
    try:
        _lock(fd, partial)
        out = NewFile(fd, partial, path, overwrite=overwrite)
        try:
            _resize(fd, partial, size_bytes)
            yield out
        finally:
            if not out.committed:
                with contextlib.suppress(FileNotFoundError):
                    partial.unlink()
    finally:
        os.close(fd)


def _resize(fd: int, partial: Path, size_bytes: int) -> None:
    try:
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise _wrapped(partial, error) from error


def _lock(fd: int, partial: Path) -> None:
    """Make sure that this file is ours, and still is the one of that name."""
    busy = Busy(f"{partial} is being written by another restore; wait for it, or choose another name")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), partial.stat()):
            raise busy
    except (BlockingIOError, FileNotFoundError):
        raise busy from None


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists; remove it, or say that it may be overwritten")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a plain file; a disk is restored to a file of its own")


def _wrapped(path: Path, error: OSError) -> Error:
    return Error(f"cannot write {path}: {error.strerror}")
