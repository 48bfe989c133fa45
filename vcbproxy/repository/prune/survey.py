"""What there is: every index file read once, every pack listed once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexfile
from vcbproxy.repository.backend.base import FileKind, FileName, Heat, Stored
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import Columns, PackBlobs
from vcbproxy.repository.pack import header_size
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune.buckets import Rows
from vcbproxy.repository.prune.table import ID, BlobTable, Names, entry_bytes, rows_of
from vcbproxy.repository.repository import Repository

_STORED_BYTES_PER_ROW = 40  # of a sealed index file; only to choose the number of buckets
_EMPTY_PACK_BYTES = header_size(())
_ABSENT = -1


@dataclass(slots=True)
class Packs:
    """All packs that the index lists, as columns, sorted by id.

    Attributes:
        ids: their names.
        blobs: how many copies of blobs lie in each.
        trees: how many of these are trees.
        indexed_bytes: how long each must be.
        real_bytes: how long each is; -1 where it is missing.
    """

    ids: Names
    blobs: NDArray[np.int64]
    trees: NDArray[np.int64]
    indexed_bytes: NDArray[np.int64]
    real_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def hex(self, number: int) -> str:
        """A pack's name."""
        return self.ids[number : number + 1].tobytes().hex()

    def name(self, number: int) -> FileName:
        """A pack's file."""
        return FileName(FileKind.PACK, self.hex(number), Heat.COLD)  # read once, if at all: not for a local copy

    def number(self, pack_id: bytes) -> int | None:
        """Which one it is; None when the index does not list it."""
        wanted = np.frombuffer(pack_id, ID)
        at = int(np.searchsorted(self.ids, wanted)[0])
        return at if at < len(self.ids) and (self.ids[at : at + 1] == wanted).all() else None


@dataclass(slots=True)
class Survey:
    """Everything a prune decides on.

    Attributes:
        packs: what the index lists.
        data: the data blobs.
        trees: the trees.
        index_files: names of the index files.
        listing_file: for each listing of a pack, in which index file it stands.
        listing_pack: ... and of which pack it is.
        strays: packs that no index file lists.
    """

    packs: Packs
    data: BlobTable
    trees: BlobTable
    index_files: list[str]
    listing_file: NDArray[np.uint32]
    listing_pack: NDArray[np.uint32]
    strays: list[Stored] = field(default_factory=list)

    @property
    def tables(self) -> tuple[BlobTable, BlobTable]:
        """Both tables."""
        return self.trees, self.data


def survey(repository: Repository, progress: Progress, extra: Sequence[PackBlobs] = ()) -> Survey:
    """Read the index, list the packs.

    Args:
        repository: an open one, locked.
        progress: told how far it is.
        extra: packs to be taken as if the index listed them, for a dry run.

    Raises:
        IntegrityError: an index file is damaged, or two list different blobs for one pack.
        TargetError: something could not be read.
    """
    files = sorted(repository.backend.list(FileKind.INDEX), key=lambda stored: stored.name.stem)
    expected = sum(stored.size_bytes for stored in files) // _STORED_BYTES_PER_ROW
    reader = _Reader(expected)
    for number, stored in enumerate(files):
        progress("index", number, len(files))
        plain = repository.files.load_sealed(stored.name)
        reader.take(number, indexfile.decode(plain, f"{repository.location}: {stored.name.path}"))
    reader.take(len(files), [(pack.pack_id, _columns(pack)) for pack in extra])
    progress("index", len(files), len(files))
    found = reader.finish([stored.name.stem for stored in files])
    found.strays = _list_packs(repository.backend.list(FileKind.PACK), found.packs)
    return found


def _columns(pack: PackBlobs) -> Columns:
    return Columns(
        ids=np.frombuffer(b"".join(blob.blob_id for blob in pack.blobs), np.uint8).reshape(-1, 32),
        pack=np.zeros(len(pack.blobs), np.uint32),
        offset=np.array([blob.offset for blob in pack.blobs], np.uint32),
        stored=np.array([blob.stored_bytes for blob in pack.blobs], np.uint32),
        zstd=np.array([blob.zstd_bytes for blob in pack.blobs], np.uint32),
        tree=np.array([blob.kind is BlobKind.TREE for blob in pack.blobs], np.bool_),
    )


class _Reader:
    def __init__(self, rows_expected: int) -> None:
        self._trees = BlobTable(BlobKind.TREE, rows_expected // 64)
        self._data = BlobTable(BlobKind.DATA, rows_expected)
        self._pack_ids = bytearray()
        self._files, self._counts, self._tree_counts, self._sizes = (array("q") for _ in range(4))

    def take(self, file: int, listed: Sequence[tuple[bytes, Columns]]) -> None:
        """The packs of one index file."""
        parts: list[Rows] = []
        for pack_id, columns in listed:
            if not len(columns):
                continue
            rows = rows_of(columns)
            rows["pack"] = len(self._files)
            parts.append(rows)
            self._pack_ids += pack_id
            self._files.append(file)
            self._counts.append(len(rows))
            self._tree_counts.append(int(np.count_nonzero(rows["tree"])))
            self._sizes.append(_EMPTY_PACK_BYTES + int(entry_bytes(rows).sum()))
        if not parts:
            return
        rows = np.concatenate(parts)
        trees = rows["tree"] != 0
        self._data.add(rows[~trees])
        self._trees.add(rows[trees])

    def finish(self, index_files: list[str]) -> Survey:
        listed = np.frombuffer(bytes(self._pack_ids), ID)
        ids, first, pack = np.unique(listed, return_index=True, return_inverse=True)
        packs_of: NDArray[np.uint32] = pack.astype(np.uint32)
        counts = np.array(self._counts, np.int64)
        rows = np.zeros(len(ids), np.int64)
        for table in (self._trees, self._data):
            table.settle(packs_of, rows)
        wrong = np.flatnonzero(rows[packs_of] != counts)
        if len(wrong):
            raise IntegrityError(
                f"the index lists different blobs for pack {listed[wrong[:1]].tobytes().hex()} in different places; "
                "run `restic repair index`"
            )
        packs = Packs(
            ids=ids,
            blobs=counts[first],
            trees=np.array(self._tree_counts, np.int64)[first],
            indexed_bytes=np.array(self._sizes, np.int64)[first],
            real_bytes=np.full(len(ids), _ABSENT, np.int64),
        )
        return Survey(packs, self._data, self._trees, index_files, np.array(self._files, np.uint32), packs_of)


def _list_packs(listed: Iterable[Stored], packs: Packs) -> list[Stored]:
    """Note how long each pack is; gives those that the index does not know."""
    strays: list[Stored] = []
    batch: list[Stored] = []
    for stored in listed:
        batch.append(stored)
        if len(batch) == _LISTED_AT_ONCE:
            strays += _note_sizes(batch, packs)
            batch = []
    return sorted(strays + _note_sizes(batch, packs), key=lambda stored: stored.name.stem)


def _note_sizes(batch: list[Stored], packs: Packs) -> list[Stored]:
    wanted = np.frombuffer(bytes.fromhex("".join(stored.name.stem for stored in batch)), ID)
    at = np.searchsorted(packs.ids, wanted)
    known = at < len(packs)
    known[known] = packs.ids[at[known]] == wanted[known]
    packs.real_bytes[at[known]] = np.array([stored.size_bytes for stored in batch], np.int64)[known]
    return [batch[number] for number in np.flatnonzero(~known).tolist()]


_LISTED_AT_ONCE = 1 << 14
