"""Makes the index of a huge repository, opens it, asks it, and prints what each stage took, as one line of JSON.

python -m tests.bench.bigindex DIRECTORY make CHUNKS     index files of made-up chunks; no packs
python -m tests.bench.bigindex DIRECTORY add CHUNKS      one more index file
python -m tests.bench.bigindex DIRECTORY open CHUNKS     opened by the cache DIRECTORY/cache; lookups; all packs
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.ownmemory import memory_mib
from vcbproxy.repository import creation, indexfile
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.files import Files
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.keys import Kdf
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.repository import Repository
from vcbproxy.units import KiB

PASSWORD = "big index"
PER_FILE = 50_000
PER_PACK = 32
STORED_BYTES = 300 * KiB


def chunk_ids(file: int) -> Ids:
    """The made-up chunks of one index file, the same every time."""
    return np.random.Generator(np.random.PCG64(file)).integers(0, 256, (PER_FILE, 32), np.uint8)


def write_file(files: Files, number: int) -> None:
    ids = [row.tobytes() for row in chunk_ids(number)]
    packs = []
    for start in range(0, len(ids), PER_PACK):
        held = enumerate(ids[start : start + PER_PACK])
        blobs = [Blob(BlobKind.DATA, name, at * STORED_BYTES, STORED_BYTES, 512 * KiB) for at, name in held]
        packs.append(PackBlobs(bytes(reversed(ids[start])), blobs))
    files.save_sealed(FileKind.INDEX, indexfile.encode(packs))


class Stages:
    """What time and memory it took, stage by stage."""

    def __init__(self) -> None:
        self._taken: dict[str, float] = {}
        self._began()

    def reached(self, name: str, count: int = 0) -> None:
        now, cpu = time.monotonic(), time.process_time()
        self._taken[f"{name}_s"] = round(now - self._now, 2)
        self._taken[f"{name}_cpu_s"] = round(cpu - self._cpu, 2)
        if count:
            self._taken[f"{name}_per_s"] = round(count / (now - self._now))
        for field, value in memory_mib().items():
            self._taken[f"{name}_{field}_mib"] = value
        self._began()

    def show(self) -> None:
        print(json.dumps(self._taken))

    def _began(self) -> None:
        self._now, self._cpu = time.monotonic(), time.process_time()


def make(directory: Path, chunks: int) -> None:
    repository = creation.create(DirectoryBackend(directory / "repo"), PASSWORD, kdf=Kdf(1024, 8, 1))
    for number in range(chunks // PER_FILE):
        write_file(repository.files, number)


def opened(directory: Path) -> Repository:
    from vcbproxy.repository.files import unlocked

    backend = DirectoryBackend(directory / "repo")
    return Repository.of(unlocked(backend, PASSWORD), cache_root=directory / "cache")


def ask(directory: Path, chunks: int) -> None:
    stages = Stages()
    repository = opened(directory)
    repository.indexing.load()
    assert len(repository.index) == chunks
    stages.reached("open")
    last = chunks // PER_FILE - 1
    singles = [row.tobytes() for number in (0, last) for row in chunk_ids(number)[:10_000]]
    stages.reached("prepare")
    assert all(repository.index.has(BlobKind.DATA, blob_id) for blob_id in singles)
    stages.reached("has", len(singles))
    assert not any(repository.index.has(BlobKind.DATA, blob_id[::-1]) for blob_id in singles)
    stages.reached("has_not", len(singles))
    assert sum(len(pack.blobs) for pack in repository.index.packs()) == chunks
    stages.reached("packs", chunks)
    at_once = min(chunks // PER_FILE, 80)  # 4 million: a disk of 2 TiB
    ids = np.concatenate([chunk_ids(number) for number in range(at_once)])
    stages.reached("prepare_many")
    known, lengths = repository.index.find(ids, BlobKind.DATA)
    assert known.all()
    assert (lengths == 512 * KiB).all()
    stages.reached("find", len(ids))
    stages.show()


if __name__ == "__main__":
    place, action, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if action == "make":
        make(place, count)
    elif action == "add":
        write_file(opened(place).files, count // PER_FILE)
    else:
        ask(place, count)
