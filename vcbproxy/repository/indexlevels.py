"""What of an index no longer changes: runs in memory and in files, asked together as they were at one moment.

An index puts another one in its place when rows move, all at once, so that whoever looks sees each row in one of them.
A row counts only while its pack is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.repository import packlists, packtable, pages
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.indexrows import Rows
from vcbproxy.repository.indexrun import Run
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.packtable import Packs
from vcbproxy.repository.runfile import Damaged
from vcbproxy.repository.sealedrun import SealedRun

_BATCH = 1 << 16
_SEALED_BATCH = 1 << 22  # each batch reads all that lies in files once: a disk of 2 TiB is one
_TRIES = 3

Alive = NDArray[np.bool_]
"""By pack number, which packs count."""
Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]
"""Which of many ids were found, in which pack each lies, and how long it is."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A run in a file, and the number by which its first pack is known here; ``ours`` if it was set aside here."""

    run: SealedRun
    base: int
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Levels:
    """Runs in memory, and runs in files."""

    runs: tuple[Run, ...] = ()
    sealed: tuple[Sealed, ...] = ()

    @property
    def held_rows(self) -> int:
        """How many rows are held in memory."""
        return sum(map(len, self.runs))

    def found(self, blob_id: bytes, tree: bool, alive: Alive) -> Iterator[tuple[int, Blob]]:
        """Where one blob lies: pack numbers and places.

        Raises:
            TargetError: what lies in files cannot be read any more.
        """
        for run in self.runs:
            for row in run.rows(blob_id, tree):
                if alive[run.pack[row]]:
                    yield int(run.pack[row]), run.blob(row)
        for sealed in self.sealed:
            for number, blob in sealed.run.places(blob_id, tree):
                if alive[sealed.base + number]:
                    yield sealed.base + number, blob

    def places(self, ids: NDArray[np.uint8], tree: bool, alive: Alive) -> Iterator[Places]:
        """Where many blobs lie. An id may come several times.

        Raises:
            TargetError: what lies in files cannot be read any more.
        """
        assert ids.ndim == 2
        assert ids.shape[1] == ID_BYTES
        batch = _SEALED_BATCH if self.sealed else _BATCH
        for start in range(0, len(ids), batch):
            every = packtable.keys_of(ids[start : start + batch])
            words = np.ascontiguousarray(ids[start : start + batch]).view(np.uint64)
            order = np.argsort(every)  # neighbours are then looked up near each other, many times quicker
            for at in range(0, len(order), _BATCH):
                part = order[at : at + _BATCH]
                keys, asked = every[part], part + start
                wanted = np.take(words, part, axis=0)  # seven times as quick as to take bytes
                for run in self.runs:
                    yield from _in_memory(run, keys, wanted, tree, alive, asked)
                for sealed in self.sealed:
                    hit, numbers, plain = sealed.run.find(keys, wanted, tree, alive[sealed.base :])
                    yield asked[hit], numbers.astype(np.int64) + sealed.base, plain
            pages.let_go(ids[start : start + batch])

    def packs(
        self, packs: Packs, alive: Alive, directory: Callable[[], Path] | None, sorted_rows: int
    ) -> Iterator[PackBlobs]:
        """Every living pack with its blobs in the order in which they lie there; not all at once in memory.

        Args:
            packs: all packs, by number.
            alive: which of them count.
            directory: for what is too much for memory; see ``packlists.by_pack``.
            sorted_rows: so many are sorted in memory at once.

        Raises:
            TargetError: what lies in files cannot be read any more, or there is no room to sort it.
        """
        for _ in range(_TRIES):
            streams: list[tuple[Iterator[Rows], int]] = [(run.scan(), 0) for run in self.runs]
            streams += [(_scanned(sealed.run), sealed.base) for sealed in self.sealed]
            listed = packlists.by_pack(streams, packs, alive, directory, sorted_rows)
            try:
                first = next(listed, None)  # comes only when all rows have been read
            except _Mended:
                continue
            if first is not None:
                yield first
                yield from listed
            return
        raise TargetError("the local copy of the index is damaged again and again; run `vcbproxy repo check`")


def _in_memory(
    run: Run,
    keys: NDArray[np.uint64],
    wanted: NDArray[np.uint64],
    tree: bool,
    alive: Alive,
    asked: NDArray[np.int64],
) -> Iterator[Places]:
    rows = run.find(keys, wanted, tree, alive)
    hit = np.flatnonzero(rows >= 0)
    at = rows[hit]
    plain = np.where(run.zstd[at] != 0, run.zstd[at], run.stored[at] - np.uint32(32))
    yield asked[hit], run.pack[at].astype(np.int64), plain


class _Mended(Exception):
    """The file that was being read was damaged, and is another one now: begin again."""


def _scanned(run: SealedRun) -> Iterator[Rows]:
    """All rows of a run.

    Raises:
        _Mended: not all of them; they must be read again.
        TargetError: it is damaged, and cannot be made anew.
    """
    try:
        yield from run.scan()
    except (Damaged, OSError) as error:
        run.mend(error)
        raise _Mended from error
