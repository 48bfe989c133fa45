"""A VM that did not change since its last backup: the whole run of the program, from the command to its exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.measure import Row, best, run, table
from tests.program import ROOT, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB

pytestmark = pytest.mark.bench

WALL_MAX_S = 3.0
ROUNDS = 3
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=2 * GiB),),
    vms=(VmSpec("vm1", "ds1", disks=(DiskSpec(64 * GiB, content=ContentSpec(used=0.005)),), change_tracking=True),),
)


def test_a_vm_that_did_not_change(tmp_path: Path) -> None:
    """One second of it is the pause before the second look at a frozen disk (decision 4)."""
    with served(tmp_path / "lab", SPEC) as lab:
        environment = {**lab.vcbproxy.environment, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "vcbproxy", "backup", "vm1"]
        lab.vcbproxy("repo", "init")
        first = run(command, environment)
        taken = best([run([*command, "--mode", "incremental"], environment) for _ in range(ROUNDS)])
    rows = [Row("all of 64 GiB, sparse", first), Row("unchanged", taken, note=f"{WALL_MAX_S} s of wall allowed")]
    print(table("backup of a VM that did not change", rows))
    assert taken.wall_s <= WALL_MAX_S
