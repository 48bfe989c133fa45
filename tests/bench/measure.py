"""Runs a program and says what it took; and shows what many took, as a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCH = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process took; its peak of memory in ``rss_bytes``."""

    wall_s: float
    cpu_s: float
    rss_bytes: int


def run(command: Sequence[str | Path], env: Mapping[str, str]) -> Taken:
    """Run it to its end, everything written before being on disk; fail if it fails."""
    os.sync()
    done = subprocess.run([*_LAUNCH, *command], env=dict(env), stdout=subprocess.PIPE, check=True)
    return Taken(**json.loads(done.stdout))


def best(runs: Sequence[Taken]) -> Taken:
    """The least of each: what else happens on a machine only ever adds."""
    return Taken(min(t.wall_s for t in runs), min(t.cpu_s for t in runs), max(t.rss_bytes for t in runs))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; ratios are to the row named ``against``."""

    name: str
    taken: Taken
    against: str = ""
    note: str = ""


def table(title: str, rows: Sequence[Row]) -> str:
    """The table."""
    taken = {row.name: row.taken for row in rows}
    lines = [f"\n{title}", f"{'':34}{'wall s':>8}{'CPU s':>8}{'RSS MiB':>9}   ratios"]
    for row in rows:
        line = f"{row.name:34}{row.taken.wall_s:8.1f}{row.taken.cpu_s:8.1f}{row.taken.rss_bytes / 2**20:9.0f}   "
        if row.against:
            other = taken[row.against]
            wall, cpu = row.taken.wall_s / other.wall_s, row.taken.cpu_s / other.cpu_s
            line += f"wall {wall:.2f}, CPU {cpu:.2f} of {row.against}; "
        lines.append(f"{line}{row.note}".rstrip(" ;"))
    return "\n".join(lines)
