"""A run in a file: rows of the index sorted by id, which never enter memory but a few blocks at a time.

    head    4096   magic, run id, how many of each, the tail's mac; mac
    blocks  8192   170 rows, zeroes to the end of the last block; mac
    tail           first key of each block │ index files │ packs │ which file lists which pack

What a file says is: "these index files list these packs with these blobs". Index files are named by their content, so
that stays true for ever; the file is never changed, only dropped.

**Nothing of it is believed before its mac was checked**, each block each time it is read from the file. The macs are
keyed with a secret made from the repository's key, and bound to the run and to the block's place: a file that is
damaged, cut, put together from others, or not made by someone who holds the key gives no answer instead of a wrong
one. A wrong "is stored" would be a restore point that does not restore. It costs 6 µs a block.

Rows are read with pread(2), not mapped: pages of the page cache are not ours, mapped ones count as resident.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.repository import indexrows
from vcbproxy.repository.ids import ID_BYTES, BlobKind
from vcbproxy.repository.indexrows import PLACE, ROW, ROW_BYTES, TREE, Rows
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.packtable import DIGEST_BYTES, Packs

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Places = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint32]]

MAGIC = b"VCBRUN01"
HEAD_BYTES = 4096
BLOCK_BYTES = 8192
BLOCK_ROWS = 170
SECRET_BYTES = 32
MAC_BYTES = 32
USED_BYTES = BLOCK_ROWS * ROW_BYTES
TAIL_PLACE = 1 << 64
HEAD_PLACE = TAIL_PLACE + 1
HEAD = struct.Struct("<8s16sQIIQ32s")
_HEAD_WITH_MAC_BYTES = HEAD.size + MAC_BYTES
_GROUP_BLOCKS = 256
_SCAN_BLOCKS = 32

assert USED_BYTES + MAC_BYTES == BLOCK_BYTES


class Damaged(Exception):
    """A run is not as it was written, or not written by us; whoever catches this drops it."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What a run knows of where its rows come from."""

    sources: NDArray[np.uint8]
    """The index files' ids, (n, 32)."""
    packs: Packs
    """The packs in which its rows lie."""
    pairs: NDArray[np.uint32]
    """(n, 2): a row of ``sources``, and a row of ``packs`` that it lists."""


@dataclass(frozen=True, eq=False)
class Body:
    """An open file of rows; the file is closed when nobody reads from it any more."""

    fd: int
    run_id: bytes
    rows: int
    fence: NDArray[np.uint64]

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.fd)


def mac(secret: bytes, run_id: bytes, place: int, *parts: bytes | bytearray | memoryview) -> bytes:
    """The mac of one part of a run, given in pieces; ``place`` is the block's number."""
    made = hashlib.blake2b(digest_size=MAC_BYTES, key=secret, salt=run_id, person=place.to_bytes(16, "little"))
    for part in parts:
        made.update(part)
    return made.digest()


def blocks_for(rows: int) -> int:
    """How many blocks so many rows take."""
    return -(-rows // BLOCK_ROWS)


def opened(path: Path, secret: bytes) -> tuple[SealedRun, Tail]:
    """Open a run and read what it knows of its packs.

    Raises:
        Damaged: it is not what we wrote.
        OSError: it cannot be read.
    """
    body, tail = read_body(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), secret)
    return SealedRun(body, secret, path), tail


def read_body(fd: int, secret: bytes) -> tuple[Body, Tail]:
    """Check a file's head and tail, and take them in; and the file, too: it is closed if this raises.

    Raises:
        Damaged: it is not what we wrote.
        OSError: it cannot be read.
    """
    try:
        return _read_body(fd, secret)
    except BaseException:
        os.close(fd)
        raise


def _read_body(fd: int, secret: bytes) -> tuple[Body, Tail]:
    head = os.pread(fd, _HEAD_WITH_MAC_BYTES, 0)
    if len(head) < _HEAD_WITH_MAC_BYTES or not head.startswith(MAGIC):
        raise Damaged("it is no run of ours, or was cut")
    _, run_id, rows, sources, packs, pairs, tail_mac = HEAD.unpack_from(head)
    if mac(secret, run_id, HEAD_PLACE, head[: HEAD.size]) != head[HEAD.size :]:
        raise Damaged("its head is damaged, or sealed with another key")
    blocks = blocks_for(rows)
    sizes = (8 * blocks, ID_BYTES * sources, ID_BYTES * packs, DIGEST_BYTES * packs, 4 * packs, 8 * packs, 8 * pairs)
    raw = _pread(fd, sum(sizes), HEAD_BYTES + blocks * BLOCK_BYTES)
    if mac(secret, run_id, TAIL_PLACE, raw) != tail_mac:
        raise Damaged("its list of packs is damaged")
    parts, at = [], 0
    for size in sizes:
        parts.append(np.frombuffer(raw, np.uint8, size, at))
        at += size
    fence, source_ids, pack_ids, digests, blobs, lengths, pair_rows = parts
    tail = Tail(
        source_ids.reshape(-1, ID_BYTES),
        Packs(
            pack_ids.reshape(-1, ID_BYTES),
            digests.reshape(-1, DIGEST_BYTES),
            blobs.view("<u4"),
            lengths.view("<u8"),
        ),
        pair_rows.view("<u4").reshape(-1, 2),
    )
    return Body(fd, run_id, rows, fence.view("<u8").astype(np.uint64)), tail


class SealedRun:
    """An open run; safe to share between threads. Its file lives as long as it does, named or not."""

    def __init__(self, body: Body, secret: bytes, path: Path | None = None) -> None:
        self.path = path
        self._body = body
        self._secret = secret
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
            yield self._rows(body, np.arange(start, min(start + _SCAN_BLOCKS, len(body.fence))))

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
            raw = self._block(body, block)
            at = raw.find(blob_id)
            while at >= 0:
                if at % ROW_BYTES == 0 and at < self._used(body, block):
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
        for start, end in _stretches(group):
            touched = np.zeros(int(last[end - 1] - first[start]) + 1, np.bool_)
            for edge in (first, last):
                touched[edge[start:end] - first[start]] = True
            if (last[start:end] - first[start:end] > 1).any():
                touched[:] = True
            blocks = first[start] + np.flatnonzero(touched)
            rows = self._rows(body, blocks)
            hit, packs, lengths = _match(rows, keys[start:end], wanted[start:end], tree, alive)
            found.append((hit + start, packs, lengths))
        hits, packs, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
        return hits, packs, lengths

    def _rows(self, body: Body, blocks: NDArray[np.int64]) -> Rows:
        """The rows of some blocks, given in order; neighbours are read at once."""
        raw = np.empty((len(blocks), BLOCK_BYTES), np.uint8)
        for start, end in _stretches(blocks - np.arange(len(blocks))):
            _read_into(body.fd, raw[start:end], HEAD_BYTES + int(blocks[start]) * BLOCK_BYTES)
        view = raw.reshape(-1).data
        for number, block in enumerate(blocks.tolist()):
            self._hold_genuine(body, block, view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
        rows = np.ascontiguousarray(raw[:, :USED_BYTES]).view(ROW).ravel()
        spare = (int(blocks[-1]) + 1) * BLOCK_ROWS - body.rows
        return rows[: len(rows) - spare] if spare > 0 else rows

    def _block(self, body: Body, block: int) -> bytes:
        raw = os.pread(body.fd, BLOCK_BYTES, HEAD_BYTES + block * BLOCK_BYTES)
        self._hold_genuine(body, block, memoryview(raw))
        return raw

    def _hold_genuine(self, body: Body, block: int, raw: memoryview) -> None:
        if len(raw) != BLOCK_BYTES or mac(self._secret, body.run_id, block, raw[:USED_BYTES]) != raw[USED_BYTES:]:
            raise Damaged(f"block {block} is damaged")

    def _used(self, body: Body, block: int) -> int:
        return min(BLOCK_ROWS, body.rows - block * BLOCK_ROWS) * ROW_BYTES


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


def _stretches(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin and end."""
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    yield from pairwise(bounds)


def _pread(fd: int, size_bytes: int, offset: int) -> bytearray:
    raw = bytearray(size_bytes)
    _read_into(fd, np.frombuffer(raw, np.uint8), offset)
    return raw


def _read_into(fd: int, out: NDArray[np.uint8], offset: int) -> None:
    view = out.reshape(-1).data
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if not count:
            raise Damaged("it was cut")
        done += count
