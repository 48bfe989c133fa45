"""A target in memory: for tests, and to see what a disk would come to without storing it."""

from __future__ import annotations

import threading

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.packer import PackerStats


class MemorySink:
    """Keeps every blob once, uncompressed. A DiskSink and a BlobLoader in one."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[BlobKind, bytes], bytes] = {}
        self.packers: list[MemoryPacker] = []
        self._lock = threading.Lock()

    def packer(self) -> MemoryPacker:
        """A packer for one more worker."""
        packer = MemoryPacker(self)
        self.packers.append(packer)
        return packer

    def keep(self, kind: BlobKind, blob_id: bytes, plain: bytes) -> bool:
        """Keep a blob; say whether it is new."""
        with self._lock:
            return self.blobs.setdefault((kind, blob_id), plain) is plain

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> bytes:
        """The blob, digested once more.

        Raises:
            IntegrityError: it is not here, or is not what its id says.
        """
        plain = self.blobs.get((kind, blob_id))
        if plain is None:
            raise IntegrityError(f"no {kind.value} blob {blob_id.hex()}")
        if digest(plain) != blob_id:
            raise IntegrityError(f"{kind.value} blob {blob_id.hex()} is damaged")
        return plain


class MemoryPacker:
    """Keeps blobs at once; there is nothing to finish, but it remembers whether it was told."""

    def __init__(self, sink: MemorySink) -> None:
        self._sink = sink
        self.stats = PackerStats()
        self.finished = False

    def add(self, kind: BlobKind, plain: memoryview, blob_id: bytes | None = None) -> bytes:
        """Keep a blob; an id that is given is believed."""
        assert not self.finished, "a blob after the last"
        blob_id = blob_id or digest(plain)
        new = self._sink.keep(kind, blob_id, bytes(plain))
        self.stats += PackerStats(1, 0, len(plain), len(plain)) if new else PackerStats(blobs_known=1)
        return blob_id

    def finish(self) -> None:
        """No more blobs come."""
        self.finished = True
