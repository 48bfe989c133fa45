"""The index: for every blob, where it lies. What there was when it was loaded may lie in files, later ones in memory.

    sealed   runs in files, read block by block (``sealedrun.py``); from the cache, or set aside here
    runs     immutable tables of columns in memory, sorted by id (``indexrun.py``)
    tail     a small dictionary of what was added last; when it is full it becomes a run
    packs    all of them by number (``packtable.py``): which ones are alive, and how long each must be

Runs in memory grow geometrically: a new one swallows its neighbours until each is at most half as long as the one
before. When together they are longer than ``held_rows`` they are written to a nameless file; these are merged the same
way. So memory does not grow with what is stored: 50 bytes for each of the last million blobs, 70 for each pack.

Looking up takes no lock: readers take the tail first, and the runs of both kinds (``indexlevels.py``) after it; writers
publish where rows come to lie before they take them from the tail, and put one state of all runs in another's place at
once, so an entry on its way is seen in at least one place. One lock orders the writers. A row counts only while its
pack is alive.

The same blob may lie in several packs; all places are kept, since one may be damaged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexrows, indexrun
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import Columns, PackBlobs
from vcbproxy.repository.indexlevels import Levels, Places, Sealed
from vcbproxy.repository.indexrows import Rows
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.packtable import Packs, PackTable
from vcbproxy.repository.runfile import Body
from vcbproxy.repository.sealedrun import SealedRun
from vcbproxy.repository.spill import Spill


@dataclass(frozen=True, slots=True)
class Location:
    """One copy of a blob."""

    pack_id: bytes
    blob: Blob


@dataclass(frozen=True, slots=True)
class Limits:
    """What an index holds where.

    Attributes:
        tail_rows: so many make the tail a run.
        held_rows: so many in memory are set aside.
        sorted_rows: so many are sorted in memory at once.
    """

    tail_rows: int = 1 << 14
    held_rows: int = 1 << 20
    sorted_rows: int = 1 << 19


class Index:
    """Where every blob lies; any number of readers and writers."""

    def __init__(self, spill: Spill | None = None, *, limits: Limits = Limits()) -> None:
        """An empty one; it sets aside by ``spill`` what is too much for memory, or else holds all."""
        self._lock = threading.Lock()
        self._spill = spill
        self._limits = limits
        self.levels = Levels()
        """What does not change any more; all of it is put in another's place at once."""
        self._tail: dict[tuple[bytes, BlobKind], tuple[tuple[int, Blob], ...]] = {}
        self._tail_rows = 0
        self._packs = PackTable()
        self._forgotten = 0

    def __len__(self) -> int:
        """How many places it knows (copies count)."""
        with self._lock:
            packs = self._packs.packs
            return int(packs.blobs[self._packs.alive[: len(packs)]].sum(dtype=np.int64))

    def add(self, durable: PackBlobs) -> None:
        """Take in a pack that has just become durable. A pack that is known already is left alone."""
        listing = indexrows.listing_of(durable)
        with self._lock:
            if self._packs.find(durable.pack_id) >= 0:
                return
            number = self._extend(listing.packs)
            for blob in durable.blobs:
                place = (blob.blob_id, blob.kind)
                self._tail[place] = (*self._tail.get(place, ()), (number, blob))
            self._tail_rows += len(durable.blobs)
            if self._tail_rows >= self._limits.tail_rows:
                self._settle_tail()
                self._set_aside()

    def add_files(self, files: list[list[tuple[bytes, Columns]]]) -> None:
        """Take in whole index files, as ``indexfile.decode`` gives them.

        Raises:
            IntegrityError: two files list different blobs for one pack.
        """
        listing = indexrows.listing([listed for file in files for listed in file])
        with self._lock:
            self._settle_tail()
            numbers = self._packs.find_many(listing.packs.ids)
            self._packs.hold_alike(listing.packs, numbers)  # nothing is taken in before all of it has been held alike
            fresh = numbers < 0
            if fresh.any():
                base = self._extend(listing.packs.take(fresh))
                rows = indexrows.renumbered(listing.rows, np.where(fresh, np.cumsum(fresh) - 1 + base, -1))
                if len(rows):
                    self._take_run(rows)
                self._set_aside()

    def attach(self, run: SealedRun, packs: Packs, present: NDArray[np.bool_], renew: Callable[[Packs], Body]) -> None:
        """Take in a run from a file, before anything else is added.

        Args:
            run: its rows number the packs from 0.
            packs: those packs.
            present: which of them an index file lists that is still there.
            renew: makes the run's file anew, with packs numbered so; should it turn out to be damaged.

        Raises:
            IntegrityError: it says something else of a pack than what is known.
        """
        with self._lock:
            numbers = self._packs.find_many(packs.ids)
            numbers[~present] = -1
            self._packs.hold_alike(packs, numbers)
            owned = present & (numbers < 0)
            base = self._packs.extend(packs, owned, owned)
            numbered = slice(base, base + len(packs))
            run.mended_by(lambda: renew(self._packs.packs.take(numbered)))
            self.levels = replace(self.levels, sealed=(*self.levels.sealed, Sealed(run, base)))

    def has(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the blob is stored.

        Raises:
            TargetError: what lies in files cannot be read any more.
        """
        return next(self._found(kind, blob_id), None) is not None

    def lookup(self, kind: BlobKind, blob_id: bytes) -> tuple[Location, ...]:
        """All copies of a blob; none when it is not stored.

        Raises:
            TargetError: what lies in files cannot be read any more.
        """
        places = {(number, blob.offset): blob for number, blob in self._found(kind, blob_id)}
        return tuple(Location(self._packs.id_of(number), blob) for (number, _), blob in places.items())

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
        for hit, _, plain in self._places(ids, kind):
            lengths[hit] = plain
            known[hit] = True
        return known, lengths

    def packs_of(self, ids: NDArray[np.uint8], kind: BlobKind) -> set[bytes]:
        """The packs in which many blobs lie; those that are not stored are passed over."""
        found = np.zeros(0, np.int64)
        for _, numbers, _ in self._places(ids, kind):
            found = np.union1d(found, numbers)
        return {self._packs.id_of(number) for number in found.tolist()}

    def packs(self) -> Iterator[PackBlobs]:
        """Every pack with its blobs in the order in which they lie there; not all at once in memory.

        Raises:
            TargetError: what lies in files cannot be read any more, or there is no room to sort it.
        """
        with self._lock:
            self._settle_tail()
            levels, packs = self.levels, self._packs.packs
            alive = self._packs.alive[: len(packs)].copy()
        directory = self._spill.directory if self._spill else None
        yield from levels.packs(packs, alive, directory, self._limits.sorted_rows)

    def pack_sizes(self) -> dict[bytes, int]:
        """How long each pack that holds anything must be, header and all."""
        with self._lock:
            packs = self._packs.packs
            held = self._packs.alive[: len(packs)] & (packs.blobs > 0)
        return {packs.ids[row].tobytes(): int(packs.sizes[row]) for row in np.flatnonzero(held).tolist()}

    def packs_unlike(self, listed: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Which packs that hold anything are not ``listed`` with the size that they must have."""
        with self._lock:
            return self._packs.unlike(iter(listed))

    def known_packs(self, pack_ids: Iterable[bytes]) -> list[bytes]:
        """Those of some packs that hold anything here."""
        with self._lock:
            numbers = {pack_id: self._packs.find(pack_id) for pack_id in pack_ids}
            packs, alive = self._packs.packs, self._packs.alive
            return [one for one, number in numbers.items() if number >= 0 and alive[number] and packs.blobs[number]]

    @property
    def forgotten(self) -> int:
        """How many packs ``forget`` took out."""
        return self._forgotten

    def forget(self, pack_ids: Sequence[bytes]) -> None:
        """Take all blobs of some packs out, for as long as this index lives."""
        if not pack_ids:
            return
        with self._lock:
            self._forgotten += len(pack_ids)
            self._settle_tail()
            for pack_id in pack_ids:
                number = self._packs.find(pack_id)
                if number < 0:
                    raise KeyError(pack_id)
                self._packs.alive[number] = False

    # ------------------------------------------------------------------ looking up

    def _found(self, kind: BlobKind, blob_id: bytes) -> Iterator[tuple[int, Blob]]:
        """Where one blob lies."""
        tail, levels = self._tail.get((blob_id, kind), ()), self.levels  # in this order: see above
        for number, blob in tail:
            if self._packs.alive[number]:
                yield number, blob
        yield from levels.found(blob_id, kind is BlobKind.TREE, self._packs.alive)

    def _places(self, ids: NDArray[np.uint8], kind: BlobKind) -> Iterator[Places]:
        """Where many blobs lie."""
        with self._lock:
            self._settle_tail()
            levels, alive = self.levels, self._packs.alive
        return levels.places(ids, kind is BlobKind.TREE, alive)

    # ------------------------------------------------------------------ writers; all hold the lock

    def _extend(self, packs: Packs) -> int:
        every = np.ones(len(packs), np.bool_)
        return self._packs.extend(packs, every, every)

    def _settle_tail(self) -> None:
        if not self._tail_rows:
            return
        held = [row for rows in self._tail.values() for row in rows]
        numbers = np.array([number for number, _ in held], np.uint32)
        rows = indexrows.rows_of(indexrows.columns_of([blob for _, blob in held]), numbers)
        self._take_run(rows)  # before the tail is emptied
        self._tail, self._tail_rows = {}, 0

    def _take_run(self, rows: Rows) -> None:
        self.levels = replace(self.levels, runs=indexrun.compacted((*self.levels.runs, indexrun.run_of(rows))))

    def _set_aside(self) -> None:
        """Write what is too much for memory to a file, by the numbers that packs have here."""
        levels = self.levels
        if self._spill is None or levels.held_rows < self._limits.held_rows:
            return
        made = self._spill.merged(levels.runs, [sealed.run for sealed in levels.sealed if sealed.ours])
        if made is None:
            return
        kept = [sealed for sealed in levels.sealed if sealed.run not in made.swallowed]
        self.levels = Levels((), (*kept, Sealed(made.run, 0, ours=True)))
