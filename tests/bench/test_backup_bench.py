"""A full backup and a restore of a guest disk, against stock programs in the same run on the same machine.

    make bench

Two rounds, interleaved, the best of each counts: whatever else runs on the machine hits all of them alike.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import image, measure
from tests.bench.measure import Row, Taken

ROUNDS = 2
RSS_MAX_BYTES = 512 << 20
OURS = [sys.executable, "-m", "tests.bench.driver"]


def restic_program() -> Path:
    """The newest at hand: one that was named, one that was fetched, Debian's."""
    if named := os.environ.get("VCBPROXY_RESTIC"):
        return Path(named)
    fetched = (image.cache().parent / "tools").glob("restic*/**/restic")
    if programs := sorted(path for path in fetched if path.is_file()):
        return programs[-1]
    found = shutil.which("restic")
    if found is None:
        pytest.skip("restic is not installed")
    return Path(found)


def version(restic: Path) -> str:
    said = subprocess.run([restic, "version"], check=True, capture_output=True, text=True).stdout
    return " ".join(said.split()[:2])


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = image.cache() / "scratch"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    yield path
    shutil.rmtree(path)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_full_backup_and_restore(scratch: Path) -> None:
    zstd = shutil.which("zstd")
    if zstd is None:
        pytest.skip("zstd is not installed")
    restic = restic_program()
    disk = image.guest_disk()
    env = {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(scratch / "cache")}
    restic_name = version(restic)
    taken: dict[str, list[Taken]] = {}
    sizes: dict[str, int] = {}

    def run(name: str, *command: str | Path) -> None:
        taken.setdefault(name, []).append(measure.run(command, env))

    measure.run(["cat", disk])  # all read it from memory
    for _ in range(ROUNDS):
        ours, theirs, back = scratch / "ours", scratch / "theirs", scratch / "back.img"

        measure.run([*OURS, "init", ours], env)
        run("vcbproxy backup", *OURS, "backup", ours, disk)
        run("vcbproxy verify", *OURS, "verify", ours)
        run("vcbproxy restore", *OURS, "restore", ours, back)
        assert filecmp.cmp(back, disk, shallow=False), "what was restored is not what was backed up"
        sizes["vcbproxy"] = size_of(ours)
        shutil.rmtree(ours)
        back.unlink()

        measure.run([restic, "init", "-q", "-r", theirs], env)
        run(f"{restic_name} backup", restic, "backup", "-q", "-r", theirs, "--compression", "auto", disk)
        run(
            f"{restic_name} restore",
            restic,
            "restore",
            "-q",
            "-r",
            theirs,
            "latest",
            "--target",
            scratch / "theirs-back",
        )
        sizes["restic"] = size_of(theirs)
        shutil.rmtree(theirs)
        shutil.rmtree(scratch / "theirs-back")

        run("zstd -1 -T2", zstd, "-q", "-f", "-1", "-T2", disk, "-o", scratch / "disk.zst")

    least = {name: measure.best(runs) for name, runs in taken.items()}
    backup, rival = least["vcbproxy backup"], least[f"{restic_name} backup"]
    rows = [
        Row("zstd -1 -T2", least["zstd -1 -T2"]),
        Row(f"{restic_name} backup", rival, note=f"{sizes['restic'] / 2**20:.0f} MiB stored"),
        Row("vcbproxy backup", backup, f"{restic_name} backup", f"(0.40×), {sizes['vcbproxy'] / 2**20:.0f} MiB stored"),
        Row(f"{restic_name} restore", least[f"{restic_name} restore"]),
        Row("vcbproxy restore", least["vcbproxy restore"], f"{restic_name} restore", "(1.00×)"),
        Row("vcbproxy verify", least["vcbproxy verify"]),
    ]
    print(measure.table("4 GiB guest disk, 2.6 GiB of it in use", rows))
    over_zstd = backup.wall_s / least["zstd -1 -T2"].wall_s
    print(f"vcbproxy backup takes {over_zstd:.2f}× the wall time of zstd -1 -T2 (1.50×)")
    assert backup.rss_bytes <= RSS_MAX_BYTES
    assert least["vcbproxy restore"].rss_bytes <= RSS_MAX_BYTES
    assert backup.wall_s <= 0.4 * rival.wall_s
    assert least["vcbproxy restore"].wall_s <= least[f"{restic_name} restore"].wall_s
