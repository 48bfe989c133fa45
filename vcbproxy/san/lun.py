"""One LUN, read by position: a block device or an image file in, whole buffers or a DeviceError out.

Other hosts write the LUN while we read it, so the page cache of this machine is never right about it: block devices are
read with O_DIRECT, metadata and data alike. Direct I/O wants address, offset and length in multiples of the sector; a
request that lies otherwise is split:

    request            ├──────────────────────────────────────┤
    sectors       │────────│────────│────────│────────│────────│
                  ╰ bounce ╯╰──── into the caller's ──╯╰ bounce ╯      address in step with the offset
                  ╰──────────────── bounce ───────────────────╯      address not in step

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
from pathlib import Path
from types import TracebackType
from typing import Self

from vcbproxy import device
from vcbproxy.errors import CannotOpen, DeviceError
from vcbproxy.san.bounce import BouncePool
from vcbproxy.units import align_down, align_up

# linux/fs.h; the same numbers on every architecture that Debian 12 runs 64-bit Python on, but MIPS and PowerPC.
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80081272

IMAGE_SECTOR_BYTES = 512
# A file system may sit on 512- or 4096-byte sectors and does not say which: 4096 suits both.
IMAGE_ALIGNMENT_BYTES = 4096

_POOL = BouncePool()


class Lun:
    """Bytes of a LUN. Any number of threads may read it at once; made by :func:`open_lun`."""

    def __init__(
        self, fd: int, path: str, name: str, *, size_bytes: int, sector_bytes: int, is_block: bool, direct: bool
    ) -> None:
        self._fd = fd
        self._path = path
        self._name = name
        self._size_bytes = size_bytes
        self._sector_bytes = sector_bytes
        self._alignment_bytes = sector_bytes if is_block else IMAGE_ALIGNMENT_BYTES
        self._is_block = is_block
        self._direct = direct
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
        """
        flat = buf.cast("B")
        length = len(flat)
        device.check_range(self, offset, length)
        if length == 0:
            return
        with self._descriptor(offset, length) as fd:
            request = _Request(self, fd, offset, length)
            if not self._direct:
                os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
                request.fill(offset, flat, length)
            else:
                self._read_direct(request, offset, flat)

    def _read_direct(self, request: _Request, offset: int, buf: memoryview) -> None:
        """Split into head, body and tail as drawn above; the body needs no copy."""
        step = self._alignment_bytes
        end = offset + len(buf)
        body_start, body_end = align_up(offset, step), align_down(end, step)
        in_step = device.address_of(buf) % step == offset % step
        if not in_step or body_start >= body_end:
            _bounce(request, offset, buf, step)
            return
        if offset < body_start:
            _bounce(request, offset, buf[: body_start - offset], step)
        request.fill(body_start, buf[body_start - offset : body_end - offset], body_end - body_start)
        if body_end < end:
            _bounce(request, body_end, buf[body_end - offset :], step)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Lun {self._name} at {self._path}>"


class _Request:
    """One call of read_into: the descriptor, and the facts for its errors."""

    __slots__ = ("_fd", "_length", "_lun", "_offset")

    def __init__(self, lun: Lun, fd: int, offset: int, length: int) -> None:
        self._lun = lun
        self._fd = fd
        self._offset = offset
        self._length = length

    def fill(self, position: int, buf: memoryview, wanted: int) -> None:
        """Read at ``position`` until ``wanted`` bytes of ``buf`` are there; more may come, and does no harm.

        A read may come back short without an error (a signal, a bad sector further on, the end): go on from the last
        whole sector, and the next read either brings the rest or says what is wrong.
        """
        step = self._lun._alignment_bytes if self._lun.direct else 1  # noqa: SLF001  # one class in two halves
        done = 0
        while done < wanted:
            try:
                count = os.preadv(self._fd, [buf[done:]], position + done)  # EINTR is retried by Python
            except OSError as error:
                raise self._failed(_explain(error)) from error
            if done + count >= wanted:
                return
            progress = align_down(count, step)
            if progress == 0:
                raise self._failed(f"it ended at {position + done + count}; was it shrunk or unmapped?")
            done += progress

    def _failed(self, reason: str) -> DeviceError:
        return DeviceError(device=self._lun.name, offset=self._offset, length=self._length, reason=reason)


def _bounce(request: _Request, offset: int, buf: memoryview, step: int) -> None:
    """Read whole sectors around each piece into a lent buffer, then copy the piece out."""
    with _POOL.lend() as lent:
        done = 0
        while done < len(buf):
            position = offset + done
            start = align_down(position, step)
            skip = position - start
            piece = min(len(buf) - done, len(lent) - skip)
            request.fill(start, lent[: align_up(skip + piece, step)], skip + piece)
            buf[done : done + piece] = lent[skip : skip + piece]
            done += piece


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return f"{error.strerror}; the LUN is gone from this machine"
    return error.strerror or str(error)


def open_lun(path: str | os.PathLike[str], *, name: str | None = None) -> Lun:
    """Open a block device or an image file for reading, past the page cache.

    Args:
        path: device node (or a link to one), or plain file.
        name: what messages call it; the path, when not given.

    Raises:
        CannotOpen: it is not there, is no block device or file, may not be read, or has no direct I/O (block devices).
    """
    text = os.fspath(path)
    called = name or text
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
        return _measured(fd, text, called, direct=direct)
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


def _measured(fd: int, path: str, name: str, *, direct: bool) -> Lun:
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
    return Lun(fd, path, name, size_bytes=size_bytes, sector_bytes=sector_bytes, is_block=is_block, direct=direct)


def _ioctl_number(fd: int, request: int, layout: str) -> int:
    answer = fcntl.ioctl(fd, request, bytes(struct.calcsize(layout)))
    return int(struct.unpack(layout, answer)[0])


def _explain_open(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{error.strerror}; the udev rule 60-vcbproxy.rules gives LUNs to the group vcbproxy: is this user in it?"
        )
    return error.strerror or str(error)
