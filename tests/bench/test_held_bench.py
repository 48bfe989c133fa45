"""How long a VM stays frozen, by the clock of the manager: the read, and no more than two seconds.

Every snapshot grows with each write of its guest, and its removal stuns the VM the longer the larger it is.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.jobs.meddling import Meddler, backed_up
from tests.program import served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

BESIDES_S = 2.0
DISKS = 3


@pytest.mark.bench
def test_it_is_held_no_longer_than_the_read_and_two_seconds(tmp_path: Path) -> None:
    """From the end of the creation to the request for the removal; reading is from a disk's open to its last byte."""
    disks = tuple(DiskSpec(256 * MiB, content=ContentSpec(used=0.7)) for _ in range(DISKS))
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=2 * GiB, scatter=True),),
        vms=(VmSpec("vm1", "ds1", disks=disks),),
        truth=Truth.NONE,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.vcbproxy("repo", "init")
        meddler = Meddler()
        begun = time.time()
        result = backed_up(lab, meddler)
        assert result.error is None
        times = {name: (start, end) for name, start, end in lab.server.tasks_done() if start >= begun}
    held_s = times["vm.Snapshot.remove"][0] - times["VirtualMachine.createSnapshot"][1]
    read_s = sum(end - start for start, end in meddler.read_s)
    print(f"\nheld {held_s:.2f} s for a read of {read_s:.2f} s of {DISKS} disks")
    assert held_s <= read_s + BESIDES_S
