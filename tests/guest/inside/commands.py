"""Programs of the guest, called from a suite."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def call(*command: object) -> str:
    """What the program printed.

    Raises:
        AssertionError: it failed; with all that it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 20) -> float:
    """Seconds until the condition held.

    Raises:
        AssertionError: it did not in time.
    """
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + timeout_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)
    return round(time.monotonic() - began, 2)
