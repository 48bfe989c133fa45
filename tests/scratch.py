"""Where the tests of one run write: a folder of the run's own, in memory where that can be, gone with the run.

    /tmp/vcbproxy-tests-k3x9/
        lock                              held for as long as the run lives
        tmp/                              a tmpfs, if we may mount one; open to others: PostgreSQL is one
            pytest-of-root/pytest-0/…     pytest's own folders
            vcbproxy-pg-…, vcsim-…        all that asks for a temporary file, our program included

On disk, half of a run is waiting for flushes: the power cuts of tapes take 57 s on ext4 and 22 s in memory. What only a
disk has (direct I/O that heeds alignment) is proved by tests that take the fixture ``disk_path``; benchmarks and
guests are on disk, too. /dev/shm will not do: what lies below /dev is a device to our program.

A run that fails leaves its folder for an hour, to be looked at. One that was killed loses it, with the loop devices and
mounts in there, to the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from vcbproxy.units import GiB

DISK = Path("/var/tmp")
_PREFIX = "vcbproxy-tests-"
_SIZE_BYTES = 6 * GiB
_ROOM_BYTES = 4 * GiB
"""A run of three workers holds some 2 GiB at its height, and `make` starts no more than five."""
_KEPT_S = 3600.0


class Folder:
    """A new folder, ours as long as we live; what others left that are dead is removed first."""

    def __init__(self, parent: Path, *, in_memory: bool = False) -> None:
        for other in parent.glob(f"{_PREFIX}*"):
            _sweep(other)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = (self._folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = self._folder / "tmp"
        self.path.mkdir()
        self._folder.chmod(0o755)
        if in_memory:
            _mount(self.path)

    def close(self, *, keep: bool = False) -> None:
        """Remove it, or leave it to be looked at."""
        if keep:
            (self._folder / "kept").touch()
        else:
            _remove(self._folder)
        self._lock.close()


class Scratch:
    """The folder for all temporary files of this process and its children.

    Attributes:
        failed: whether something is to be looked at afterwards.
    """

    def __init__(self, *, in_memory: bool) -> None:
        self.failed = False
        self._before = os.environ.get("TMPDIR")
        memory = in_memory and self._before is None  # whoever names a place wants that
        self._folder = Folder(Path(tempfile.gettempdir()), in_memory=memory)
        _use(str(self._folder.path))

    def close(self) -> None:
        _use(self._before)
        self._folder.close(keep=self.failed)


def _use(directory: str | None) -> None:
    if directory is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = directory
    tempfile.tempdir = None  # Python looks once, and remembers


def _mount(at: Path) -> None:
    """Memory, if we may, if there is room, and if it takes direct I/O, as since Linux 6.6; else all stays on disk."""
    if os.geteuid() != 0 or psutil.virtual_memory().available < _ROOM_BYTES:
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES},mode=755", "vcbproxy-tests", str(at)]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        return
    with tempfile.NamedTemporaryFile(dir=at) as file:
        try:
            os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
            return
        except OSError:
            pass
    subprocess.run(["umount", str(at)], check=True)


def _sweep(folder: Path) -> None:
    try:
        lock = (folder / "lock").open()
    except OSError:  # just being made, or another user's
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        kept = folder / "kept"
        if not kept.exists() or kept.stat().st_mtime < time.time() - _KEPT_S:
            _remove(folder)


def _remove(folder: Path) -> None:
    """With all that holds it: a test that was killed has detached nothing."""
    quiet = subprocess.DEVNULL
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        if backing.read_text().startswith(f"{folder}/"):
            subprocess.run(["losetup", "--detach", f"/dev/{backing.parts[3]}"], check=False, stderr=quiet)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        at = line.split(" ")[1]
        if at.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", at], check=False, stderr=quiet)
    shutil.rmtree(folder, ignore_errors=True)
