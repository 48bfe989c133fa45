"""A disk in a repository as something to make an image of: read in order, its chunks loaded some way ahead.

chunks    ┼──┼────┼─▒▒▒▒▒▒▒▒─┼───┼──┼────┼     ▒ zeroes, by their id: not loaded
loaded         └ worker 0 ┘   └ worker n ┘     digested by whoever loads them
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from vcbproxy.device import check_range
from vcbproxy.extent import Extent, Kind, merged
from vcbproxy.pipeline.content import Lengths
from vcbproxy.pipeline.restore import BlobLoader, Chunks, load_chunk
from vcbproxy.repository.idlist import Ids

_AHEAD = 2  # chunks for each worker


@contextmanager
def stored_disk(loader: BlobLoader, name: str, ids: Ids, lengths: Lengths, *, workers: int) -> Iterator[StoredDisk]:
    """A disk, for the length of a ``with``."""
    with ThreadPoolExecutor(workers, "chunks") as pool:
        disk = StoredDisk(loader, name, Chunks(ids, lengths), pool, workers * _AHEAD)
        try:
            yield disk
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class StoredDisk:
    """A MappedDevice; for one thread that reads forward. Going back is possible, and slow."""

    def __init__(self, loader: BlobLoader, name: str, chunks: Chunks, pool: ThreadPoolExecutor, ahead: int) -> None:
        self._loader = loader
        self._name = name
        self._chunks = chunks
        self._pool = pool
        self._ahead = ahead
        self._data = np.flatnonzero(~chunks.zero)
        self._waiting: dict[int, Future[memoryview]] = {}

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._name

    @property
    def size_bytes(self) -> int:
        """The sum of its chunks' lengths."""
        return self._chunks.size_bytes

    def extents(self) -> Iterator[Extent]:
        """ZERO where a chunk is zeroes, by its id."""
        offsets, lengths, zero = self._chunks.offsets, self._chunks.lengths, self._chunks.zero
        return merged(
            Extent(int(offsets[row]), int(lengths[row]), Kind.ZERO if zero[row] else Kind.DATA)
            for row in range(len(lengths))
            if lengths[row]
        )

    def read_into(self, offset: int, buf: memoryview) -> None:
        """Fill all of ``buf``.

        Raises:
            IntegrityError: a chunk is damaged or missing.
            DeviceError: outside the disk.
        """
        check_range(self, offset, len(buf))
        row = int(np.searchsorted(self._chunks.offsets, offset, side="right")) - 1
        done = 0
        while done < len(buf):
            start = offset + done - int(self._chunks.offsets[row])
            count = min(int(self._chunks.lengths[row]) - start, len(buf) - done)
            if self._chunks.zero[row]:
                buf[done : done + count] = bytes(count)
            else:
                buf[done : done + count] = self._loaded(row)[start : start + count]
            done += count
            row += 1

    def _loaded(self, row: int) -> memoryview:
        """A chunk; those behind it are asked for as well, those before it let go."""
        for gone in [known for known in self._waiting if known < row]:
            self._waiting.pop(gone).cancel()
        first = int(np.searchsorted(self._data, row))
        for wanted in self._data[first : first + self._ahead].tolist():
            if wanted not in self._waiting:
                self._waiting[wanted] = self._pool.submit(load_chunk, self._loader, self._chunks, wanted)
        return self._waiting[row].result()
