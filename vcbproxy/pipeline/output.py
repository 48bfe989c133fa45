"""A file that gets its name only when it is whole.

    web01.raw.partial    created, locked, written at any place by several threads
    web01.raw            after commit: data fsynced, renamed, directory fsynced

What a crash leaves is a ``.partial``, which the next restore to the same name takes over; an error removes it.

Whole pages go past the page cache where the file system can do that: a disk is far larger than the memory to cache it,
and what the kernel lets pile up, it makes the writer wait for later (measured on ext4, 2 GiB: 0.7-1.1 GB/s direct, 0.2
through the cache). Only the ragged ends of chunks that are off the 4 KiB grid are written through it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vcbproxy.device import aligned_buffer
from vcbproxy.errors import Busy, Error, UsageError
from vcbproxy.units import KiB, MiB, align_down, align_up

_PAGE = 4 * KiB  # what direct I/O asks of offset, length and address, on every disk there is
_DIRECT_MIN = 64 * KiB
_STAGE_BYTES = 2 * MiB
_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)


class NewFile:
    """The file while it is being written. Several threads may write, to different places."""

    def __init__(self, fd: int, direct_fd: int | None, partial: Path, path: Path, *, overwrite: bool) -> None:
        self._fd = fd
        self._direct_fd = direct_fd
        self._thread = threading.local()
        self._partial = partial
        self._path = path
        self._overwrite = overwrite
        self.committed = False

    def write_at(self, offset: int, plain: memoryview) -> None:
        """Write all of it.

        Raises:
            Error: the disk is full, or worse.
        """
        try:
            start, end = align_up(offset, _PAGE), align_down(offset + len(plain), _PAGE)
            if self._direct_fd is None or end - start < _DIRECT_MIN:
                self._write_cached(offset, plain)
                return
            self._write_cached(offset, plain[: start - offset])
            done = self._write_direct(self._direct_fd, start, plain[start - offset : end - offset])
            self._write_cached(start + done, plain[start - offset + done :])
        except OSError as error:
            raise _wrapped(self._partial, error) from error

    def _write_cached(self, offset: int, plain: memoryview) -> None:
        done = 0
        while done < len(plain):
            done += os.pwrite(self._fd, plain[done:], offset + done)

    def _write_direct(self, fd: int, offset: int, plain: memoryview) -> int:
        """Write whole pages by way of this thread's stage; return how many bytes of them it took."""
        if not hasattr(self._thread, "stage"):
            self._thread.stage = aligned_buffer(_STAGE_BYTES)
        stage: memoryview = self._thread.stage
        done = 0
        while done < len(plain) and done % _PAGE == 0:
            part = stage[: min(len(plain) - done, _STAGE_BYTES)]
            np.copyto(np.frombuffer(part, np.uint8), np.frombuffer(plain[done : done + len(part)], np.uint8))
            try:
                done += os.pwrite(fd, part, offset + done)
            except OSError as error:
                if error.errno not in _NOT_DIRECT:
                    raise
                break
        return done

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
        with _direct(fd) as direct_fd:
            out = NewFile(fd, direct_fd, partial, path, overwrite=overwrite)
            try:
                _resize(fd, partial, size_bytes)
                yield out
            finally:
                if not out.committed:
                    with contextlib.suppress(FileNotFoundError):
                        partial.unlink()
    finally:
        os.close(fd)


@contextlib.contextmanager
def _direct(fd: int) -> Iterator[int | None]:
    """The same file once more, for direct I/O; None where there is no such thing."""
    try:
        direct_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:  # not this file system, or no /proc: the page cache will do
        yield None
        return
    try:
        yield direct_fd
    finally:
        os.close(direct_fd)


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
