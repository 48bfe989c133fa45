"""The index in memory: for every blob, where it lies. Built for ten million blobs in half a gigabyte.

    runs     immutable tables of columns, sorted by id (``indexrun.py``)
    tail     a small dictionary of what was added last; when it is full it becomes a run

Runs grow geometrically: a new one swallows its neighbours until each is at most half as long as the one before, so
there are few of them, and a blob is moved only a logarithmic number of times.

Looking up takes no lock: readers take the tail first and the runs after it, writers publish the new runs before they
empty the tail, so an entry on its way from one to the other is seen in at least one. One lock orders the writers.

The same blob may lie in several packs; all places are kept, since one may be damaged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexrun, pack, pages
from vcbproxy.repository.ids import ID_BYTES, BlobKind
from vcbproxy.repository.indexfile import Columns, PackBlobs
from vcbproxy.repository.indexrun import Run
from vcbproxy.repository.pack import Blob

_TAIL_MAX = 1 << 14


@dataclass(frozen=True, slots=True)
class Location:
    """One copy of a blob."""

    pack_id: bytes
    blob: Blob


class Index:
    """Where every blob lies; any number of readers and writers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: tuple[Run, ...] = ()
        self._tail: dict[tuple[bytes, BlobKind], tuple[tuple[int, Blob], ...]] = {}
        self._tail_rows = 0
        self._packs: list[bytes] = []
        self._pack_numbers: dict[bytes, int] = {}
        self._forgotten: set[bytes] = set()

    def __len__(self) -> int:
        """How many places it knows (copies count)."""
        with self._lock:
            return sum(map(len, self._runs)) + self._tail_rows

    def add(self, durable: PackBlobs) -> None:
        """Take in a pack that has just become durable. A pack that is known already is left alone."""
        with self._lock:
            if durable.pack_id in self._pack_numbers:
                return
            number = self._number(durable.pack_id)
            for blob in durable.blobs:
                place = (blob.blob_id, blob.kind)
                self._tail[place] = (*self._tail.get(place, ()), (number, blob))
            self._tail_rows += len(durable.blobs)
            if self._tail_rows >= _TAIL_MAX:
                self._settle_tail()

    def add_files(self, files: list[list[tuple[bytes, Columns]]]) -> None:
        """Take in whole index files, as ``indexfile.decode`` gives them.

        Raises:
            IntegrityError: two files list different blobs for one pack.
        """
        with self._lock:
            self._settle_tail()
            fresh: dict[bytes, Columns] = {}
            known: dict[bytes, Columns] = {}
            for pack_id, columns in (listed for file in files for listed in file):
                if pack_id in self._forgotten:
                    continue
                where = known if pack_id in self._pack_numbers else fresh
                if pack_id in where:
                    indexrun.hold_alike(pack_id, where[pack_id], columns)
                where[pack_id] = columns
            self._hold_known_alike(known)
            for pack_id, columns in fresh.items():  # nothing is taken in before all of it has been held alike
                columns.pack[:] = self._number(pack_id)
            if fresh:
                self._runs = indexrun.compacted((*self._runs, indexrun.sorted_run(list(fresh.values()))))

    def has(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the blob is stored."""
        if (blob_id, kind) in self._tail:
            return True
        tree = kind is BlobKind.TREE
        return any(next(run.rows(blob_id, tree), None) is not None for run in self._runs)

    def lookup(self, kind: BlobKind, blob_id: bytes) -> tuple[Location, ...]:
        """All copies of a blob; none when it is not stored."""
        tail = self._tail.get((blob_id, kind), ())
        found = [(number, blob) for number, blob in tail]
        tree = kind is BlobKind.TREE
        for run in self._runs:
            found += [(int(run.pack[row]), run.blob(row)) for row in run.rows(blob_id, tree)]
        places = {(number, blob.offset): blob for number, blob in found}
        return tuple(Location(self._packs[number], blob) for (number, _), blob in places.items())

    def lengths(self, ids: NDArray[np.uint8], kind: BlobKind = BlobKind.DATA) -> NDArray[np.uint32]:
        """The plaintext lengths of many blobs at once.

        Args:
            ids: an array of shape (n, 32).
            kind: of all of them.

        Raises:
            IntegrityError: one of them is not stored.
        """
        known, lengths = self.find(ids, kind)
        if not known.all():
            missing = ids[int(np.argmin(known))].tobytes().hex()
            raise IntegrityError(f"{kind.value} blob {missing} is in no index; run `vcbproxy repo check`")
        return lengths

    def find(self, ids: NDArray[np.uint8], kind: BlobKind) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
        """Which of many blobs are stored, and the plaintext lengths of those that are (0 for the others)."""
        lengths = np.zeros(len(ids), np.uint32)
        known = np.zeros(len(ids), np.bool_)
        for run, at, hit in self._places(ids, kind):
            lengths[hit] = np.where(run.zstd[at] != 0, run.zstd[at], run.stored[at] - np.uint32(32))
            known[hit] = True
        return known, lengths

    def packs_of(self, ids: NDArray[np.uint8], kind: BlobKind) -> set[bytes]:
        """The packs in which many blobs lie; those that are not stored are passed over."""
        found = np.zeros(0, np.uint32)
        for run, at, _ in self._places(ids, kind):
            found = np.union1d(found, run.pack[at])
        return {self._packs[number] for number in found.tolist()}

    def _places(
        self, ids: NDArray[np.uint8], kind: BlobKind
    ) -> Iterator[tuple[Run, NDArray[np.int64], NDArray[np.int64]]]:
        """Where many blobs lie: a run, rows of it, and which of ``ids`` these are. An id may come in several runs."""
        assert ids.ndim == 2
        assert ids.shape[1] == ID_BYTES
        with self._lock:
            self._settle_tail()
            runs = self._runs
        for start in range(0, len(ids), _BATCH):
            keys = indexrun.keys_of(ids[start : start + _BATCH])
            order = np.argsort(keys)  # neighbours are then looked up near each other, many times quicker
            keys, asked = keys[order], order + start
            rest = ids[asked, 8:]
            for run in runs:
                rows = run.find(keys, rest, kind is BlobKind.TREE)
                hit = np.flatnonzero(rows >= 0)
                yield run, rows[hit], asked[hit]
            pages.let_go(ids[start : start + _BATCH])

    def packs(self) -> Iterator[PackBlobs]:
        """Every pack with its blobs in the order in which they lie there."""
        with self._lock:
            self._settle_tail()
            if not self._runs:
                return
            run = indexrun.merged_run(list(self._runs)) if len(self._runs) > 1 else self._runs[0]
            packs = list(self._packs)
        order = np.lexsort((run.offset, run.pack))
        bounds = np.searchsorted(run.pack[order], np.arange(len(packs) + 1))
        for number, pack_id in enumerate(packs):
            rows = order[bounds[number] : bounds[number + 1]]
            yield PackBlobs(pack_id, [run.blob(int(row)) for row in rows])

    def pack_sizes(self) -> dict[bytes, int]:
        """How long each pack must be, header and all."""
        with self._lock:
            self._settle_tail()
            runs, packs = self._runs, list(self._packs)
        sizes = np.full(len(packs), pack.header_size(()), np.int64)
        blobs = np.zeros(len(packs), np.int64)
        for run in runs:
            sizes += np.bincount(run.pack, run.stored, len(packs)).astype(np.int64)  # exact below 2**53
            entries = np.where(run.zstd != 0, pack.ZSTD_ENTRY_BYTES, pack.RAW_ENTRY_BYTES)
            sizes += np.bincount(run.pack, entries, len(packs)).astype(np.int64)
            blobs += np.bincount(run.pack, minlength=len(packs))
        return {packs[number]: int(sizes[number]) for number in np.flatnonzero(blobs).tolist()}

    @property
    def forgot(self) -> bool:
        """Whether ``forget`` took anything out."""
        return bool(self._forgotten)

    def forget(self, pack_ids: Sequence[bytes]) -> None:
        """Take all blobs of some packs out, for as long as this index lives."""
        if not pack_ids:
            return
        with self._lock:
            self._settle_tail()
            self._forgotten.update(pack_ids)
            numbers = np.array([self._pack_numbers[pack_id] for pack_id in pack_ids], np.uint32)
            self._runs = tuple(run.without(numbers) for run in self._runs)

    def _hold_known_alike(self, again: dict[bytes, Columns]) -> None:
        """Hold packs that are listed once more against what is known of them; one pass over all rows."""
        if not again:
            return
        numbers = np.array([self._pack_numbers[pack_id] for pack_id in again], np.uint32)
        parts = [run.columns(np.flatnonzero(np.isin(run.pack, numbers))) for run in self._runs]
        rows = indexrun.concatenated(parts)
        for pack_id, columns in again.items():
            indexrun.hold_alike(pack_id, rows.take(rows.pack == self._pack_numbers[pack_id]), columns)

    def _number(self, pack_id: bytes) -> int:
        number = self._pack_numbers[pack_id] = len(self._packs)
        self._packs.append(pack_id)
        return number

    def _settle_tail(self) -> None:
        if not self._tail_rows:
            return
        rows = [row for rows in self._tail.values() for row in rows]
        columns = Columns(
            ids=np.frombuffer(b"".join(blob.blob_id for _, blob in rows), np.uint8).reshape(-1, ID_BYTES),
            pack=np.array([number for number, _ in rows], np.uint32),
            offset=np.array([blob.offset for _, blob in rows], np.uint32),
            stored=np.array([blob.stored_bytes for _, blob in rows], np.uint32),
            zstd=np.array([blob.zstd_bytes for _, blob in rows], np.uint32),
            tree=np.array([blob.kind is BlobKind.TREE for _, blob in rows], np.bool_),
        )
        self._runs = indexrun.compacted(
            (*self._runs, indexrun.sorted_run([columns]))
        )  # published before the tail is emptied
        self._tail, self._tail_rows = {}, 0


_BATCH = 1 << 16
