"""Runs: immutable columns of an index, sorted by id; how they are searched and merged.

    key u64 │ rest of id 24 │ pack u32 │ offset u32 │ stored u32 │ zstd u32 │ tree bool        49 bytes a blob

``key`` is the id's first eight bytes as a number. Different ids may share it, the same id may stand in several rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import Columns
from vcbproxy.repository.pack import Blob

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

    def columns(self, rows: NDArray[np.int64]) -> Columns:
        """Some rows, with their ids put together again."""
        key = self.key[rows].astype(">u8").view(np.uint8).reshape(-1, 8)
        ids = np.concatenate([key, self.rest[rows]], axis=1)
        return Columns(ids, self.pack[rows], self.offset[rows], self.stored[rows], self.zstd[rows], self.tree[rows])

    def without(self, packs: NDArray[np.uint32]) -> Run:
        """The same but for what lies in some packs."""
        keep = ~np.isin(self.pack, packs)
        if keep.all():
            return self
        return Run(*(getattr(self, field.name)[keep] for field in fields(self)))

    def find(self, keys: NDArray[np.uint64], rest: NDArray[np.uint8], tree: bool) -> NDArray[np.int64]:
        """For many ids at once: a row each, or -1."""
        rows = np.searchsorted(self.key, keys).astype(np.int64)
        found = np.full(len(keys), -1, np.int64)
        asked = np.flatnonzero(rows < len(self.key))
        # One round for almost all; further ones only for ids that share their first eight bytes with others.
        while len(asked):
            at = rows[asked]
            same_key = self.key[at] == keys[asked]
            asked, at = asked[same_key], at[same_key]
            match = (self.rest[at] == rest[asked]).all(axis=1) & (self.tree[at] == tree)
            found[asked[match]] = at[match]
            asked = asked[~match]
            rows[asked] += 1
            asked = asked[rows[asked] < len(self.key)]
        return found


def keys_of(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first eight bytes of each id as a number."""
    return np.ascontiguousarray(ids[:, :8]).view(">u8").ravel().astype(np.uint64)


def sorted_run(columns: list[Columns]) -> Run:
    """Sort; column by column, so that only one is held twice at a time."""
    key = np.concatenate([keys_of(part.ids) for part in columns])
    order = np.argsort(key, kind="stable")
    return Run(
        key[order],
        np.concatenate([part.ids[:, 8:] for part in columns])[order],
        np.concatenate([part.pack for part in columns])[order],
        np.concatenate([part.offset for part in columns])[order],
        np.concatenate([part.stored for part in columns])[order],
        np.concatenate([part.zstd for part in columns])[order],
        np.concatenate([part.tree for part in columns])[order],
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


def hold_alike(pack_id: bytes, one: Columns, other: Columns) -> None:
    """See that two index files say the same of a pack.

    Raises:
        IntegrityError: they do not.
    """
    left, right = (columns.take(np.argsort(columns.offset, kind="stable")) for columns in (one, other))
    alike = (
        np.array_equal(left.ids, right.ids)
        and np.array_equal(left.offset, right.offset)
        and np.array_equal(left.stored, right.stored)
        and np.array_equal(left.zstd, right.zstd)
        and np.array_equal(left.tree, right.tree)
    )
    if not alike:
        raise IntegrityError(
            f"two index files list different blobs for pack {pack_id.hex()}; run `restic rebuild-index`"
        )


def concatenated(parts: list[Columns]) -> Columns:
    """Columns one below the other."""
    return Columns(
        ids=np.concatenate([part.ids for part in parts]),
        pack=np.concatenate([part.pack for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        stored=np.concatenate([part.stored for part in parts]),
        zstd=np.concatenate([part.zstd for part in parts]),
        tree=np.concatenate([part.tree for part in parts]),
    )
