"""Extents without a map of their own: flat files, and ranges that read as zeroes."""

from __future__ import annotations

from collections.abc import Iterator

from vcbproxy.device import MappedDevice
from vcbproxy.errors import VmdkError
from vcbproxy.extent import Kind
from vcbproxy.units import SECTOR
from vcbproxy.vmdk.layer import Gap, State, Tile, zero


class FlatLayer:
    """A range of a plain file. Its zeroes are those that the file itself knows of: holes and to-be-zeroed blocks."""

    def __init__(self, file: MappedDevice, start: int, size_bytes: int) -> None:
        """Lay the extent over ``size_bytes`` of the file from ``start``.

        Raises:
            VmdkError: the file is shorter than the descriptor says.
        """
        if start + size_bytes > file.size_bytes:
            reason = (
                f"the descriptor wants {size_bytes} bytes from offset {start}, the file has only {file.size_bytes}"
                f" ({(start + size_bytes - file.size_bytes) // SECTOR} sectors are missing)"
            )
            raise VmdkError(file=file.name, reason=reason)
        self._file = file
        self._start = start
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """What the descriptor says."""
        return self._size_bytes

    def tiles(self) -> Iterator[Tile]:
        """The file's own extents, cut to the range."""
        end = self._start + self._size_bytes
        for extent in self._file.extents():
            start, stop = max(extent.start, self._start), min(extent.end, end)
            if start < stop:
                state = State.ZERO if extent.kind is Kind.ZERO else State.HERE
                yield Tile(start - self._start, stop - start, state)
            if extent.end >= end:
                return

    def fill(self, offset: int, buf: memoryview) -> list[Gap]:
        """Read it all: a flat extent leaves nothing to its parent."""
        self._file.read_into(self._start + offset, buf)
        return []

    def recheck(self) -> None:
        """It has no map of its own; the file's is the file's business."""


class ZeroLayer:
    """An extent line of type ZERO: no file, only zeroes."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """What the descriptor says."""
        return self._size_bytes

    def tiles(self) -> Iterator[Tile]:
        """One tile of zeroes."""
        yield Tile(0, self._size_bytes, State.ZERO)

    def fill(self, offset: int, buf: memoryview) -> list[Gap]:
        """Zeroes, wherever."""
        zero(buf)
        return []

    def recheck(self) -> None:
        """Zeroes they stay."""
