"""Discovery of 256 LUNs: real loop devices, each with a VMFS volume and an identity that udev tells.

    make bench

The whole command, start of the interpreter included: list the block devices, open each LUN once, read its headers, say
what is on it. Beside it, `lsblk` lists the same devices and reads nothing of them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import image, measure
from tests.program import Program
from tests.san import loops
from vcbproxy.lab.vmfs import LabVolume, VolumeSpec
from vcbproxy.units import MiB

pytestmark = [pytest.mark.bench, pytest.mark.root]

LUNS = 256
CPU_MAX_S = 1.0
ROUNDS = 3


@pytest.fixture
def folder() -> Iterator[Path]:
    path = image.cache() / "luns"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


def test_discovery(folder: Path) -> None:
    loops.need_root("lsblk")
    (folder / "vcbproxy.toml").write_text("[san]\ndiscover = true\n")
    program = Program(folder / "vcbproxy.toml")
    with contextlib.ExitStack() as stack:
        stack.enter_context(loops.udev_rules(loops.identity_rules(folder)))
        names = []
        for number in range(LUNS):
            path, name = folder / f"lun{number}.img", f"600144f0feed000000000000{number:08x}"
            spec = VolumeSpec(6, f"volume{number}", seed=number, size_bytes=256 * MiB, wwns=(name,))
            LabVolume.create([path], spec).close()
            loops.identify(path, name, f"LUN-{number}")
            stack.enter_context(loops.attached(path))
            names.append(f"naa.{name}")
        loops.settle()
        listed = {row["wwn"]: row["volume"] for row in program("lun", "list", "--json").json}
        assert [listed.get(name) for name in names] == [f"volume{number}" for number in range(LUNS)]
        command = [sys.executable, "-m", "vcbproxy", "lun", "list", "--json"]
        ours = measure.best([measure.run(command, program.environment) for _ in range(ROUNDS)])
        lsblk = measure.best([measure.run(["lsblk", "-J", "-O"], program.environment) for _ in range(ROUNDS)])
    rows = [
        measure.Row("vcbproxy lun list", ours, note=f"{LUNS} LUNs with a volume each"),
        measure.Row("lsblk -O", lsblk),
    ]
    print(measure.table(f"Discovery of {LUNS} LUNs", rows))
    assert ours.cpu_s <= CPU_MAX_S
