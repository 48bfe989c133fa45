"""What the content list of a large disk takes while it is written and read, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHUNKS = 400_000  # 200 GiB of data; 27 MB of JSON, 13 MB of ids, 14 MB sealed


def peaks(directory: Path, verb: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.longlist", directory, str(CHUNKS), verb]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    taken: dict[str, float] = json.loads(done.stdout)
    return taken


def test_long_lists_are_never_held_as_text(tmp_path: Path) -> None:
    """As text, and once more compressed and sealed, writing took 60 MiB more than the index, and reading 44."""
    written = peaks(tmp_path / "repository", "write")
    assert written["committed_peak_mib"] - written["index_peak_mib"] < 35
    read = peaks(tmp_path / "repository", "read")
    assert read["list_peak_mib"] - read["index_peak_mib"] < 38
