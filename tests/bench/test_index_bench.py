"""The index of a repository of 20 million chunks (10 TB): made, opened, added to, asked.

Each stage is a process of its own, so that each says its own peak. ``VCBPROXY_BENCH_CHUNKS`` sets another number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.bigindex import PER_FILE

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
CHUNKS = int(os.environ.get("VCBPROXY_BENCH_CHUNKS", "20000000"))
RESIDENT_MIB_MAX = 300
OPEN_S_MAX = 5
BUILD_CPU_S_MAX = 120


def run(directory: Path, action: str, chunks: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.bigindex", str(directory), action, str(chunks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout) if done.stdout else {}


def line(name: str, taken: dict[str, float], stage: str) -> str:
    rate = f"{taken[f'{stage}_per_s']:>12,.0f} a second" if f"{stage}_per_s" in taken else ""
    memory = f"{taken[f'{stage}_peak_mib']:8.0f}{taken[f'{stage}_anon_mib']:8.0f}{taken[f'{stage}_file_mib']:8.0f}"
    return f"{name:34}{taken[f'{stage}_s']:8.1f}{taken[f'{stage}_cpu_s']:8.1f}{memory}{rate}"


def test_twenty_million_chunks(tmp_path: Path) -> None:
    run(tmp_path, "make", CHUNKS)
    built = run(tmp_path, "open", CHUNKS)
    opened = run(tmp_path, "open", CHUNKS)
    run(tmp_path, "add", CHUNKS)
    added = run(tmp_path, "open", CHUNKS + PER_FILE)
    files = [path.stat().st_size for path in (tmp_path / "cache").glob("*/index/*.run")]
    print(
        f"\nThe index of {CHUNKS:,} chunks; {len(files)} runs, {sum(files) / 2**20:.0f} MiB\n"
        f"{'':34}{'wall s':>8}{'CPU s':>8}{'peak':>8}{'anon':>8}{'file':>8} MiB",
        line("made of all index files", built, "open"),
        line("opened", opened, "open"),
        line("opened, one index file more", added, "open"),
        line("one by one, there", opened, "has"),
        line("one by one, not there", opened, "has_not"),
        line("all packs with their blobs", opened, "packs"),
        line("many at once", opened, "find"),
        "(before the last two lines the bench itself takes 32 bytes for each chunk it asks for)",
        sep="\n",
    )
    assert opened["open_s"] <= OPEN_S_MAX
    assert built["open_cpu_s"] <= BUILD_CPU_S_MAX
    for taken in (built, opened, added):
        assert taken["open_peak_mib"] <= RESIDENT_MIB_MAX
    assert opened["packs_peak_mib"] <= RESIDENT_MIB_MAX
