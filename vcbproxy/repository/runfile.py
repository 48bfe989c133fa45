"""The file of a run, from its head to its tail: rows of the index sorted by id, sealed block by block.

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
import os
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.indexrows import ROW, ROW_BYTES, Rows
from vcbproxy.repository.packtable import DIGEST_BYTES, Packs

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
    secret: bytes = field(repr=False)
    run_id: bytes
    rows: int
    fence: NDArray[np.uint64]

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.fd)

    def read(self, blocks: NDArray[np.int64]) -> Rows:
        """The rows of some blocks, given in order; neighbours are read at once.

        Raises:
            Damaged: one is not as it was written.
            OSError: one cannot be read.
        """
        raw = np.empty((len(blocks), BLOCK_BYTES), np.uint8)
        for start, end in stretches(blocks - np.arange(len(blocks))):
            _read_into(self.fd, raw[start:end], HEAD_BYTES + int(blocks[start]) * BLOCK_BYTES)
        view = raw.reshape(-1).data
        for number, block in enumerate(blocks.tolist()):
            self._hold_genuine(block, view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])
        rows = np.ascontiguousarray(raw[:, :USED_BYTES]).view(ROW).ravel()
        spare = (int(blocks[-1]) + 1) * BLOCK_ROWS - self.rows
        return rows[: len(rows) - spare] if spare > 0 else rows

    def block(self, block: int) -> bytes:
        """One block, rows and mac.

        Raises:
            Damaged: it is not as it was written.
            OSError: it cannot be read.
        """
        raw = os.pread(self.fd, BLOCK_BYTES, HEAD_BYTES + block * BLOCK_BYTES)
        self._hold_genuine(block, memoryview(raw))
        return raw

    def _hold_genuine(self, block: int, raw: memoryview) -> None:
        if len(raw) != BLOCK_BYTES or mac(self.secret, self.run_id, block, raw[:USED_BYTES]) != raw[USED_BYTES:]:
            raise Damaged(f"block {block} is damaged")

    def used_bytes(self, block: int) -> int:
        """How much of a block are rows."""
        return min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS) * ROW_BYTES


def mac(secret: bytes, run_id: bytes, place: int, *parts: bytes | bytearray | memoryview) -> bytes:
    """The mac of one part of a run, given in pieces; ``place`` is the block's number."""
    made = hashlib.blake2b(digest_size=MAC_BYTES, key=secret, salt=run_id, person=place.to_bytes(16, "little"))
    for part in parts:
        made.update(part)
    return made.digest()


def blocks_for(rows: int) -> int:
    """How many blocks so many rows take."""
    return -(-rows // BLOCK_ROWS)


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
    return Body(fd, secret, run_id, rows, fence.view("<u8").astype(np.uint64)), tail


def stretches(numbers: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
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
