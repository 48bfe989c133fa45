"""An LTFS volume by itself: how fast it takes and gives bytes, and what an index of many files costs.

    make bench

On an emulated drive whose cartridge lies in memory. The ring holds 256 MiB: all else that a process keeps is small.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import measure
from tests.bench.measure import Row

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

MIB = 1024
MB_S_MIN = 400.0
FILES = 200_000
FILES_S_MAX = 60.0
RSS_MAX_BYTES = 512 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


def run(*arguments: str | Path) -> measure.Taken:
    return measure.run([sys.executable, "-m", "tests.bench.ltfswork", *arguments], os.environ)


def test_a_stream_onto_tape_and_back(folder: Path) -> None:
    wrote = run("write", folder / "BEN001L8", str(MIB))
    read = run("read", folder / "BEN001L8")
    rates = {"write": MIB * 1.048576 / wrote.wall_s, "read": MIB * 1.048576 / read.wall_s}
    rows = [Row(name, taken, note=f"{rates[name]:.0f} MB/s") for name, taken in (("write", wrote), ("read", read))]
    print(measure.table(f"{MIB} MiB, one file", rows))
    assert min(rates.values()) >= MB_S_MIN
    assert wrote.rss_bytes <= RSS_MAX_BYTES
    assert read.rss_bytes <= RSS_MAX_BYTES // 2


def test_an_index_of_many_files(folder: Path) -> None:
    taken = run("many", folder / "BEN002L8", str(FILES))
    print(measure.table(f"{FILES} files: made, committed to both partitions, mounted", [Row("index", taken)]))
    assert taken.wall_s <= FILES_S_MAX
    assert taken.rss_bytes <= RSS_MAX_BYTES
