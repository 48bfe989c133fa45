"""One LUN, read by position: a block device or an image file in, whole buffers or a DeviceError out.

Other hosts write the LUN while we read it, so the page cache of this machine is never right about it: block devices are
read with O_DIRECT, metadata and data alike; how a request is split for that, :mod:`vcbproxy.san.request` knows.

Each call that may hang is made by a hand of :class:`vcbproxy.san.patience.Patience`, so that a LUN that never answers
costs a disk, not the proxy, and not a VM snapshot that grows for ever.

Read-only by construction: the only calls made on the descriptor are preadv, lseek, fstat, posix_fadvise and the two
ioctls that ask for size and sector. No write, no SCSI command, no reservation, no exclusive open. Nothing is retried
here: a failed path is multipath's to hide, and what multipath could not hide must be seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from vcbproxy import device
from vcbproxy.errors import CannotOpen, DeviceError, Stalled
from vcbproxy.san.patience import GivenUp, Patience
from vcbproxy.san.request import Request

# linux/fs.h; the same numbers on every architecture that Debian 12 runs 64-bit Python on, but MIPS and PowerPC.
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80081272

IMAGE_SECTOR_BYTES = 512
# A file system may sit on 512- or 4096-byte sectors and does not say which: 4096 suits both.
IMAGE_ALIGNMENT_BYTES = 4096


class Lun:
    """Bytes of a LUN. Any number of threads may read it at once; made by :func:`open_lun`."""

    def __init__(
        self,
        fd: int,
        path: str,
        name: str,
        *,
        size_bytes: int,
        sector_bytes: int,
        is_block: bool,
        direct: bool,
        patience: Patience,
        owns_patience: bool,
    ) -> None:
        self._fd = fd
        self._path = path
        self._name = name
        self._size_bytes = size_bytes
        self._sector_bytes = sector_bytes
        self._alignment_bytes = sector_bytes if is_block else IMAGE_ALIGNMENT_BYTES
        self._is_block = is_block
        self._direct = direct
        self._patience = patience
        self._owns_patience = owns_patience
        self._lock = threading.Lock()
        self._readers = 0
        self._closed = False

    @property
    def path(self) -> str:
        """The device node or file it was opened by."""
        return self._path

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """Its size when it was opened."""
        return self._size_bytes

    @property
    def sector_bytes(self) -> int:
        """The logical sector: 512 or 4096."""
        return self._sector_bytes

    @property
    def is_block(self) -> bool:
        """Whether it is a block device; else an image file."""
        return self._is_block

    @property
    def direct(self) -> bool:
        """Whether reads go past the page cache (O_DIRECT); False only for files whose file system cannot."""
        return self._direct

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf`` from ``offset``; any offset, length and buffer will do, aligned ones go fastest.

        Raises:
            DeviceError: out of range, an I/O error, the device is gone or ended early.
            Stalled: no answer in time; ``buf`` may then be written at any later time, and must not be used again.
        """
        flat = buf.cast("B")
        length = len(flat)
        device.check_range(self, offset, length)
        if length == 0:
            return
        try:
            self._patience.call(self, partial(self._read, offset, flat))
        except GivenUp as given_up:
            raise _stalled(self._name, offset, length, given_up) from None

    def _read(self, offset: int, buf: memoryview) -> None:
        """The read itself, in a hand."""
        with self._descriptor(offset, len(buf)) as fd:
            request = Request(fd, self._name, offset, buf)
            if self._direct:
                request.read_direct(self._alignment_bytes)
            else:
                request.read_cached()

    @contextmanager
    def _descriptor(self, offset: int, length: int) -> Iterator[int]:
        """Hold the descriptor open for one read.

        A number closed under a reader may be given to another file at once, and the read would return *its* bytes. So
        the last reader out closes it, not close().
        """
        with self._lock:
            if self._closed:
                raise DeviceError(device=self._name, offset=offset, length=length, reason="it was closed")
            self._readers += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._readers -= 1
                self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._closed and self._readers == 0 and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Refuse further reads; the descriptor goes when the last read is done. A second time does nothing."""
        with self._lock:
            self._closed = True
            self._close_when_idle()
        if self._owns_patience:
            self._patience.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lun {self._name} at {self._path}>"


def _stalled(name: str, offset: int, length: int, given_up: GivenUp) -> DeviceError:
    if given_up.interrupted:
        return DeviceError(device=name, offset=offset, length=length, reason="given up, since the job ends")
    return Stalled(device=name, offset=offset, length=length, waited_s=given_up.waited_s)


def open_lun(path: str | os.PathLike[str], *, name: str | None = None, patience: Patience | None = None) -> Lun:
    """Open a block device or an image file for reading, past the page cache.

    Args:
        path: device node (or a link to one), or plain file.
        name: what messages call it; the path, when not given.
        patience: how long to wait for it, now and at each read; it must outlast the LUN. Its own, when not given.

    Raises:
        CannotOpen: it is not there, is no block device or file, may not be read, has no direct I/O (block devices), or
            does not answer.
    """
    text = os.fspath(path)
    called = name or text
    waiting = patience or Patience()
    try:
        return waiting.call(
            ("open", text), partial(_open, text, called, waiting, owned=patience is None), discard=Lun.close
        )
    except GivenUp as given_up:
        error = CannotOpen(device=called, reason=f"{given_up}; do its paths or the array hang?")
        raise error from None
    except BaseException:
        if patience is None:
            waiting.close()
        raise


def _open(text: str, called: str, patience: Patience, *, owned: bool) -> Lun:
    """The opening itself, in a hand."""
    try:
        mode = Path(text).stat().st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise CannotOpen(device=called, reason="it is neither a block device nor a file")
        fd, direct = _open_direct(text, is_block=stat.S_ISBLK(mode))
    except OSError as error:
        raise CannotOpen(device=called, reason=_explain_open(error)) from error
    except ValueError as error:
        raise CannotOpen(device=repr(called), reason="no path can be so") from error
    try:
        return _measured(fd, text, called, direct=direct, patience=patience, owned=owned)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError):
            raise CannotOpen(device=called, reason=error.strerror) from error
        raise


def _open_direct(path: str, *, is_block: bool) -> tuple[int, bool]:
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError as error:
        # A file system without direct I/O says EINVAL. An image there is nobody's live LUN: reading it through the page
        # cache, emptied before each read, is right. A block device always has direct I/O, and gets no second chance.
        if is_block or error.errno != errno.EINVAL:
            raise
        return os.open(path, flags), False


def _measured(fd: int, path: str, name: str, *, direct: bool, patience: Patience, owned: bool) -> Lun:
    """Ask the opened descriptor, not the path: it cannot be swapped any more."""
    is_block = stat.S_ISBLK(os.fstat(fd).st_mode)
    if is_block:
        sector_bytes = _ioctl_number(fd, BLKSSZGET, "i")
        size_bytes = _ioctl_number(fd, BLKGETSIZE64, "Q")
    else:
        sector_bytes = IMAGE_SECTOR_BYTES
        size_bytes = os.lseek(fd, 0, os.SEEK_END)
    if sector_bytes < 512 or sector_bytes & (sector_bytes - 1) or sector_bytes > IMAGE_ALIGNMENT_BYTES:
        raise CannotOpen(device=name, reason=f"its sector size is {sector_bytes}; 512 and 4096 are known")
    return Lun(
        fd,
        path,
        name,
        size_bytes=size_bytes,
        sector_bytes=sector_bytes,
        is_block=is_block,
        direct=direct,
        patience=patience,
        owns_patience=owned,
    )


def _ioctl_number(fd: int, request: int, layout: str) -> int:
    answer = fcntl.ioctl(fd, request, bytes(struct.calcsize(layout)))
    return int(struct.unpack(layout, answer)[0])


def _explain_open(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{error.strerror}; the udev rule 60-vcbproxy.rules gives LUNs to the group vcbproxy: is this user in it?"
        )
    return error.strerror or str(error)
