"""One disk of a restore point on its way into the repository: packers for its chunks, and then their list."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.chunkproof import ChunkProof
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.manifest import DiskEntry
from vcbproxy.repository.packer import Packer, PackerStats
from vcbproxy.repository.session import WriteSession
from vcbproxy.repository.vouched import TakenOver


class DiskWriter:
    """One disk of a restore point: packers for its chunks, and then their list."""

    def __init__(
        self,
        session: WriteSession,
        proof: ChunkProof,
        entry: DiskEntry,
        take: Callable[[DiskEntry, Ids, NDArray[np.uint32]], None],
        drop: Callable[[], None],
    ) -> None:
        """Begin it.

        Args:
            session: stores its chunks.
            proof: sees that they are stored.
            entry: what is known of the disk.
            take: puts the disk, with its list, into the restore point.
            drop: leaves it out.
        """
        self._session = session
        self._proof = proof
        self._entry = entry
        self._take = take
        self._drop = drop
        self._packers: list[Packer] = []
        self._finished = False
        self._lock = threading.Lock()

    def packer(self) -> Packer:
        """A packer for one more worker."""
        made = self._session.packer()
        with self._lock:
            self._packers.append(made)
        return made

    @property
    def stats(self) -> PackerStats:
        """What its packers stored, once they have finished."""
        with self._lock:
            return sum((made.stats for made in self._packers), PackerStats())

    def finish(self, ids: Ids, lengths: NDArray[np.uint32], taken_over: TakenOver | None = None) -> None:
        """Take the disk's chunk list, once no worker uses its packers any more. Durable, with its list, at ``commit``.

        Args:
            ids: uint8 (n, 32), the chunks in order.
            lengths: uint32 (n), their plaintext lengths; they add up to the disk's size.
            taken_over: which of them come from a list that was looked up while this point is written.

        Raises:
            TargetError: a pack could not be stored.
            IntegrityError: a chunk is not stored, or has another length.
        """
        entry = self._entry
        assert ids.shape == (len(lengths), 32), f"{len(lengths)} lengths for ids of shape {ids.shape}"
        total = int(lengths.sum(dtype=np.uint64))
        if total != entry.size_bytes:
            raise IntegrityError(f"disk {entry.key}: its chunks come to {total} bytes, the disk has {entry.size_bytes}")
        assert not self._finished, f"disk {entry.key} is finished twice"
        self._finished = True
        for made in self._packers:
            made.finish()
        self._session.flush()
        self._session.trim()  # the list of a huge disk needs the room
        self._proof.hold(ids, lengths, f"disk {entry.key}", taken_over)
        self._take(entry, ids, lengths)

    def abandon(self) -> None:
        """Leave the disk out: it could not be read. Its chunks wait for a next try, or for prune.

        They are stored all the same: another disk of this VM may have met them, and passed them over as on their way.

        Raises:
            TargetError: a pack could not be stored.
        """
        for made in self._packers:
            made.finish()
        self._drop()
