"""Ten thousand VMs listed and selected: what it costs the client, in a process of its own, against a lab's vCenter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.measure import Row, best, run, table
from tests.program import ROOT, served
from vcbproxy.lab.spec import CrowdSpec, DatastoreSpec, LabSpec, Truth

pytestmark = pytest.mark.bench

VMS = 10_000
CPU_MAX_S = 3.0
ROUNDS = 2
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("share", 0),),
    vms=(),
    crowds=(CrowdSpec(VMS, "share", tags=("Backup/gold",)),),
)
CASES = {
    "all that a list shows": (),
    "by name": ("name:crowd-*7",),
    "by folder, state and datastore": ("folder:/DC0/crowd/** and powerstate:on and datastore:share",),
    "by address": ("ipaddr:10.0.1.*",),
    "by tag, less a name": ("tag:Backup/gold", "not:name:*-00000"),
}


def test_ten_thousand_vms(tmp_path: Path) -> None:
    rows = []
    with served(tmp_path / "lab", SPEC) as lab:
        for name, selectors in CASES.items():
            command = [sys.executable, "-m", "vcbproxy", "vm", "list", "--json", *selectors]
            lab.server.calls.clear()
            taken = best([run(command, {**lab.vcbproxy.environment, "PYTHONPATH": str(ROOT)}) for _ in range(ROUNDS)])
            calls = sum(lab.server.calls.values()) // ROUNDS
            rows.append(Row(name, taken, note=f"{calls} calls, {CPU_MAX_S} s of CPU allowed"))
    print(table(f"vm list, {VMS:,} VMs", rows))
    assert all(row.taken.cpu_s <= CPU_MAX_S for row in rows)
