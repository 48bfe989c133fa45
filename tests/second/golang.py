"""Programs in Go over Debian's govmomi, compiled once: other people's vCenter, and other people's client.

`python -m tests.second.golang` compiles all of them ahead of the tests; a test that finds them missing does so itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
_CACHE = _HERE.parent.parent / ".cache" / "second"
_GOPATH = Path("/usr/share/gocode")
_GOVMOMI = _GOPATH / "src/github.com/vmware/govmomi"
PROGRAMS = ("vcsim", "govclient")
_BUILD_TIMEOUT_S = 250


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    if shutil.which("go") is None:
        return "no Go: apt-get install --no-install-recommends golang-go golang-github-vmware-govmomi-dev"
    if not (_GOVMOMI / "simulator").is_dir():
        return "no govmomi: apt-get install --no-install-recommends golang-github-vmware-govmomi-dev"
    return None


def program(name: str) -> Path:
    """A program of ours in Go; compiled if its sources, or the compiler, are not those of the last time. Or skip."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return compiled(name)


def sources(*names: str) -> list[Path]:
    """The sources of some programs, or of all."""
    return [source for name in names or PROGRAMS for source in sorted((_HERE / name).glob("*.go"))]


def compiled(name: str) -> Path:
    found = sources(name)
    known = hashlib.sha256(_version().encode())
    for source in found:
        known.update(source.name.encode() + b"\0" + source.read_bytes())
    binary = _CACHE / f"{name}-{known.hexdigest()[:16]}"
    with _alone():
        if not binary.exists():
            _compile(found, binary)
    return binary


def _compile(found: list[Path], binary: Path) -> None:
    fresh = binary.with_suffix(".new")
    environment = {
        **os.environ,
        "GO111MODULE": "off",  # Debian's way: sources below GOPATH, nothing is downloaded
        "GOPATH": str(_GOPATH),
        "GOCACHE": str(_CACHE / "build"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    done = subprocess.run(
        ["go", "build", "-o", str(fresh), *map(str, found)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fresh.rename(binary)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One compiles, whoever comes meanwhile waits for it."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _version() -> str:
    done = subprocess.run(["go", "version"], capture_output=True, text=True, check=True)
    return done.stdout + str((_GOVMOMI / "simulator").stat().st_mtime)


if __name__ == "__main__":
    why_not = missing()
    print(why_not or "\n".join(str(compiled(name)) for name in PROGRAMS if (_HERE / name).is_dir()))
