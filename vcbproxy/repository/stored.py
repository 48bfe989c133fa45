"""A file of a tree as a device: read at any position, each chunk checked as it is loaded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcbproxy.device import check_range
from vcbproxy.errors import IntegrityError
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind, Buffer
from vcbproxy.units import MiB

_CACHE_BYTES = 32 * MiB


class BlobLoader(Protocol):
    """Where chunks come from."""

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> Buffer:
        """A whole blob, checked.

        Raises:
            IntegrityError: it is damaged or missing.
        """


class StoredFile:
    """The bytes of a content list; any number of threads, one small cache of chunks."""

    def __init__(self, loader: BlobLoader, name: str, ids: Ids, lengths: NDArray[np.uint32]) -> None:
        assert len(ids) == len(lengths)
        self._loader = loader
        self._name = name
        self._ids = ids
        self._ends = np.cumsum(lengths, dtype=np.uint64)
        self._size_bytes = int(self._ends[-1]) if len(self._ends) else 0
        self._cache: OrderedDict[bytes, Buffer] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The sum of its chunks' lengths."""
        return self._size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf``.

        Raises:
            IntegrityError: a chunk is damaged or missing.
            DeviceError: outside the file.
        """
        check_range(self, offset, len(buf))
        row = int(np.searchsorted(self._ends, np.uint64(offset), side="right"))
        done = 0
        while done < len(buf):
            chunk = memoryview(self._chunk(row))
            start = offset + done - (int(self._ends[row]) - len(chunk))
            piece = chunk[start : start + len(buf) - done]
            buf[done : done + len(piece)] = piece
            done += len(piece)
            row += 1

    def _chunk(self, row: int) -> Buffer:
        blob_id = self._ids[row].tobytes()
        with self._lock:
            cached = self._cache.get(blob_id)
            if cached is not None:
                self._cache.move_to_end(blob_id)
                return cached
        chunk = self._loader.load_blob(BlobKind.DATA, blob_id)
        expected = int(self._ends[row]) - (int(self._ends[row - 1]) if row else 0)
        if len(chunk) != expected:
            raise IntegrityError(f"{self._name}: chunk {blob_id.hex()} has {len(chunk)} bytes, not {expected}")
        with self._lock:
            if blob_id not in self._cache:
                self._cache[blob_id] = chunk
                self._cached_bytes += len(chunk)
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= len(dropped)
        return chunk
