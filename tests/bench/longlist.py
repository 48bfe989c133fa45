"""Writes the content list of a huge disk, reads it back, and prints its own peak of memory at every stage, as JSON.

    python -m tests.bench.longlist DIRECTORY CHUNKS write|read [PASSWORD]

The chunks themselves are not written: their places are made up in the index, which then takes what it would take.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.ownmemory import memory_mib
from vcbproxy.clock import SystemClock
from vcbproxy.pipeline.content import Rows
from vcbproxy.repository import creation
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.indexfile import Columns
from vcbproxy.repository.keys import Kdf
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo
from vcbproxy.units import KiB

CHUNK = 512 * KiB
PASSWORD = "long list"
_STEP = 50_000


def chunk_ids(start: int, count: int) -> Ids:
    """Made-up ids, the same every time."""
    return np.random.Generator(np.random.PCG64(start)).integers(0, 256, (count, 32), np.uint8)


class Stages:
    """What memory it took, stage by stage."""

    def __init__(self) -> None:
        self._taken: dict[str, float] = {}
        self._since = time.process_time()

    def reached(self, name: str) -> None:
        """Note the peak so far, and the CPU time since the last one."""
        now = time.process_time()
        self._taken[f"{name}_peak_mib"] = memory_mib()["peak"]
        self._taken[f"{name}_cpu_s"] = round(now - self._since, 1)
        self._since = now

    def show(self) -> None:
        """Print them."""
        print(json.dumps(self._taken))


def fill_index(repository: Repository, count: int, *, keep: Rows | None = None) -> None:
    for start in range(0, count, _STEP):
        step = min(_STEP, count - start)
        ids = chunk_ids(start, step)
        if keep is not None:
            for blob_id in ids:
                keep.place(keep.append(CHUNK), blob_id.tobytes())
        offsets = np.arange(step, dtype=np.uint32) * np.uint32(1000)
        sizes = np.full(step, 1000, np.uint32), np.full(step, CHUNK, np.uint32)
        columns = Columns(ids, np.zeros(step, np.uint32), offsets, *sizes, np.zeros(step, np.bool_))
        repository.index.add_files([[(start.to_bytes(32, "big"), columns)]])


def write(directory: Path, count: int) -> None:
    stages = Stages()
    repository = creation.create(DirectoryBackend(directory), PASSWORD, kdf=Kdf(1024, 8, 1))
    stages.reached("opened")
    info = PointInfo("huge", "50000000-0000-4000-8000-000000000001", SystemClock().now())
    with RepositoryTarget(repository).begin(info) as writer:
        rows = Rows()
        fill_index(repository, count, keep=rows)
        stages.reached("index")
        disk = writer.disk("disk-0", count * CHUNK)
        disk.finish(*rows.columns())
        stages.reached("list")
        writer.commit({})
    stages.reached("committed")
    stages.show()


def read(directory: Path, count: int) -> None:
    stages = Stages()
    repository = Repository.open(DirectoryBackend(directory), PASSWORD)
    target = RepositoryTarget(repository)
    repository.indexing.load()
    fill_index(repository, count)
    stages.reached("index")
    with target.open("huge@latest") as reader:
        stages.reached("opened")
        ids, lengths = reader.disk_content("disk-0")
    stages.reached("list")
    assert len(ids) == count
    assert (lengths == CHUNK).all()
    last = (count - 1) // _STEP * _STEP
    assert np.array_equal(ids[last:], chunk_ids(last, count - last))
    stages.show()


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[3]](Path(sys.argv[1]), int(sys.argv[2]))
