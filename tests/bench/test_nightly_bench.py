"""The second night, as a user runs it: login, snapshot, changed areas, audit, a repository in a directory, clean-up.

    make bench

A lab's VM with a thin disk of 64 GiB on VMFS-6, on it a guest's 4 GiB. First 256 MiB of it change, in 64 places; then
nothing does. Against it, in the same run and the same way: a VM whose disk is those 256 MiB, backed up in full.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import image, measure
from tests.bench.measure import Row, Taken
from tests.bench.test_incremental_bench import CHANGED_BYTES, DISK_BYTES, overwritten
from tests.program import Lab, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB

pytestmark = pytest.mark.bench

WALL_MAX = 1.5
UNCHANGED_MAX_S = 3.0
NODE = "scsi0-0"
VM, ALONE = "large", "alone"


@pytest.fixture
def folder() -> Iterator[Path]:
    path = image.cache() / "nightly"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def lab(folder: Path) -> Iterator[Lab]:
    guest = ContentSpec(Fill.IMAGE, image=str(image.guest_disk()))
    disks = {VM: DiskSpec(DISK_BYTES, content=guest), ALONE: DiskSpec(CHANGED_BYTES, content=ContentSpec(used=0))}
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=80 * GiB),),
        vms=tuple(VmSpec(name, "ds1", disks=(disk,), change_tracking=True) for name, disk in disks.items()),
        truth=Truth.NONE,
    )
    with served(folder / "lab", spec) as lab:
        yield lab


def backup(lab: Lab, vm: str) -> Taken:
    return measure.run([sys.executable, "-m", "vcbproxy", "backup", vm], lab.vcbproxy.environment)


def test_the_second_night(lab: Lab) -> None:
    lab.vcbproxy("repo", "init")
    first = backup(lab, VM)
    position = 0
    for at, new in overwritten(image.guest_disk(), 0).items():
        lab.datacenter.machine(VM).guest_write(NODE, at, new)
        lab.datacenter.machine(ALONE).guest_write(NODE, position, new)
        position += len(new)
    changed = backup(lab, VM)
    (shown,) = lab.vcbproxy("points", "show", f"{VM}@latest", "--json").json["disks"]
    assert shown["method"] == "incremental"
    unchanged = measure.best([backup(lab, VM) for _ in range(3)])
    shutil.rmtree(lab.repo)
    lab.vcbproxy("repo", "init")
    alone = backup(lab, ALONE)
    rows = [
        Row("256 MiB alone, in full", alone),
        Row("64 GiB, 256 MiB changed", changed, "256 MiB alone, in full"),
        Row("64 GiB, nothing changed", unchanged),
        Row("64 GiB, the first time", first),
    ]
    print(measure.table("the second night", rows))
    assert changed.wall_s <= WALL_MAX * alone.wall_s
    assert unchanged.wall_s <= UNCHANGED_MAX_S
