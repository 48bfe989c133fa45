"""A guest disk as they are found: 4 GiB of ext4, about two thirds of it full of programs, libraries and documents.

Made of this machine's own /usr, with mkfs.ext4 alone and without root, once; kept in ``.cache/bench``.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

SIZE_BYTES = 4 << 30
FULL_BYTES = 2_650_000_000
_FILE_BYTES_MAX = 64 << 20


def cache() -> Path:
    """Where the bench keeps what it needs again."""
    path = Path(__file__).parents[2] / ".cache" / "bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def guest_disk() -> Path:
    """The image; made if it is not there."""
    path = cache() / "guest.img"
    if not path.exists():
        staging, unfinished = cache() / "staging", cache() / "guest.img.partial"
        shutil.rmtree(staging, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        try:
            _fill(staging)
            _format(staging, unfinished)
            unfinished.replace(path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return path


def _fill(staging: Path) -> None:
    """Copy /usr; if that is too little, copy it once more with every file's bytes reversed: no duplicates that way."""
    total = 0
    for lap in range(16):
        for source in files_below(Path("/usr")):
            target = staging / f"lap{lap}" / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            content = source.read_bytes()
            target.write_bytes(_turned(content, lap))
            total += -(-len(content) // 4096) * 4096
            if total >= FULL_BYTES:
                return
    raise RuntimeError("/usr is too small to make a guest disk of")


def _turned(content: bytes, lap: int) -> bytes:
    turned = content[lap // 2 * 37 % 4096 :] + content[: lap // 2 * 37 % 4096]
    return turned[::-1] if lap % 2 else turned


def files_below(root: Path) -> Iterator[Path]:
    """The usual files below a directory, always in one order; neither empty nor huge."""
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= _FILE_BYTES_MAX:
                yield path


def _format(staging: Path, image: Path) -> None:
    with image.open("wb") as out:
        out.truncate(SIZE_BYTES)
    options = ["-q", "-F", "-m", "0", "-N", "262144", "-L", "guest", "-U", "5ea1ab1e-0000-4000-8000-000000000001"]
    subprocess.run(["mkfs.ext4", *options, "-d", staging, image], check=True)
