"""Runs in memory: immutable columns of an index, sorted by id; how they are searched and merged.

    key u64 │ rest of id 24 │ pack u32 │ offset u32 │ stored u32 │ zstd u32 │ tree bool        49 bytes a blob

``key`` is the id's first eight bytes as a number. Different ids may share it, the same id may stand in several rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository import indexrows
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexrows import ROW, TREE, Rows
from vcbproxy.repository.pack import Blob

_SCAN_ROWS = 1 << 13
_MERGED_ROWS_MIN = 1 << 18


@dataclass(frozen=True, slots=True)
class Run:
    """Columns sorted by the first eight bytes of the id, which are taken out as a number."""

    key: NDArray[np.uint64]
    rest: NDArray[np.uint8]
    pack: NDArray[np.uint32]
    offset: NDArray[np.uint32]
    stored: NDArray[np.uint32]
    zstd: NDArray[np.uint32]
    tree: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.key)

    def rows(self, blob_id: bytes, tree: bool) -> Iterator[int]:
        """Where this blob stands."""
        wanted = np.uint64(int.from_bytes(blob_id[:8], "big"))
        row = int(np.searchsorted(self.key, wanted))
        rest = blob_id[8:]
        while row < len(self.key) and self.key[row] == wanted:
            if self.rest[row].tobytes() == rest and self.tree[row] == tree:
                yield row
            row += 1

    def blob(self, row: int) -> Blob:
        """A row as a value."""
        return Blob(
            BlobKind.TREE if self.tree[row] else BlobKind.DATA,
            int(self.key[row]).to_bytes(8, "big") + self.rest[row].tobytes(),
            int(self.offset[row]),
            int(self.stored[row]),
            int(self.zstd[row]),
        )

    def scan(self) -> Iterator[Rows]:
        """All of it in order, as it lies in files, some thousands of rows at a time."""
        for start in range(0, len(self), _SCAN_ROWS):
            part = slice(start, start + _SCAN_ROWS)
            rows = np.empty(len(self.key[part]), ROW)
            rows["id"][:, :8] = self.key[part].astype(">u8").view(np.uint8).reshape(-1, 8)
            rows["id"][:, 8:] = self.rest[part]
            rows["pack"] = self.pack[part] | np.where(self.tree[part], np.uint32(TREE), np.uint32(0))
            rows["offset"], rows["stored"], rows["zstd"] = self.offset[part], self.stored[part], self.zstd[part]
            yield rows

    def find(
        self, keys: NDArray[np.uint64], wanted: NDArray[np.uint64], tree: bool, alive: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """For many ids at once: a row each, in a pack that is ``alive``, or -1.

        ``wanted`` are the ids as words (n, 4), ``keys`` their first eight bytes as numbers, sorted.
        """
        rest = np.ascontiguousarray(self.rest).view(np.uint64)
        rows = np.searchsorted(self.key, keys).astype(np.int64)
        found = np.full(len(keys), -1, np.int64)
        asked = np.flatnonzero(rows < len(self.key))
        # One round for almost all; further ones only for ids that share their first eight bytes with others.
        while len(asked):
            at = rows[asked]
            same_key = self.key[at] == keys[asked]
            asked, at = asked[same_key], at[same_key]
            match = indexrows.alike(np.take(rest, at, axis=0), np.take(wanted, asked, axis=0)[:, 1:])
            match &= (self.tree[at] == tree) & alive[self.pack[at]]
            found[asked[match]] = at[match]
            asked = asked[~match]
            rows[asked] += 1
            asked = asked[rows[asked] < len(self.key)]
        return found


def run_of(rows: Rows) -> Run:
    """Sort rows, and take them apart; column by column, so that only one is held twice at a time."""
    key = indexrows.keys(rows)
    order = np.argsort(key, kind="stable")
    return Run(
        key[order],
        rows["id"][order, 8:],
        indexrows.pack_numbers(rows)[order],
        rows["offset"][order],
        rows["stored"][order],
        rows["zstd"][order],
        indexrows.trees(rows)[order],
    )


def merged_run(runs: list[Run]) -> Run:
    """Several runs as one; again column by column."""
    key = np.concatenate([run.key for run in runs])
    order = np.argsort(key, kind="stable")
    return Run(
        key[order],
        np.concatenate([run.rest for run in runs])[order],
        np.concatenate([run.pack for run in runs])[order],
        np.concatenate([run.offset for run in runs])[order],
        np.concatenate([run.stored for run in runs])[order],
        np.concatenate([run.zstd for run in runs])[order],
        np.concatenate([run.tree for run in runs])[order],
    )


def compacted(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """Merge from the end until each run is at most half as long as the one before it.

    But never into one longer than an eighth of all: while runs are merged they are held twice.
    """
    size_max = max(sum(map(len, runs)) // 8, _MERGED_ROWS_MIN)
    keep = list(runs)
    last = [keep.pop()]
    size = len(last[0])
    while keep and len(keep[-1]) < 2 * size and size + len(keep[-1]) <= size_max:
        last.append(keep.pop())
        size += len(last[-1])
    return (*keep, merged_run(last[::-1]) if len(last) > 1 else last[0])
