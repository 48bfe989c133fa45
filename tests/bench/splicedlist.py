"""An incremental of a disk with millions of chunks, of which next to nothing changed; prints what each stage took.

    python -m tests.bench.splicedlist DIRECTORY make CHUNKS        a repository with a restore point of such a disk
    python -m tests.bench.splicedlist DIRECTORY splice CHUNKS      one more, by the cache DIRECTORY/cache

The chunks are made up: their packs are files without content. The index and the lists are what they would be.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.ownmemory import memory_mib
from vcbproxy.clock import SystemClock
from vcbproxy.device import check_range
from vcbproxy.extent import Extent, Kind
from vcbproxy.pipeline.areas import Areas
from vcbproxy.pipeline.base import Base
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import Rows
from vcbproxy.pipeline.incremental import copy_changes
from vcbproxy.repository import creation, indexfile, pack
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.files import unlocked
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.keys import Kdf
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo
from vcbproxy.units import KiB, MiB

CHUNK = 512 * KiB
PASSWORD = "spliced list"
PER_PACK = 50_000
_STORED_BYTES = 1000


def chunk_ids(number: int) -> Ids:
    """The made-up chunks of one pack, the same every time."""
    return np.random.Generator(np.random.PCG64(number)).integers(0, 256, (PER_PACK, 32), np.uint8)


class Vast:
    """A disk of data that nobody could tell from what the list says, unless by reading it."""

    name = "vast"

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size_bytes, Kind.DATA)

    def read_into(self, offset: int, buf: memoryview) -> None:
        check_range(self, offset, len(buf))
        words = np.arange(offset // 8, (offset + len(buf)) // 8, dtype=np.uint64)
        np.frombuffer(buf, np.uint64)[:] = words * np.uint64(0x9E3779B97F4A7C15)


def write_pack(repository: Repository, root: Path, number: int, rows: Rows) -> None:
    ids = chunk_ids(number)
    rows.extend(ids, np.full(PER_PACK, CHUNK, np.uint32))
    blobs = [Blob(BlobKind.DATA, row.tobytes(), at * _STORED_BYTES, _STORED_BYTES, CHUNK) for at, row in enumerate(ids)]
    name = bytes(reversed(blobs[0].blob_id))
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode([PackBlobs(name, blobs)]))
    path = root / FileName(FileKind.PACK, name.hex()).path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(PER_PACK * _STORED_BYTES + pack.header_size(blobs))


def info() -> PointInfo:
    return PointInfo("huge", "50000000-0000-4000-8000-000000000001", SystemClock().now())


def make(directory: Path, count: int) -> None:
    root = directory / "repo"
    repository = creation.create(DirectoryBackend(root), PASSWORD, kdf=Kdf(1024, 8, 1))
    rows = Rows()
    for number in range(count // PER_PACK):
        write_pack(repository, root, number, rows)
    with RepositoryTarget(opened(directory)).begin(info()) as writer:
        writer.disk("disk-0", count * CHUNK).finish(*rows.columns())
        writer.commit({})


def opened(directory: Path) -> Repository:
    files = unlocked(DirectoryBackend(directory / "repo"), PASSWORD)
    return Repository.of(files, cache_root=directory / "cache")


class Stages:
    """CPU seconds and the peak of memory, stage by stage."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self._since = time.process_time()

    def reached(self, name: str) -> None:
        now = time.process_time()
        self.taken[f"{name}_cpu_s"] = round(now - self._since, 2)
        self.taken["peak_mib"] = memory_mib()["peak"]
        self._since = now


def splice(directory: Path, count: int) -> None:
    repository = opened(directory)
    target = RepositoryTarget(repository)
    source = Vast(count * CHUNK)
    rule = Rule(repository.config.polynomial_hex.encode())
    changed = Areas.of([(time.time_ns() % source.size_bytes, 1)], source.size_bytes)
    stages = Stages()
    with target.begin(info()) as writer, target.open("huge@latest") as older:
        stages.reached("open")
        base = Base.of(older.vouched("disk-0"))
        stages.reached("load")
        disk = writer.disk("disk-0", source.size_bytes)
        copied = copy_changes(source, base, changed, disk, rule)
        stages.reached("splice")
        disk.finish(copied.ids, copied.lengths, copied.taken_over)
        stages.reached("store")
        writer.commit({})
    stages.reached("commit")
    assert copied.stats.bytes_read < 8 * MiB
    assert len(copied.lengths) >= count - 10
    print(json.dumps(stages.taken))


if __name__ == "__main__":
    {"make": make, "splice": splice}[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
