"""The smallest suite: a machine of its own, with the host's files, unwritable, and drivers; then a step that fails."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tests.guest.inside.suite import StepFunction


def steps(out: Path) -> list[StepFunction]:
    def kernel() -> dict[str, Any]:
        return {"release": platform.release(), "pid_of_parent": os.getppid()}

    def files() -> dict[str, Any]:
        tree = Path(__file__).resolve().parents[3]
        (tree / "written-in-the-guest").write_text("stays here")
        (out / "kept.txt").write_text("goes to the host")
        return {"tree": str(tree)}

    def drivers() -> dict[str, Any]:
        drivers = ("iscsi_tcp", "dm_multipath", "sg", "st", "ch", "nfs", "nfsd", "veth")
        subprocess.run(["modprobe", "--all", *drivers], check=True)
        return {"loaded": sorted(path.name for path in Path("/sys/module").iterdir())}

    def broken() -> dict[str, Any]:
        raise ValueError("as it was meant to")

    def never() -> dict[str, Any]:
        raise AssertionError("a step after one that failed")

    return [kernel, files, drivers, broken, never]
