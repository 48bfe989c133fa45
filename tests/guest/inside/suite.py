"""What a suite is: steps, done in order, each told to the host as one line of JSON when it ends.

The first step that fails ends the suite: what comes after stands on it.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

StepFunction = Callable[[], dict[str, Any]]


def run_steps(steps: Iterable[StepFunction], results: Path) -> int:
    """Do the steps; the exit code of the suite."""
    for step in steps:
        name = step.__name__
        say(f"{name}: begins")
        began = time.monotonic()
        facts: dict[str, Any] = {}
        problem = ""
        try:
            facts = step()
        except Exception:  # noqa: BLE001  # whatever it is, the host must hear of it
            problem = traceback.format_exc()
        row = {"name": name, "seconds": round(time.monotonic() - began, 2), "facts": facts, "problem": problem}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        say(f"{name}: {'FAILED' if problem else 'ok'} after {row['seconds']} s")
        if problem:
            say(problem)
            return 1
    return 0


def say(text: str) -> None:
    """To the console, with the seconds since the guest's kernel started."""
    uptime = Path("/proc/uptime").read_text().split()[0]
    os.write(1, f"[{float(uptime):7.2f}] {text}\n".encode())  # not print: a command's stdout may be caught just now
