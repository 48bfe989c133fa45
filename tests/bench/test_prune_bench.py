"""Prune: its memory on a repository of millions of blobs, and its time beside stock restic's on the same repository.

make bench                                        VCBPROXY_BENCH_BLOBS=20000000 for the largest
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.bench import image, measure
from tests.bench.measure import Row
from tests.bench.prunelist import PER_FILE
from tests.bench.test_backup_bench import newest_restic, size_of, version
from vcbproxy.clock import SystemClock
from vcbproxy.repository import creation
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo
from vcbproxy.units import KiB, MiB

PRUNE_MAX_MIB = 300
CHECK_MAX_MIB = 450  # of it, a million rows of the index are held before the others go to a file
BLOBS = int(os.environ.get("VCBPROXY_BENCH_BLOBS", "3200000")) // PER_FILE * PER_FILE
CHUNK = 128 * KiB
CHUNKS = 4000
NIGHTS = 6
ROUNDS = 3


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = image.cache() / "prune"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_repository(scratch: Path) -> None:
    taken: dict[str, float] = {}
    for step in ("write", "check", "prune"):
        command = [sys.executable, "-m", "tests.bench.prunelist", str(scratch / "repository"), str(BLOBS), step]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(scratch)}
        )
        taken |= json.loads(done.stdout or "{}")
    print(f"\ncheck and prune of {BLOBS:,} blobs: {taken}; wanted: at most {PRUNE_MAX_MIB} MiB")
    assert taken["pruned_peak_mib"] <= PRUNE_MAX_MIB
    assert taken["checked_peak_mib"] <= CHECK_MAX_MIB


def chunk(number: int) -> bytes:
    """Half of it compresses."""
    return np.random.default_rng(number).bytes(CHUNK // 2) + bytes([number % 251]) * (CHUNK // 2)


def make(place: Path) -> None:
    """Six nights, a quarter of the disk changed each time; three of them forgotten."""
    repository = creation.create(DirectoryBackend(place), "bench")
    target = RepositoryTarget(repository)
    numbers = np.arange(CHUNKS)
    chance = np.random.default_rng(1)
    for night in range(NIGHTS):
        info = PointInfo("web01", "50-web01", SystemClock().now(), tags=(f"night{night}",))
        with target.begin(info) as writer:
            disk = writer.disk("scsi0-0", CHUNKS * CHUNK)
            packer = disk.packer()
            ids = b"".join(packer.add(BlobKind.DATA, chunk(number)) for number in numbers.tolist())
            disk.finish(np.frombuffer(ids, np.uint8).reshape(-1, 32), np.full(CHUNKS, CHUNK, np.uint32))
            point = writer.commit({})
        if night % 2 == 0:
            repository.backend.remove(FileName(FileKind.SNAPSHOT, point.id))
        changed = chance.choice(CHUNKS, CHUNKS // 4, replace=False)
        numbers[changed] = (night + 1) * CHUNKS + changed


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_prune_beside_restics(scratch: Path) -> None:
    restic = newest_restic()
    make(scratch / "made")
    env = {
        **os.environ,
        "RESTIC_PASSWORD": "bench",
        "RESTIC_CACHE_DIR": str(scratch / "cache"),
        "VCBPROXY_PASSWORD_COMMAND": "echo bench",
    }
    place = scratch / "repository"
    ours = [sys.executable, "-m", "vcbproxy", "repo", "prune", "--max-unused", "0", "--repo", place]
    theirs = [restic, "prune", "-q", "--max-unused", "0", "-r", place]
    names = ("vcbproxy repo prune", f"{version(restic)} prune")
    taken: dict[str, list[measure.Taken]] = {name: [] for name in names}
    stored = {"before": size_of(scratch / "made")}
    for _ in range(ROUNDS):
        for name, command in zip(names, (ours, theirs), strict=True):
            shutil.copytree(scratch / "made", place)
            taken[name].append(measure.run(command, env))
            subprocess.run([restic, "check", "-q", "-r", place], check=True, env=env)
            stored[name] = size_of(place)
            shutil.rmtree(place)
    rows = [Row(names[1], measure.best(taken[names[1]]), note=f"{stored[names[1]] / MiB:.0f} MiB left")]
    rows += [Row(names[0], measure.best(taken[names[0]]), names[1], f"{stored[names[0]] / MiB:.0f} MiB left")]
    print(measure.table(f"prune of {stored['before'] / MiB:.0f} MiB, all that is unused", rows))
    assert measure.best(taken[names[0]]).wall_s <= measure.best(taken[names[1]]).wall_s
