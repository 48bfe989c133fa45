"""Unmodified programs that know nothing but SG_IO, on a target in user space: sgshim.c is loaded into them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SOURCE = ROOT / "tests" / "tools" / "sgshim.c"
TARGET_VARIABLE = "SGSHIM_TARGET"
NEXUS_VARIABLE = "SGSHIM_NEXUS"


def compiled(folder: Path) -> Path:
    """The shim, compiled; skips where that cannot be."""
    if shutil.which("gcc") is None or not Path("/usr/include/iscsi/iscsi.h").exists():
        pytest.skip("no gcc or no libiscsi-dev here: `.ci/prepare test` installs them")
    made = folder / "sgshim.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", made, _SOURCE, "-liscsi", "-ldl"], check=True, timeout=60)
    return made


@dataclass(frozen=True, slots=True)
class Shim:
    """Programs that find a target's logical units as ``/dev/vsg/0``, ``/dev/vsg/1``, ...

    Attributes:
        library: the shim.
        target: its iSCSI URL, without a LUN.
        nexus: the number of the one way to the target that all of them take, as programs under one kernel do; without
            it each has its own.
    """

    library: Path
    target: str
    nexus: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        nexus = {NEXUS_VARIABLE: str(self.nexus)} if self.nexus is not None else {}
        return {**os.environ, "LD_PRELOAD": str(self.library), TARGET_VARIABLE: self.target, **nexus}

    def __call__(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: `.ci/prepare test` installs it")
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        return done
