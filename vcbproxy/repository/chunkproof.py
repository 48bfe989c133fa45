"""The proof, before a restore point is committed, that every chunk of its disks is stored, and as long as is claimed.

finish of a disk   look its chunks up ─┬─ stored ─────────────────────────▶ good
├─ on its way in another's pack ───▶ looked up again at the commit
└─ neither, or of another length ──▶ nothing is committed
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteSession
from vcbproxy.repository.vouched import TakenOver


class ChunkProof:
    """For one restore point; its disks may be proved at once."""

    def __init__(self, repository: Repository, session: WriteSession) -> None:
        self._repository = repository
        self._session = session
        self._mutex = threading.Lock()
        self._awaited: list[tuple[Ids, NDArray[np.uint32], str]] = []

    def hold(self, ids: Ids, lengths: NDArray[np.uint32], what: str, taken_over: TakenOver | None = None) -> None:
        """See that every chunk is stored and has the length that is claimed.

        A chunk that another disk, or a file, met first may still be on its way; it is looked up again at ``commit``.

        Raises:
            IntegrityError: one is not stored, and not on its way; or has another length.
        """
        index = self._repository.index
        if taken_over is not None:
            asked = taken_over.unvouched(index, ids, lengths)
            ids, lengths = ids[asked], lengths[asked]
        known, stored = index.find(ids, BlobKind.DATA)
        missing = np.flatnonzero(~known)
        if len(missing) and self._session.all_claimed(ids[missing], BlobKind.DATA):
            with self._mutex:
                self._awaited.append((ids[missing], lengths[missing], what))
            known[missing], stored[missing] = True, lengths[missing]
        _hold(known, stored, ids, lengths, what)

    def hold_awaited(self) -> None:
        """See that those are stored, too, that were on their way; once the session is flushed.

        Raises:
            IntegrityError: one is not stored, or has another length.
        """
        for ids, lengths, what in self._awaited:
            _hold(*self._repository.index.find(ids, BlobKind.DATA), ids, lengths, what)


def _hold(
    known: NDArray[np.bool_], stored: NDArray[np.uint32], ids: Ids, lengths: NDArray[np.uint32], what: str
) -> None:
    wrong = np.flatnonzero(~known | (stored != lengths))
    if len(wrong):
        first = int(wrong[0])
        chunk = ids[first].tobytes().hex()
        reason = "has another length in the index" if known[first] else "was never stored"
        raise IntegrityError(f"{what}: chunk {chunk} {reason}; nothing was committed")
