"""Backup to tape and restore from it as a user runs them: login, snapshot, LUN, library, catalog and all.

    make bench

The lab, its LUN, the library's folder and the restored file are in memory. What is wanted of the streams themselves is
held by test_archive_bench.py; here it is memory that is held, and the program as a whole is shown: what it takes for a
tiny disk (start, login, snapshot, loading, mounting), and what a large one adds.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from pathlib import Path

import pytest

from tests.archive.test_archive_cli import lab_with_tape
from tests.bench import measure, twotoone
from tests.bench.measure import Row
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

RSS_MAX_BYTES = 512 * MiB
TINY = 16 * MiB


def test_backup_to_tape_and_back() -> None:
    with twotoone.memory_folder() as name:
        folder = Path(name)
        large, small = folder / "large.raw", folder / "small.raw"
        with large.open("wb") as out:
            for step in twotoone.steps():
                out.write(step)
        small.write_bytes(large.read_bytes()[:TINY])
        disks = {"large": large, "small": small}
        spec = LabSpec(
            datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=3 * GiB),),
            vms=tuple(
                VmSpec(
                    vm, "ds1", disks=(DiskSpec(raw.stat().st_size, content=ContentSpec(Fill.IMAGE, image=str(raw))),)
                )
                for vm, raw in disks.items()
            ),
            truth=Truth.NONE,
        )
        rows = []
        with lab_with_tape(folder, spec, cartridges=1, capacity="6G") as lab:
            for vm in ("small", "large"):
                for what, arguments in (
                    ("backup", (vm, "--to", "tape:daily", "--compression", "fastest")),
                    ("restore", (f"{vm}@latest", "--from", "tape", "--to", folder / f"back-{vm}")),
                ):
                    command = [sys.executable, "-m", "vcbproxy", what, *map(str, arguments)]
                    rows.append(Row(f"{what} {vm}", measure.run(command, lab.vcbproxy.environment)))
            back = folder / "back-large" / "scsi0-0.raw"
            assert filecmp.cmp(large, back, shallow=False), "what came back is another disk"
            back.unlink()
        rows += zstd(large, folder)
        print(measure.table("1.5 GiB that compress 2:1, as a user runs it", rows))
        taken = {row.name: row.taken.wall_s for row in rows}
        for what, rival in (("backup", "zstd -1 -T2"), ("restore", "zstd -d")):
            wall_s = taken[f"{what} large"]
            speed, ratio = twotoone.SIZE_BYTES / wall_s / 1e6, taken[rival] / wall_s
            print(f"{what}: {speed:.0f} MB/s of the disk with all that comes before and after; {ratio:.2f} of {rival}")
        assert max(row.taken.rss_bytes for row in rows) <= RSS_MAX_BYTES


def zstd(raw: Path, folder: Path) -> list[Row]:
    """The stock program, on the same disk."""
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("zstd is not installed")
    packed, back = folder / "disk.zst", folder / "back.raw"
    commands = {"zstd -1 -T2": ["-q", "-1", "-T2", raw, "-o", packed], "zstd -d": ["-q", "-d", packed, "-o", back]}
    return [Row(name, measure.run([program, *arguments], {})) for name, arguments in commands.items()]
