"""Writing runs: sorted in bites, merged as streams, so that memory does not grow with the number of rows.

    rows as they come ─▶ 262,144 of them ─▶ sorted ─▶ a nameless run ┐
                                           sorted ─▶ a nameless run ┼─▶ merged ─▶ one run ─▶ synced ─▶ renamed
                                                     …              ┘

A run is written aside and gets its name when all of it is on disk; what a crash leaves is a file ``tmp-*``.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository import indexrows, packtable, runfile
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.indexrows import ROW, Listing, Rows
from vcbproxy.repository.packtable import Packs, PackTable
from vcbproxy.repository.runfile import BLOCK_BYTES, BLOCK_ROWS, HEAD, HEAD_BYTES, Body, Tail
from vcbproxy.repository.sealedrun import SealedRun

SUFFIX = ".run"
ASIDE_PREFIX = "tmp-"
_SORT_ROWS = 1 << 18


class RunWriter:
    """Writes one run, in order; use it in a ``with``, which removes what was not kept."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        """Begin a file in ``directory``.

        Raises:
            OSError: it cannot be made.
        """
        self._secret = secret
        self._run_id = secrets.token_bytes(16)
        fd, name = tempfile.mkstemp(prefix=ASIDE_PREFIX, dir=directory)
        self._fd, self._path = fd, Path(name)
        self._kept = False
        self._fence: list[NDArray[np.uint64]] = []
        self._blocks = self._rows = 0
        self._rest = np.zeros(0, ROW)
        self._written = HEAD_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            os.close(self._fd)
            with suppress(OSError):
                self._path.unlink()

    def append(self, rows: Rows) -> None:
        """More rows; sorted, and none below what came before.

        Raises:
            OSError: they cannot be written.
        """
        rows = np.concatenate([self._rest, rows]) if len(self._rest) else rows
        whole = len(rows) // BLOCK_ROWS * BLOCK_ROWS
        self._write_blocks(rows[:whole])
        self._rest = rows[whole:].copy()

    def nameless(self) -> SealedRun:
        """The run, in a file that goes with it.

        Raises:
            OSError: it cannot be written.
        """
        return self.kept(no_tail())[0]

    def published(self, tail: Tail) -> tuple[SealedRun, Tail]:
        """The run under a name of its own, which it gets once all of it is on disk.

        Raises:
            OSError: it cannot be written.
        """
        fence = self._finish(tail)
        os.fsync(self._fd)
        path = self._path.with_name(f"{self._run_id.hex()}{SUFFIX}")
        self._path.rename(path)
        return self._run(fence, path), tail

    def kept(self, tail: Tail) -> tuple[SealedRun, Tail]:
        """As ``published``, without a name: for whoever has no directory for it.

        Raises:
            OSError: it cannot be written.
        """
        fence = self._finish(tail)
        self._path.unlink()
        return self._run(fence, None), tail

    def _run(self, fence: NDArray[np.uint64], path: Path | None) -> SealedRun:
        self._kept = True
        return SealedRun(Body(self._fd, self._secret, self._run_id, self._rows, fence), path)

    def _write_blocks(self, rows: Rows) -> None:
        for start in range(0, len(rows), BLOCK_ROWS * 256):
            part = rows[start : start + BLOCK_ROWS * 256]
            count = runfile.blocks_for(len(part))
            self._fence.append(indexrows.keys(part[::BLOCK_ROWS]))
            raw = np.zeros((count, BLOCK_BYTES), np.uint8)
            padded = np.zeros(count * BLOCK_ROWS, ROW)
            padded[: len(part)] = part
            raw[:, : runfile.USED_BYTES] = padded.view(np.uint8).reshape(count, -1)
            view = raw.reshape(-1).data
            for number in range(count):
                at = number * BLOCK_BYTES
                used = view[at : at + runfile.USED_BYTES]
                view[at + runfile.USED_BYTES : at + BLOCK_BYTES] = self._mac(self._blocks + number, used)
            self._write(view)
            self._blocks += count
            self._rows += len(part)

    def _finish(self, tail: Tail) -> NDArray[np.uint64]:
        """Write all but the blocks; gives the first key of each of these."""
        self._write_blocks(self._rest)
        fence = np.concatenate(self._fence) if self._fence else np.zeros(0, np.uint64)
        packs = tail.packs
        parts = [
            np.ascontiguousarray(column).view(np.uint8).reshape(-1).data
            for column in (
                fence.astype("<u8"),
                tail.sources,
                packs.ids,
                packs.digests,
                packs.blobs.astype("<u4"),
                packs.sizes.astype("<u8"),
                tail.pairs.astype("<u4"),
            )
        ]
        for part in parts:
            self._write(part)
        counts = (self._rows, len(tail.sources), len(packs), len(tail.pairs))
        tail_mac = self._mac(runfile.TAIL_PLACE, *parts)
        head = HEAD.pack(runfile.MAGIC, self._run_id, *counts, tail_mac)
        self._write_at(memoryview(head + self._mac(runfile.HEAD_PLACE, head)), 0)
        return fence

    def _mac(self, place: int, *parts: bytes | memoryview) -> bytes:
        return runfile.mac(self._secret, self._run_id, place, *parts)

    def _write(self, data: memoryview) -> None:
        self._write_at(data, self._written)
        self._written += len(data)

    def _write_at(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)


class RunBuilder:
    """Makes one run of whole index files, in any number."""

    def __init__(self, directory: Path, secret: bytes, packs: Packs | None = None) -> None:
        """Work in ``directory``; give ``packs`` the numbers that they have there, and take in no others."""
        self._packs = PackTable()
        self._numbered = packs is not None
        if packs is not None:
            every = np.ones(len(packs), np.bool_)
            self._packs.extend(packs, ~every, every)
        self._sources: list[bytes] = []
        self._pairs: list[NDArray[np.uint32]] = []
        self._sorter = Sorter(directory, secret)

    def add(self, source: bytes, listing: Listing) -> None:
        """Take in what one index file lists.

        Raises:
            IntegrityError: another one lists other blobs for one of its packs.
            OSError: no room for it.
        """
        numbers, added = self._numbered_packs(listing.packs, np.ones(len(listing.packs), np.bool_))
        self._sorter.add(indexrows.renumbered(listing.rows, added))
        known = numbers >= 0
        self._pairs.append(pairs_of(np.full(np.count_nonzero(known), len(self._sources)), numbers[known]))
        self._sources.append(source)

    def merge(self, run: SealedRun, tail: Tail, present: NDArray[np.bool_]) -> None:
        """Take in what of another run is listed by index files that are still there (``present``, by source).

        Raises:
            IntegrityError: it lists other blobs for one of the packs.
            OSError: no room for it, or it cannot be read.
            Damaged: it is not as it was written.
        """
        kept = tail.pairs[present[tail.pairs[:, 0]]]
        wanted = np.zeros(len(tail.packs), np.bool_)
        wanted[kept[:, 1]] = True
        numbers, added = self._numbered_packs(tail.packs, wanted)
        self._sorter.add_stream(indexrows.renumbered(rows, added) for rows in run.scan())
        sources = np.cumsum(present) - 1 + len(self._sources)
        self._pairs.append(pairs_of(sources[kept[:, 0]], numbers[kept[:, 1]]))
        self._sources += [row.tobytes() for row in tail.sources[present]]

    def _numbered_packs(self, packs: Packs, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers for the packs that are wanted; and again, only for those whose rows are not here yet. Else -1."""
        numbers = self._packs.find_many(packs.ids)
        numbers[~wanted] = -1
        self._packs.hold_alike(packs, numbers)
        if not self._numbered:
            fresh = wanted & (numbers < 0)
            none_yet = np.zeros(np.count_nonzero(fresh), np.bool_)
            numbers[fresh] = self._packs.extend(packs.take(fresh), none_yet, ~none_yet) + np.arange(len(none_yet))
        known = np.flatnonzero(numbers >= 0)
        here = self._packs.alive[numbers[known]]
        added = numbers.copy()
        added[known[here]] = -1
        self._packs.alive[numbers[known]] = True
        return numbers, added

    def write(self, writer: RunWriter) -> Tail:
        """Write all rows in order. Gives the tail to end with.

        Raises:
            OSError: it cannot be written.
            Damaged: a run that was merged is not as it was written.
        """
        for rows in self._sorter.rows():
            writer.append(rows)
        sources = np.frombuffer(b"".join(self._sources), np.uint8).reshape(-1, ID_BYTES)
        pairs = np.concatenate(self._pairs) if self._pairs else np.zeros((0, 2), np.uint32)
        return Tail(sources, self._packs.packs, pairs)


class Sorter:
    """Rows in any order go in, rows in order come out."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        """Set aside in ``directory`` what is too much for memory."""
        self._directory = directory
        self._secret = secret
        self._held: list[Rows] = []
        self._held_rows = 0
        self._streams: list[Iterator[Rows]] = []

    def add(self, rows: Rows) -> None:
        """Take some in.

        Raises:
            OSError: no room for them.
        """
        self._held.append(rows)
        self._held_rows += len(rows)
        if self._held_rows >= _SORT_ROWS:
            with RunWriter(self._directory, self._secret) as writer:
                writer.append(self._sorted())
                self._streams.append(writer.nameless().scan())

    def add_stream(self, rows: Iterable[Rows]) -> None:
        """Take some in that are in order already; read while all are merged."""
        self._streams.append(iter(rows))

    def rows(self) -> Iterator[Rows]:
        """All of them, in order; once."""
        return merged([*self._streams, iter([self._sorted()])])

    def _sorted(self) -> Rows:
        rows = indexrows.concatenated(self._held)
        self._held, self._held_rows = [], 0
        return indexrows.by_key(rows)


def merged(streams: list[Iterator[Rows]]) -> Iterator[Rows]:
    """Streams of rows in order, as one. From each no more is held than what it gives at once.

    All rows up to the least of the last keys that are held can be given out: what comes later is not below it.
    """
    held = [one for stream in streams for one in _next(stream)]
    while held:
        if len(held) == 1:
            yield held[0][1]
            yield from (rows for rows in held[0][0] if len(rows))
            return
        bound = min(keys[-1] for _, _, keys in held)
        counts = [int(np.searchsorted(keys, bound, "right")) for _, _, keys in held]
        yield indexrows.by_key(np.concatenate([rows[:n] for (_, rows, _), n in zip(held, counts, strict=True)]))
        left: list[_Held] = []
        for (stream, rows, keys), count in zip(held, counts, strict=True):
            left += [(stream, rows[count:], keys[count:])] if count < len(rows) else _next(stream)
        held = left


_Held = tuple[Iterator[Rows], Rows, NDArray[np.uint64]]


def _next(stream: Iterator[Rows]) -> list[_Held]:
    """What the stream gives next, and its keys; nothing at its end."""
    rows = next((rows for rows in stream if len(rows)), None)
    return [] if rows is None else [(stream, rows, indexrows.keys(rows))]


def pairs_of(sources: NDArray[np.int64], packs: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Pairs as a run keeps them."""
    return np.stack([sources, packs], axis=1).astype(np.uint32)


def no_tail() -> Tail:
    """Of a run that only serves to sort."""
    return Tail(np.zeros((0, ID_BYTES), np.uint8), packtable.no_packs(), np.zeros((0, 2), np.uint32))
