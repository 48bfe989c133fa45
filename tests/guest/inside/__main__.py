"""Runs one suite, inside the guest: ``python -m tests.guest.inside SUITE OUT``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from tests.guest.inside.suite import run_steps

if __name__ == "__main__":
    name, out = sys.argv[1], Path(sys.argv[2])
    suite = importlib.import_module(f"tests.guest.inside.{name}")
    code = run_steps(suite.steps(out), out / "results.jsonl")
    os._exit(code)  # whatever threads a suite that failed has left
