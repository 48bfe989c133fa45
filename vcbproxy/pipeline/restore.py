"""Brings a disk back from its chunks, or proves that it could be: the other half of ``backup.py``.

    target ◀─ load, check ─ worker 0 ─ write at the chunk's place ─▶ disk.raw.partial ──▶ disk.raw
                            worker n ─                            ─▶                 (fsync, rename)

Promises: every chunk is digested on its way (by whoever loads it) and has the length that was recorded; the file gets
its name only once all of it is on stable storage; a restore that fails or is cancelled leaves no file. Chunks are taken
in the disk's order, so that packs are read more or less in sequence; zeroes are not loaded, and not written either.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.pipeline import output
from vcbproxy.pipeline.chunker import GRANULE, HOLE_STEP
from vcbproxy.pipeline.content import Lengths, zero_id
from vcbproxy.pipeline.crew import Cancel, Crew
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import ID_BYTES, BlobKind

_PROGRESS_S = 0.1
_WAITING = 2


class BlobLoader(Protocol):
    """Gives blobs back; used by several threads at once."""

    def load_blob(self, kind: BlobKind, blob_id: bytes) -> bytes | bytearray | memoryview:
        """The whole blob, its digest checked.

        Raises:
            IntegrityError: it is damaged or missing.
        """


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: ``bytes_done`` of ``bytes_total``; ``bytes_zero`` of them needed no loading."""

    bytes_total: int
    bytes_done: int
    bytes_zero: int


def no_progress(_progress: Progress) -> None:
    """Tell nobody."""


def restore_disk(
    loader: BlobLoader,
    ids: Ids,
    lengths: Lengths,
    path: Path,
    *,
    workers: int = 0,
    sparse: bool = True,
    overwrite: bool = False,
    progress: Callable[[Progress], None] = no_progress,
    cancel: Cancel | None = None,
) -> Progress:
    """Write a disk to a raw file.

    Args:
        loader: where the chunks are.
        ids: uint8[n, 32], in order.
        lengths: uint32[n].
        path: the file; it must not exist.
        workers: threads; 0 for one per processor and two more, since some always wait for a disk.
        sparse: leave zeroes out of the file's allocation; else write them.
        overwrite: it may exist, and is replaced once the new one is whole.
        progress: called by this thread, ten times a second.
        cancel: looked at a few times a second.

    Raises:
        IntegrityError: a chunk is damaged, missing, or not as long as recorded.
        UsageError: the file exists.
        Error: it cannot be written.
        Cancelled: ``cancel`` was set.
    """
    chunks = Chunks(ids, lengths)
    with output.new_file(path, chunks.size_bytes, overwrite=overwrite) as out:

        def take(row: int, plain: memoryview) -> None:
            if not (sparse and _all_zero(plain)):
                out.write_at(int(chunks.offsets[row]), plain)

        if not sparse:
            _write_zeroes(out, chunks)
        rows = np.flatnonzero(~chunks.zero)
        done = _load_all(loader, chunks, rows, take, workers, progress, cancel)
        out.commit()
    return done


def verify_disk(
    loader: BlobLoader,
    ids: Ids,
    lengths: Lengths,
    *,
    workers: int = 0,
    progress: Callable[[Progress], None] = no_progress,
    cancel: Cancel | None = None,
) -> Progress:
    """Load every chunk of a disk, each once, as a restore would, and write nothing.

    Raises:
        IntegrityError: a chunk is damaged, missing, or not as long as recorded.
        Cancelled: ``cancel`` was set.
    """
    chunks = Chunks(ids, lengths)
    return _load_all(loader, chunks, chunks.first_of_each(), _drop, workers, progress, cancel)


class Chunks:
    """A disk's chunks, with what follows from them."""

    def __init__(self, ids: Ids, lengths: Lengths) -> None:
        assert ids.dtype == np.uint8, ids.dtype
        assert ids.shape == (len(lengths), ID_BYTES), f"{ids.shape} ids, {len(lengths)} lengths"
        self.ids = np.ascontiguousarray(ids)
        self.lengths = lengths
        ends = np.cumsum(lengths, dtype=np.int64)
        self.size_bytes = int(ends[-1]) if len(ends) else 0
        self.offsets: NDArray[np.int64] = ends - lengths
        self.zero = self._zeroes()

    def _zeroes(self) -> NDArray[np.bool_]:
        """Which chunks are known by their id to be zeroes."""
        zero = np.zeros(len(self.lengths), np.bool_)
        plausible = (self.lengths % GRANULE == 0) & (self.lengths <= HOLE_STEP)
        plausible[-1:] = self.lengths[-1:] <= HOLE_STEP
        for length in np.unique(self.lengths[plausible]).tolist():
            rows = np.flatnonzero(plausible & (self.lengths == length))
            zero[rows] = (self.ids[rows] == np.frombuffer(zero_id(length), np.uint8)).all(axis=1)
        return zero

    def first_of_each(self) -> NDArray[np.int64]:
        """The rows at which each id stands first, in the disk's order.

        Raises:
            IntegrityError: one id is recorded with two lengths.
        """
        keys = self.ids.view(np.dtype((np.void, ID_BYTES))).ravel()
        _, first, which = np.unique(keys, return_index=True, return_inverse=True)
        differing = np.flatnonzero(self.lengths != self.lengths[first][which])
        if len(differing):
            row = int(differing[0])
            raise IntegrityError(f"chunk {self.ids[row].tobytes().hex()} is recorded with different lengths")
        return np.sort(first).astype(np.int64)


def _load_all(
    loader: BlobLoader,
    chunks: Chunks,
    rows: NDArray[np.int64],
    take: Callable[[int, memoryview], None],
    workers: int,
    progress: Callable[[Progress], None],
    cancel: Cancel | None,
) -> Progress:
    """Load the chunks at ``rows``, in order, several at a time, and hand each to ``take``."""
    todo, lock, taken = itertools.count(), threading.Lock(), 0
    bytes_zero = int(chunks.lengths[chunks.zero].sum(dtype=np.int64))
    bytes_left_out = chunks.size_bytes - int(chunks.lengths[rows].sum(dtype=np.int64))

    with Crew("restore", cancel) as crew:

        def work() -> None:
            nonlocal taken
            while not crew.stopping:
                with lock:
                    at = next(todo)
                if at >= len(rows):
                    return
                row = int(rows[at])
                plain = load_chunk(loader, chunks, row)
                take(row, plain)
                with lock:
                    taken += len(plain)

        for _ in range(workers or (os.cpu_count() or 1) + _WAITING):
            crew.start(work)
        while not crew.wait(_PROGRESS_S):
            crew.check()
            progress(Progress(chunks.size_bytes, bytes_left_out + taken, bytes_zero))
        crew.join()
    assert bytes_left_out + taken == chunks.size_bytes, "not every chunk was taken"
    done = Progress(chunks.size_bytes, chunks.size_bytes, bytes_zero)
    progress(done)
    return done


def load_chunk(loader: BlobLoader, chunks: Chunks, row: int) -> memoryview:
    """One chunk.

    Raises:
        IntegrityError: it is damaged, missing, or not as long as recorded.
    """
    blob_id = chunks.ids[row].tobytes()
    plain = memoryview(loader.load_blob(BlobKind.DATA, blob_id))
    if len(plain) != chunks.lengths[row]:
        raise IntegrityError(
            f"chunk {blob_id.hex()} has {len(plain)} bytes, recorded at disk offset {chunks.offsets[row]} "
            f"are {chunks.lengths[row]}"
        )
    return plain


def _drop(_row: int, _plain: memoryview) -> None:
    """Having loaded it was all."""


def _all_zero(plain: memoryview) -> bool:
    """Whether no byte is set. Nearly always the first page tells."""
    octets = np.frombuffer(plain, np.uint8)
    return not octets[:4096].any() and (len(octets) <= 4096 or int(octets.max()) == 0)


def _write_zeroes(out: output.NewFile, chunks: Chunks) -> None:
    zeroes = memoryview(bytes(HOLE_STEP))
    for row in np.flatnonzero(chunks.zero).tolist():
        out.write_at(int(chunks.offsets[row]), zeroes[: int(chunks.lengths[row])])
