"""Devices: things of a fixed size that are read by position.

``read_into`` fills the whole buffer or raises: there is no short read, no cursor, no end-of-file. That one rule,
decided here, is why no layer above needs to ask how much it got.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from vcbproxy.errors import DeviceError
from vcbproxy.extent import Extent, Kind


@runtime_checkable
class Device(Protocol):
    """Bytes of a fixed size, readable at any position, by several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def size_bytes(self) -> int:
        """Its size; does not change while it is open."""

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf`` from ``offset``.

        Raises:
            SourceError: any byte of it could not be had; the content of ``buf`` is then undefined.
        """


@runtime_checkable
class MappedDevice(Device, Protocol):
    """A device that knows which of its ranges need not be read."""

    def extents(self) -> Iterator[Extent]:
        """Tile [0, size) in order, neighbours of one kind merged; DATA and ZERO only."""


def read(device: Device, offset: int, length: int) -> bytes:
    """Read ``length`` bytes at ``offset``, or raise."""
    buf = bytearray(length)
    device.read_into(offset, memoryview(buf))
    return bytes(buf)


def check_range(device: Device, offset: int, length: int) -> None:
    """Refuse a range that is not wholly inside the device.

    Raises:
        DeviceError: it is not.
    """
    if offset < 0 or length < 0 or offset + length > device.size_bytes:
        reason = f"it ends at {device.size_bytes}"
        raise DeviceError(device=device.name, offset=offset, length=length, reason=reason)


def aligned_buffer(size_bytes: int) -> memoryview:
    """A page-aligned, zeroed, writable buffer that O_DIRECT accepts.

    An anonymous *shared* mapping: a private one that meets a fork() while direct I/O is in flight may leave the read in
    the child's copy of the page, and the parent with stale bytes.
    """
    return memoryview(mmap.mmap(-1, size_bytes, mmap.MAP_SHARED))


def address_of(buf: memoryview) -> int:
    """Where a writable buffer lies in memory, to see whether direct I/O can fill it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buf))


class MemoryDevice:
    """A device in memory; extents are found by looking, in ``granule_bytes`` steps."""

    def __init__(self, data: bytes | bytearray, name: str = "memory", granule_bytes: int = 4096) -> None:
        self._data = memoryview(data)
        self._name = name
        self._granule_bytes = granule_bytes

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The length of the data."""
        return len(self._data)

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Copy out of memory."""
        check_range(self, offset, len(buf))
        buf[:] = self._data[offset : offset + len(buf)]

    def extents(self) -> Iterator[Extent]:
        """DATA where a granule has a non-zero byte, ZERO elsewhere."""
        from vcbproxy.extent import merged

        step = self._granule_bytes
        granules = (
            Extent(
                start,
                min(step, self.size_bytes - start),
                Kind.DATA if any(self._data[start : start + step]) else Kind.ZERO,
            )
            for start in range(0, self.size_bytes, step)
        )
        return merged(granules)


class FileDevice:
    """A plain file opened read-only, through the page cache: exported images and test files, never a shared LUN."""

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Open it.

        Raises:
            DeviceError: it cannot be opened.
        """
        self._name = name or os.fspath(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(device=self._name, offset=0, length=0, reason=error.strerror) from error
        self._size_bytes = os.lseek(self._fd, 0, os.SEEK_END)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The file's size when it was opened."""
        return self._size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Read it all, or raise DeviceError."""
        check_range(self, offset, len(buf))
        done = 0
        while done < len(buf):
            try:
                count = os.preadv(self._fd, [buf[done:]], offset + done)
            except OSError as error:
                raise DeviceError(device=self._name, offset=offset, length=len(buf), reason=error.strerror) from error
            if count == 0:
                reason = f"the file ended at {offset + done}"
                raise DeviceError(device=self._name, offset=offset, length=len(buf), reason=reason)
            done += count

    def extents(self) -> Iterator[Extent]:
        """All DATA: a host's idea of a hole is not a promise about a file that another host writes."""
        if self._size_bytes:
            yield Extent(0, self._size_bytes, Kind.DATA)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Slice:
    """A range of another device, as a device: a partition."""

    def __init__(self, device: Device, start: int, size_bytes: int, name: str | None = None) -> None:
        check_range(device, start, size_bytes)
        self._device = device
        self._start = start
        self._size_bytes = size_bytes
        self._name = name or device.name

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The length of the range."""
        return self._size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Read from the device below."""
        check_range(self, offset, len(buf))
        self._device.read_into(self._start + offset, buf)
