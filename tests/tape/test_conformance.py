"""libiscsi's own conformance tests of a target (iscsi-test-cu), on ours with a disk behind it: they want one.

Left out: residuals of writes (a tape refuses a write of another length than it was told), and what only disks do.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tape.emulator.iscsi.target import IscsiTarget
from tests.tape.disklun import DiskLun

SUITES = {
    "iSCSI.iSCSITMF": 17,
    "iSCSI.iSCSIResiduals.Read10Invalid": 10,
    "iSCSI.iSCSIResiduals.Read10Residuals": 10,
    "iSCSI.iSCSIResiduals.Read16Residuals": 10,
    "SCSI.TestUnitReady": 1,
    "SCSI.PrinReadKeys": 6,
    "SCSI.PrinReportCapabilities": 10,
    "SCSI.ProutRegister": 5,
    "SCSI.ProutClear": 12,
    "SCSI.ProutPreempt": 15,
}


@pytest.mark.real
@pytest.mark.parametrize("suite", SUITES)
def test_libiscsi_is_content_with_the_target(suite: str) -> None:
    if shutil.which("iscsi-test-cu") is None:
        pytest.skip("no iscsi-test-cu here (Debian: libiscsi-bin): `.ci/prepare test` installs it")
    with IscsiTarget([DiskLun()], "iqn.2026-01.example:disk") as target:
        command = ["iscsi-test-cu", "--dataloss", "--test", suite, target.url(0)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"asserts\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", done.stdout)
    assert found is not None, done.stdout
    total, _, passed, failed = map(int, found.groups())
    assert (passed, failed) == (total, 0), done.stdout
    assert total >= SUITES[suite], "it asked for less than it used to"
