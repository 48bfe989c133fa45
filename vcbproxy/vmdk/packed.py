"""Packed grains of a streamOptimized disk: a marker (where on the disk, how long), then one zlib stream."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from vcbproxy.device import Device, read
from vcbproxy.errors import VmdkError
from vcbproxy.units import SECTOR
from vcbproxy.vmdk import c_vmdk
from vcbproxy.vmdk.cache import Cache
from vcbproxy.vmdk.grains import Shape


class PackedGrains:
    """Unpacks whole grains, and keeps the last ones in the disk's cache for readers of smaller steps."""

    def __init__(self, file: Device, shape: Shape, cache: Cache) -> None:
        self._file = file
        self._shape = shape
        self._cache = cache

    @property
    def stride_bytes(self) -> int:
        """Never one read."""
        return 0

    def read_into(self, at: int, grain: int, skip: int, buf: memoryview) -> None:
        """Unpack the grain and copy out of it.

        Kept by its number, not its place: a table that leads to another's grain would else get that one's bytes out of
        the cache, where its own look at the marker would have refused them.
        """
        data = self._cache.get((id(self), grain), np.ndarray, lambda: self._unpack(at, grain))
        np.frombuffer(buf, dtype=np.uint8)[:] = data[skip : skip + len(buf)]

    def _unpack(self, at: int, grain: int) -> npt.NDArray[np.uint8]:
        offset = grain * self._shape.grain_bytes
        wanted = min(self._shape.grain_bytes, self._shape.size_bytes - offset)
        sector, length = struct.unpack(c_vmdk.GRAIN_MARKER, read(self._file, at, c_vmdk.GRAIN_MARKER_BYTES))
        if sector != offset // SECTOR:
            self._refuse(grain, at, f"its marker says sector {sector}")
        if not 0 < length <= 2 * self._shape.grain_bytes:
            self._refuse(grain, at, f"it would be {length} bytes long")
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(
                read(self._file, at + c_vmdk.GRAIN_MARKER_BYTES, length), self._shape.grain_bytes + 1
            )
        except zlib.error as error:
            raise self._damaged(grain, at, "it does not unpack") from error
        if not unpacker.eof or unpacker.unused_data:
            self._refuse(grain, at, "its length is wrong")
        if not wanted <= len(data) <= self._shape.grain_bytes:
            self._refuse(grain, at, f"it unpacks to {len(data)} bytes")
        return np.frombuffer(data, dtype=np.uint8)

    def _refuse(self, grain: int, at: int, reason: str) -> None:
        raise self._damaged(grain, at, reason)

    def _damaged(self, grain: int, at: int, reason: str) -> VmdkError:
        return VmdkError(file=self._file.name, reason=f"packed grain {grain} at {at} is damaged: {reason}")
