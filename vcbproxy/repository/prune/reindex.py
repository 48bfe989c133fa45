"""Index files without the packs that go: written anew only where they mention one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository import indexfile
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import BLOBS_PER_FILE_MAX, Columns, PackBlobs
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune.plan import Fate
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.repository import Repository


def outdated(found: Survey, fates: NDArray[np.uint8]) -> list[str]:
    """The index files that mention a pack which goes."""
    gone = fates[found.listing_pack] != Fate.KEEP
    numbers = np.unique(found.listing_file[gone]).tolist()
    return [found.index_files[number] for number in numbers if number < len(found.index_files)]  # extra ones have none


def rewrite(
    repository: Repository,
    held: HeldLock,
    found: Survey,
    fates: NDArray[np.uint8],
    files: list[str],
    progress: Progress,
) -> None:
    """Store what stays of these index files in new ones. The old ones are left for the caller to remove.

    Raises:
        IntegrityError: an index file is damaged.
        TargetError: one could not be read or written; or the lock was lost.
    """
    waiting: list[PackBlobs] = []
    blobs = 0
    for pack in _staying(repository, found, fates, files, progress):
        if waiting and blobs + len(pack.blobs) > BLOBS_PER_FILE_MAX:
            held.check()
            repository.files.save_sealed(FileKind.INDEX, indexfile.encode(waiting))
            waiting, blobs = [], 0
        waiting.append(pack)
        blobs += len(pack.blobs)
    if waiting:
        held.check()
        repository.files.save_sealed(FileKind.INDEX, indexfile.encode(waiting))


def _staying(
    repository: Repository, found: Survey, fates: NDArray[np.uint8], files: list[str], progress: Progress
) -> Iterator[PackBlobs]:
    """Each pack once, though several files list it; none that a file which stays lists."""
    going = set(files)
    stays = np.array([stem not in going for stem in found.index_files], np.bool_)
    listed = np.zeros(len(found.packs), np.bool_)
    listed[found.listing_pack[stays[found.listing_file]]] = True
    for number, stem in enumerate(files):
        progress("new index", number, len(files))
        name = FileName(FileKind.INDEX, stem)
        plain = repository.files.load_sealed(name)
        for pack_id, columns in indexfile.decode(plain, f"{repository.location}: {name.path}"):
            pack = found.packs.number(pack_id)
            if pack is not None and fates[pack] == Fate.KEEP and not listed[pack]:
                listed[pack] = True
                yield PackBlobs(pack_id, blobs_of(columns))
    progress("new index", len(files), len(files))


def blobs_of(columns: Columns) -> list[Blob]:
    """Rows of an index file as values, in the order in which they lie in the pack."""
    return [
        Blob(
            BlobKind.TREE if columns.tree[row] else BlobKind.DATA,
            columns.ids[row].tobytes(),
            int(columns.offset[row]),
            int(columns.stored[row]),
            int(columns.zstd[row]),
        )
        for row in np.argsort(columns.offset, kind="stable").tolist()
    ]
