"""Stock restic as a test sees it: every version at hand, each command run to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def programs() -> list[str]:
    """The one in PATH, those fetched by ``tests/tools/fetch_restic.sh``, and the one named by VCBPROXY_RESTIC."""
    fetched = sorted((_ROOT / ".cache" / "tools").glob("restic*/usr/bin/restic"))
    found = [shutil.which("restic"), *map(str, fetched), os.environ.get("VCBPROXY_RESTIC")]
    return list(dict.fromkeys(path for path in found if path))


def version_of(program: str) -> tuple[int, ...]:
    words = subprocess.run([program, "version"], check=True, capture_output=True, text=True).stdout.split()
    return tuple(int(part) for part in words[1].split("-")[0].split(".")[:2])


@dataclass(frozen=True)
class Restic:
    """One program on one repository."""

    program: str
    repository: Path | str
    password: str
    scratch: Path

    @property
    def version(self) -> tuple[int, ...]:
        return version_of(self.program)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            **{name: value for name, value in os.environ.items() if name.startswith("AWS_")},
            "HOME": str(self.scratch),
            "TMPDIR": str(self.scratch),
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": self.password,
            "RESTIC_CACHE_DIR": str(self.scratch / "cache"),
            "RESTIC_FROM_PASSWORD": self.password,
            "GOMAXPROCS": "2",
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command, whatever it ends with."""
        (self.scratch / "cache").mkdir(exist_ok=True)
        return subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, timeout=120, check=False
        )

    def __call__(self, *arguments: str) -> bytes:
        """Run a command that must succeed; gives its output."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"restic {' '.join(arguments)}: {done.stderr.decode()[-2000:]}"
        return done.stdout
