"""A write session: everything that several packers share on the way from memory to a durable, indexed pack.

    packer ┐                    bounded in bytes
    packer ┼─▶ submit ─▶ queue ─▶ writer threads ─▶ backend.save ─▶ index in memory ─▶ index file
    packer ┘                                         (durable)        (findable)         (by others too)

A blob is *claimed* by the first packer that meets it; the others go on at once. A claim ends when its pack is in the
index. Claims are the session's own: another session may store the same blob a second time, but never relies on a pack
that this one might not finish.

The first error wins: it stops the writers, and every later call of any thread raises it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.config import Compression
from vcbproxy.errors import TargetError
from vcbproxy.repository import pages
from vcbproxy.repository.backend.base import FileKind, FileName, Heat
from vcbproxy.repository.files import Files
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.immutability import Immutability
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.indexing import Indexing
from vcbproxy.repository.packer import ClosedPack, Packer, PackerStats
from vcbproxy.thread import Thread, join_all
from vcbproxy.units import MiB

_ROOM_BYTES = 256 * 1024  # for a usual pack's header, so that a full pack's size stays near its target
_WRITER_BYTES = 20 * MiB  # the pack that one writer stores, and some of the next
_PACK_BYTES_MIN = 4 * MiB  # restic's own least


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a session writes.

    Attributes:
        compression: how hard to try.
        pack_bytes: a pack is closed once its blobs take this much.
        writers: threads that store packs; None: as many as the backend's connections.
        queue_bytes: packs that wait or are being stored take at most this much memory (one always may); None: enough to
            keep the writers busy.
        open_bytes: packs that are being filled take at most this much; many packers fill smaller ones.
    """

    compression: Compression = Compression.AUTO
    pack_bytes: int = 16 * MiB
    writers: int | None = None
    queue_bytes: int | None = None
    open_bytes: int = 64 * MiB


class WriteSession:
    """Packers' common ground; a context manager that ends its threads on every exit."""

    def __init__(
        self,
        files: Files,
        indexing: Indexing,
        immutability: Immutability | None,
        guard: Callable[[], None],
        options: WriteOptions,
    ) -> None:
        """Start the writers.

        Args:
            files: where to.
            indexing: told of each durable pack.
            immutability: likewise, where files are locked against removal.
            guard: raises when nothing may be written any more (the lock was lost).
            options: sizes and numbers.
        """
        self.key = files.key
        self.options = options
        self.stats = PackerStats()
        self._backend = files.backend
        self._indexing = indexing
        self._immutability = immutability
        self._guard = guard
        writers = options.writers or files.backend.traits.connections
        self._queue_bytes = options.queue_bytes or writers * _WRITER_BYTES
        self._changed = threading.Condition()
        self._claims: set[tuple[bytes, BlobKind]] = set()
        self._queue: deque[ClosedPack] = deque()
        self._busy_bytes = 0
        self._spare: list[memoryview] = []
        self._error: BaseException | None = None
        self._ended = False
        self._packers = 0
        self._threads = [Thread(self._write_packs, f"pack-writer-{number}", daemon=True) for number in range(writers)]
        for thread in self._threads:
            thread.start()

    def packer(self) -> Packer:
        """A packer for one thread."""
        with self._changed:
            self._raise_first_error()
            self._packers += 1
        return Packer(self)

    def claim(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the caller must store this blob: nobody has, and nobody else is about to."""
        claim = (blob_id, kind)
        with self._changed:
            self._raise_first_error()
            if claim in self._claims:
                return False
            self._claims.add(claim)
        if not self._indexing.index.has(kind, blob_id):
            return True
        with self._changed:
            self._claims.discard(claim)
        return False

    def all_claimed(self, ids: NDArray[np.uint8], kind: BlobKind) -> bool:
        """Whether packers of ours are about to store all of these, or have just done so."""
        with self._changed:
            waiting = [blob_id for row in ids if ((blob_id := row.tobytes()), kind) not in self._claims]
        return all(self._indexing.index.has(kind, blob_id) for blob_id in waiting)

    def room(self, sealed_bytes: int) -> tuple[memoryview, int]:
        """Memory for a pack whose first blob has this size, and how many bytes of blobs make it full."""
        with self._changed:
            full = self._full_bytes()
            usual = full + _ROOM_BYTES
            wanted = max(usual, sealed_bytes + 1024)
            while self._spare:
                spare = self._spare.pop()
                if len(spare) == wanted:
                    return spare, full
        return pages.buffer(wanted), full

    def trim(self) -> None:
        """Let go of memory that is only kept to be used again."""
        with self._changed:
            self._spare.clear()

    def submit(self, closed: ClosedPack) -> None:
        """Queue a pack; waits while too much is queued.

        Raises:
            TargetError: a pack could not be stored.
        """
        with self._changed:
            while self._error is None and self._busy_bytes and self._busy_bytes + closed.size_bytes > self._queue_bytes:
                self._changed.wait()
            self._raise_first_error()
            self._busy_bytes += closed.size_bytes
            self._queue.append(closed)
            self._changed.notify_all()

    def finished(self, finished: Packer) -> None:
        """A packer has handed in its last pack."""
        with self._changed:
            self.stats += finished.stats
            self._packers -= 1

    def flush(self) -> None:
        """Wait until every pack handed in is durable, and every index entry too.

        Raises:
            TargetError: something could not be stored.
        """
        with self._changed:
            while self._error is None and self._busy_bytes:
                self._changed.wait()
            self._raise_first_error()
        self._guard()
        self._indexing.write()

    def fail(self, error: BaseException) -> None:
        """Stop: every later call of any thread raises this error, unless an earlier one is held already."""
        with self._changed:
            self._error = self._error or error
            self._queue.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads; what was not flushed is dropped."""
        with self._changed:
            self._ended = True
            self._queue.clear()
            self._changed.notify_all()
        join_all(self._threads)
        self._spare.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.fail(error)
        self.close()

    def _write_packs(self) -> None:
        try:
            while (closed := self._next()) is not None:
                self._write(closed)
        except BaseException as error:  # noqa: BLE001  # handed to whoever calls next
            self.fail(error)

    def _next(self) -> ClosedPack | None:
        with self._changed:
            while not self._queue and not self._ended and self._error is None:
                self._changed.wait()
            return self._queue.popleft() if self._queue and self._error is None else None

    def _write(self, closed: ClosedPack) -> None:
        self._guard()
        heat = Heat.COLD if closed.blobs[0].kind is BlobKind.DATA else Heat.HOT
        name = FileName(FileKind.PACK, closed.pack_id.hex(), heat)
        self._backend.save(name, [closed.buffer[: closed.size_bytes]])
        if self._immutability is not None:
            self._immutability.stored(closed.pack_id)
        self._indexing.publish(PackBlobs(closed.pack_id, closed.blobs))
        with self._changed:
            self._claims.difference_update((blob.blob_id, blob.kind) for blob in closed.blobs)
            self._busy_bytes -= closed.size_bytes
            kept = self._busy_bytes + sum(map(len, self._spare)) + len(closed.buffer)
            if kept <= self._queue_bytes and len(closed.buffer) == self._full_bytes() + _ROOM_BYTES:
                self._spare.append(closed.buffer)
            self._changed.notify_all()

    def _full_bytes(self) -> int:
        """When a pack is full: the more of them are filled at a time, the smaller, so that all fit the memory."""
        share = self.options.open_bytes // max(self._packers, 1)
        return min(self.options.pack_bytes, max(share, _PACK_BYTES_MIN))

    def _raise_first_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended:
            raise TargetError("the write session has ended")
