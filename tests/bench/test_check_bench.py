"""The preflight of ten thousand VMs: what it costs, in a process of its own, against a lab's vCenter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.measure import Row, best, run, table
from tests.bench.test_inventory_bench import VMS
from tests.program import ROOT, served
from vcbproxy.lab.spec import CrowdSpec, DatastoreSpec, LabSpec, Truth, VmSpec

pytestmark = pytest.mark.bench

CPU_MAX_S = 15.0
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("ds1", 6),),
    vms=(VmSpec("vm1", "ds1"),),
    crowds=(CrowdSpec(VMS, "ds1"),),
)


def test_ten_thousand_vms_are_checked(tmp_path: Path) -> None:
    with served(tmp_path / "lab", SPEC) as lab:
        lab.vcbproxy("repo", "init")
        lab.server.calls.clear()
        command = [sys.executable, "-m", "vcbproxy", "check", "--json"]
        taken = best([run(command, {**lab.vcbproxy.environment, "PYTHONPATH": str(ROOT)})])
        calls = sum(lab.server.calls.values())
    print(table("check", [Row(f"{VMS:,} VMs", taken, note=f"{calls} calls, {CPU_MAX_S:.0f} s of CPU allowed")]))
    assert taken.cpu_s <= CPU_MAX_S
