"""A run in a file, looked up: rows of the index that never enter memory but a few blocks at a time.

Which block may hold an id is told by the first key of each; many ids are asked for at once, sorted, so that each block
is read once. A file that turns out to be damaged gives no answer: it is made anew, where that can be, and asked again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.repository import indexrows
from vcbproxy.repository.ids import ID_BYTES, BlobKind
from vcbproxy.repository.indexrows import PLACE, ROW, ROW_BYTES, TREE, Rows
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.runfile import Body, Damaged, Tail, read_body, stretches

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Places = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32]]

_GROUP_BLOCKS = 256
_SCAN_BLOCKS = 32


def opened(path: Path, secret: bytes) -> tuple[SealedRun, Tail]:
    """Open a run and read what it knows of its packs.

    Raises:
        Damaged: it is not what we wrote.
        OSError: it cannot be read.
    """
    body, tail = read_body(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), secret)
    return SealedRun(body, path), tail


class SealedRun:
    """An open run; safe to share between threads. Its file lives as long as it does, named or not."""

    def __init__(self, body: Body, path: Path | None = None) -> None:
        self.path = path
        self._body = body
        self._mending = threading.Lock()
        self._renew: Callable[[], Body] | None = None

    def __len__(self) -> int:
        return self._body.rows

    @property
    def body(self) -> Body:
        """The file that it reads from now."""
        return self._body

    def mended_by(self, renew: Callable[[], Body]) -> None:
        """Should the file turn out to be damaged, go on with the one that this makes, whose rows must be the same."""
        self._renew = renew

    def mend(self, error: Exception) -> None:
        """Go on with another file.

        Raises:
            TargetError: there is no other.
            IntegrityError: the index files from which it should be made are damaged.
        """
        self._mend(self._body, error)

    def places(self, blob_id: bytes, tree: bool) -> list[tuple[int, Blob]]:
        """Where this blob stands: pack numbers and places.

        Raises:
            TargetError: its block is not as it was written, and cannot be made anew.
        """
        return self._reading(lambda body: self._places(body, blob_id, tree))

    def find(
        self, keys: NDArray[np.uint64], wanted: NDArray[np.uint64], tree: bool, alive: NDArray[np.bool_]
    ) -> Places:
        """Look many ids up.

        Args:
            keys: their first eight bytes, sorted.
            wanted: the ids as words (n, 4).
            tree: of which kind all are.
            alive: by pack number, which packs count.

        Returns:
            Which of them were found, in which pack each lies, and how long it is.

        Raises:
            TargetError: a block is not as it was written, and cannot be made anew.
        """
        return self._reading(lambda body: self._find(body, keys, wanted, tree, alive))

    def scan(self) -> Iterator[Rows]:
        """All rows in order, some thousands at a time.

        Raises:
            Damaged: a block is not as it was written.
            OSError: one cannot be read.
        """
        body = self._body
        for start in range(0, len(body.fence), _SCAN_BLOCKS):
            yield body.read(np.arange(start, min(start + _SCAN_BLOCKS, len(body.fence))))

    def _reading(self, read: Callable[[Body], Result]) -> Result:
        body = self._body
        try:
            return read(body)
        except (Damaged, OSError) as error:
            renewed = self._mend(body, error)
        try:
            return read(renewed)
        except (Damaged, OSError) as error:
            raise TargetError(f"the local copy of the index is damaged again and again: {error}") from error

    def _mend(self, body: Body, error: Exception) -> Body:
        with self._mending:
            if self._body is body:  # else another thread has done it
                if self._renew is None:
                    raise TargetError(f"what was set aside of the index cannot be read back: {error}") from error
                log.warning("the index cache is damaged (%s: %s); it is made anew", self.path, error)
                self._body = self._renew()
            return self._body

    def _places(self, body: Body, blob_id: bytes, tree: bool) -> list[tuple[int, Blob]]:
        wanted = np.uint64(int.from_bytes(blob_id[:8], "big"))
        block = max(int(np.searchsorted(body.fence, wanted)) - 1, 0)
        found = []
        while block < len(body.fence) and body.fence[block] <= wanted:
            raw = body.block(block)
            at = raw.find(blob_id)
            while at >= 0:
                if at % ROW_BYTES == 0 and at < body.used_bytes(block):
                    number, offset, stored, zstd = PLACE.unpack_from(raw, at + ID_BYTES)
                    if (number >= TREE) == tree:
                        kind = BlobKind.TREE if tree else BlobKind.DATA
                        found.append((number & (TREE - 1), Blob(kind, blob_id, offset, stored, zstd)))
                at = raw.find(blob_id, at + 1)
            block += 1
        return found

    def _find(
        self, body: Body, keys: NDArray[np.uint64], wanted: NDArray[np.uint64], tree: bool, alive: NDArray[np.bool_]
    ) -> Places:
        if not len(keys) or not body.rows:
            return np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        first, last = _blocks_of(body.fence, keys)
        group = np.cumsum(np.concatenate([[0], first[1:] != first[:-1]])) // _GROUP_BLOCKS
        found: list[Places] = []
        for start, end in stretches(group):
            touched = np.zeros(int(last[end - 1] - first[start]) + 1, np.bool_)
            for edge in (first, last):
                touched[edge[start:end] - first[start]] = True
            if (last[start:end] - first[start:end] > 1).any():
                touched[:] = True
            blocks = first[start] + np.flatnonzero(touched)
            rows = body.read(blocks)
            hit, packs, lengths = _match(rows, keys[start:end], wanted[start:end], tree, alive)
            found.append((hit + start, packs, lengths))
        hits, packs, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
        return hits, packs, lengths


def _blocks_of(fence: NDArray[np.uint64], keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last block in which each key may stand.

    Keys are many to a block and both are sorted: looking the blocks up among the keys is five times as quick as the
    other way round.
    """
    start, end = np.searchsorted(fence, keys[[0, -1]], "left"), np.searchsorted(fence, keys[[0, -1]], "right")
    inside = fence[start[0] : end[1]]
    blocks = np.arange(start[0] - 1, end[1])
    columns = []
    for side in ("right", "left"):
        bounds = np.searchsorted(keys, inside, side)
        counts = np.diff(bounds, prepend=0, append=len(keys))
        columns.append(np.maximum(np.repeat(blocks, counts), 0))
    return columns[0], columns[1]


def _match(
    rows: Rows, keys: NDArray[np.uint64], wanted: NDArray[np.uint64], tree: bool, alive: NDArray[np.bool_]
) -> Places:
    """Which of the keys are there, in which packs, how long; each once, however often it is there."""
    there = indexrows.keys(rows)
    words = rows.view(np.uint64).reshape(-1, ROW_BYTES // 8)
    at = np.searchsorted(there, keys).astype(np.int64)
    asked = np.flatnonzero(at < len(there))
    found = np.zeros(len(keys), np.bool_)
    packs, lengths = np.zeros(len(keys), np.uint32), np.zeros(len(keys), np.uint32)
    while len(asked):  # one round for almost all: see ``Run.find``
        asked = asked[there[at[asked]] == keys[asked]]
        here = np.take(words, at[asked], axis=0)
        match = indexrows.alike(here[:, : ID_BYTES // 8], np.take(wanted, asked, axis=0))
        here = here.view(ROW).ravel()
        match &= indexrows.trees(here) == tree
        match &= alive[indexrows.pack_numbers(here)]
        hit = asked[match]
        found[hit], packs[hit] = True, indexrows.pack_numbers(here)[match]
        lengths[hit] = indexrows.plain_lengths(here)[match]
        asked = asked[~match]
        at[asked] += 1
        asked = asked[at[asked] < len(there)]
    hit = np.flatnonzero(found)
    return hit, packs[hit], lengths[hit]
