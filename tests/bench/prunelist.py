"""Makes a repository of millions of blobs without their packs, checks and prunes it; prints memory and time as JSON.

    python -m tests.bench.prunelist DIRECTORY BLOBS write|check|prune

Three quarters of the blobs are needed by some disks; the index files are real, the packs are made up in the listing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.longlist import CHUNK, PASSWORD, Stages, chunk_ids
from vcbproxy.clock import SystemClock
from vcbproxy.repository import creation, indexfile
from vcbproxy.repository.backend.base import FileKind, FileName, Stored
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import unlocked
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.keys import Kdf
from vcbproxy.repository.pack import Blob, header_size
from vcbproxy.repository.prune.options import PruneOptions, Unused
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo

STORED = 250_000
PER_PACK = 64
PER_FILE = 32_000
DISK_CHUNKS = 500_000  # 250 GiB of data


def pack_name(number: int) -> bytes:
    return chunk_ids(1 << 40 | number, 1)[0].tobytes()


def blobs_of(ids: np.ndarray) -> list[Blob]:
    return [Blob(BlobKind.DATA, row.tobytes(), at * STORED, STORED, CHUNK) for at, row in enumerate(ids)]


def listed(start: int) -> list[PackBlobs]:
    """The packs of one index file."""
    ids = chunk_ids(start, PER_FILE)
    return [
        PackBlobs(pack_name((start + at) // PER_PACK), blobs_of(ids[at : at + PER_PACK]))
        for at in range(0, PER_FILE, PER_PACK)
    ]


class MadeUp(DirectoryBackend):
    """Lists packs that are not there beside those that are."""

    def __init__(self, directory: Path, packs: int) -> None:
        super().__init__(directory)
        self._packs = packs

    def list(self, kind: FileKind) -> Iterator[Stored]:
        yield from super().list(kind)
        if kind is FileKind.PACK:
            size = PER_PACK * STORED + header_size(blobs_of(chunk_ids(0, PER_PACK)))
            for number in range(self._packs):
                yield Stored(FileName(kind, pack_name(number).hex()), size)


def write(directory: Path, count: int) -> None:
    creation.create(DirectoryBackend(directory), PASSWORD, kdf=Kdf(1024, 8, 1))
    repository = Repository.open(MadeUp(directory, count // PER_PACK), PASSWORD)
    starts = range(0, count, PER_FILE)
    for start in starts:
        repository.files.save_sealed(FileKind.INDEX, indexfile.encode(listed(start)))
    used = np.concatenate([chunk_ids(start, PER_FILE) for start in starts])[: count * 3 // 4]
    repository.indexing.load()
    info = PointInfo("huge", "50000000-0000-4000-8000-000000000001", SystemClock().now())
    with RepositoryTarget(repository).begin(info) as writer:
        for at in range(0, len(used), DISK_CHUNKS):
            ids = used[at : at + DISK_CHUNKS]
            disk = writer.disk(f"disk-{at // DISK_CHUNKS}", len(ids) * CHUNK)
            disk.finish(ids, np.full(len(ids), CHUNK, np.uint32))
        writer.commit({})


def run(directory: Path, count: int) -> None:
    stages = Stages()
    repository = Repository.open(MadeUp(directory, count // PER_PACK), PASSWORD)
    stages.reached("opened")
    with repository.locked(exclusive=True) as held:
        for dry_run in (True, False):
            options = PruneOptions(Unused.parse("unlimited"), dry_run=dry_run)
            outcome = prune(repository, held, options)
            assert outcome.packs_removed >= count // 4 // PER_PACK - 1
            assert outcome.used_blobs >= count * 3 // 4
            stages.reached("planned" if dry_run else "pruned")
    stages.show()


def run_check(directory: Path, count: int) -> None:
    stages = Stages()
    files = unlocked(MadeUp(directory, count // PER_PACK), PASSWORD)
    repository = Repository.of(files, cache_root=directory.with_name("cache"))
    stages.reached("opened")
    report = check(repository)
    assert report.problems == []
    assert report.blobs > count
    stages.reached("checked")
    stages.show()


if __name__ == "__main__":
    {"write": write, "prune": run, "check": run_check}[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
