"""The image files as one run of bytes: the logical volume that LVM makes of its devices.

Comes in: volume offsets. Goes out: positioned writes and reads on the right file. Writes are never buffered here; what
the caller wrote first, another process sees first.
"""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcbproxy.errors import DeviceError
from vcbproxy.units import MiB

_PUNCH_HOLE_KEEP_SIZE = 3
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes of the volume from ``logical`` lie on ``device`` from ``physical``."""

    logical: int
    length: int
    device: int
    physical: int


class Images:
    """The volume's bytes. Thread-safe: nothing here has state but the descriptors."""

    def __init__(self, paths: Sequence[Path], segments: Sequence[Segment]) -> None:
        self._segments = sorted(segments, key=lambda segment: segment.logical)
        self._starts = [segment.logical for segment in self._segments]
        self._paths = list(paths)
        self._fds = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths]
        self.size_bytes = sum(segment.length for segment in segments)
        self.observer: Callable[[int, int], None] | None = None
        """Called with (volume offset, length) before each write: a test looks at the disk in between."""

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(device, device offset, length) of a range of the volume, in order."""
        if offset < 0 or offset + length > self.size_bytes:
            reason = f"the volume ends at {self.size_bytes}"
            raise DeviceError(device=str(self._paths[0]), offset=offset, length=length, reason=reason)
        index = bisect_right(self._starts, offset) - 1
        while length > 0:
            segment = self._segments[index]
            skip = offset - segment.logical
            step = min(length, segment.length - skip)
            yield segment.device, segment.physical + skip, step
            offset += step
            length -= step
            index += 1

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at a volume offset."""
        view = memoryview(data).cast("B")
        if self.observer is not None:
            self.observer(offset, len(view))
        done = 0
        for device, position, length in self.pieces(offset, len(view)):
            end = done + length
            while done < end:
                written = os.pwrite(self._fds[device], view[done:end], position)
                done += written
                position += written

    def read(self, offset: int, length: int) -> bytes:
        """Read from a volume offset."""
        parts = []
        for device, position, step in self.pieces(offset, length):
            part = os.pread(self._fds[device], step, position)
            if len(part) != step:
                name = str(self._paths[device])
                raise DeviceError(device=name, offset=position, length=step, reason="the image was cut short")
            parts.append(part)
        return b"".join(parts)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes; sparse where the file system under the image can."""
        for device, position, step in self.pieces(offset, length):
            if _libc.fallocate(self._fds[device], _PUNCH_HOLE_KEEP_SIZE, position, step) == 0:
                continue
            while step:
                length = min(step, 4 * MiB)
                os.pwrite(self._fds[device], bytes(length), position)
                position += length
                step -= length
