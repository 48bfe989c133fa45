"""All blobs of one kind, sorted by id, with a mark for each that is used.

    id 32 │ pack u32 │ offset u32 │ stored u32 │ zstd u32 │ tree u8          49 bytes a copy

The copies of a blob are neighbours, and the mark stands at the first of them. ``S32`` compares ids as a whole and as
fast as numbers; that it takes closing zero bytes for padding does no harm among strings of one length.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import Columns
from vcbproxy.repository.pack import RAW_ENTRY_BYTES, ZSTD_ENTRY_BYTES, Blob
from vcbproxy.repository.prune.buckets import Buckets, Rows

ID = np.dtype("S32")
ROW = np.dtype([("id", "S32"), ("pack", "<u4"), ("offset", "<u4"), ("stored", "<u4"), ("zstd", "<u4"), ("tree", "u1")])
_BUCKET_ROWS = 1 << 17
_BUCKETS_MAX = 256

Names = NDArray[np.bytes_]
Flags = NDArray[np.bool_]


def names(ids: NDArray[np.uint8]) -> Names:
    """Ids of shape (n, 32) as strings."""
    return np.ascontiguousarray(ids).view(ID).ravel()


def hex_of(name: Names) -> str:
    """An array of one name as hexadecimal; a scalar would have lost its closing zeroes."""
    return name.tobytes().hex()


def rows_of(columns: Columns) -> Rows:
    """Rows of an index file as rows of a table."""
    rows = np.empty(len(columns), ROW)
    rows["id"] = names(columns.ids)
    for field in ("pack", "offset", "stored", "zstd", "tree"):
        rows[field] = getattr(columns, field)
    return rows


def entry_bytes(rows: Rows) -> NDArray[np.int64]:
    """What each row takes in its pack: the sealed blob and its entry in the header."""
    entries = np.where(rows["zstd"] != 0, ZSTD_ENTRY_BYTES, RAW_ENTRY_BYTES)
    taken: NDArray[np.int64] = rows["stored"].astype(np.int64) + entries
    return taken


def blob_of(row: Rows) -> Blob:
    """An array of one row as a blob."""
    kind = BlobKind.TREE if row["tree"][0] else BlobKind.DATA
    return Blob(kind, row["id"].tobytes(), int(row["offset"][0]), int(row["stored"][0]), int(row["zstd"][0]))


class BlobTable:
    """Filled with ``add``, then settled; then ids are marked, and buckets looked at. One thread."""

    def __init__(self, kind: BlobKind, rows_expected: int) -> None:
        self.kind = kind
        self._bits = min(8, max(0, (rows_expected // _BUCKET_ROWS).bit_length()))
        self._raw = Buckets(ROW, 1 << self._bits)
        self._sorted = Buckets(ROW, 0)
        self.used: list[Flags] = []

    def __len__(self) -> int:
        """How many buckets."""
        return 1 << self._bits

    def add(self, rows: Rows) -> None:
        """Take rows in; the pack column still holds the number of the listing that they come from."""
        self._raw.add(rows, self._buckets(rows["id"]))

    def settle(self, pack_of_listing: NDArray[np.uint32], counts: NDArray[np.int64]) -> None:
        """Sort, and drop what a second listing of the same pack says again.

        Args:
            pack_of_listing: which pack each listing is of.
            counts: rows of each pack, to be added to.
        """
        self._sorted = Buckets(ROW, len(self))
        for number in range(len(self)):
            rows = self._raw.rows(number)
            rows["pack"] = pack_of_listing[rows["pack"]]
            rows = _without_twins(rows[np.argsort(rows["id"], kind="stable")])
            counts += np.bincount(rows["pack"], minlength=len(counts))
            self.used.append(np.zeros(len(rows), np.bool_))
            self._sorted.put(number, rows)
        self._raw = Buckets(ROW, 0)

    def rows(self, number: int) -> Rows:
        """A bucket's rows, sorted by id."""
        return self._sorted.rows(number)

    def mark(self, wanted: Names) -> tuple[Names, Names]:
        """Mark blobs as used.

        Args:
            wanted: their ids, which are sorted here, in place.

        Returns:
            Those that had no mark before, and those that are not there at all; each once.
        """
        wanted.sort()
        wanted = wanted[np.concatenate([[True], wanted[1:] != wanted[:-1]])] if len(wanted) else wanted
        fresh, missing = [wanted[:0]], [wanted[:0]]
        for number, asked in self._parted(wanted):
            rows = self.rows(number)
            at = np.searchsorted(rows["id"], asked)
            there = at < len(rows)
            there[there] = rows["id"][at[there]] == asked[there]
            used = self.used[number]
            fresh.append(asked[there][~used[at[there]]])
            missing.append(asked[~there])
            used[at[there]] = True
        return np.concatenate(fresh), np.concatenate(missing)

    def copies(self, wanted: Names) -> Iterator[Rows]:
        """The copies of each blob; ids that are not there give none."""
        for number, asked in self._parted(np.unique(wanted)):
            rows = self.rows(number)
            starts = np.searchsorted(rows["id"], asked, side="left").tolist()
            ends = np.searchsorted(rows["id"], asked, side="right").tolist()
            for start, end in zip(starts, ends, strict=True):
                yield rows[start:end].copy()

    def groups(self, rows: Rows) -> NDArray[np.intp]:
        """Where each blob's copies begin."""
        if not len(rows):
            return np.zeros(0, np.intp)
        return np.flatnonzero(np.concatenate([[True], rows["id"][1:] != rows["id"][:-1]]))

    def _parted(self, wanted: Names) -> Iterator[tuple[int, Names]]:
        """Sorted ids by bucket; buckets part them in order."""
        ends = np.cumsum(np.bincount(self._buckets(wanted), minlength=len(self))).tolist()
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                yield number, wanted[start:end]
            start = end

    def _buckets(self, ids: Names) -> NDArray[np.intp]:
        first = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 32)[:, 0]
        return (first >> (8 - self._bits)).astype(np.intp) if self._bits else np.zeros(len(ids), np.intp)


def _without_twins(rows: Rows) -> Rows:
    """Drop rows that say the same as another one; copies of a blob come out in order of pack and offset."""
    same = rows["id"][1:] == rows["id"][:-1]
    if not same.any():
        return rows
    several = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    few = rows[several]
    group = np.cumsum(np.concatenate([[True], few["id"][1:] != few["id"][:-1]]))
    few = few[np.lexsort((few["offset"], few["pack"], group))]
    rows[several] = few
    twin = np.zeros(len(rows), np.bool_)
    twin[several[1:]] = few[1:] == few[:-1]
    return rows[~twin]
