"""Ctrl-C and SIGTERM in the middle of a backup to tape: nothing is left but what was safe before."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.archive.tapes import disks_in, spec
from tests.archive.test_archive_cli import lab_with_tape
from tests.program import Lab, stopped_by
from vcbproxy.units import MiB

_PATIENCE_S = 60.0


def frozen(lab: Lab, vm: str) -> bool:
    """Wait for its snapshot."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        if lab.snapshots(vm):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("drives", [1, 2])
def test_an_interrupted_backup_leaves_what_was_safe(
    tmp_path: Path, number: signal.Signals, code: int, drives: int
) -> None:
    with lab_with_tape(tmp_path, spec("vm1", "vm2", size_bytes=64 * MiB, disks=1), capacity="512M") as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        truth = lab.truth("vm1")
        process = lab.vcbproxy.start("backup", "vm2", "vm1", "--to", "tape:daily", "--drives", drives)
        assert frozen(lab, "vm2")
        done = stopped_by(process, number)
        assert done.code == code, done.err
        assert lab.snapshots("vm1") == lab.snapshots("vm2") == [], done.err
        lab.new_repository()
        [point] = lab.vcbproxy("points", "list", "--json").json
        lab.vcbproxy("restore", point["point_id"], "--from", "tape", "--to", tmp_path / "back")
        assert disks_in(tmp_path / "back") == truth
        lab.vcbproxy("backup", "vm2", "--to", "tape:daily")
        lab.vcbproxy("restore", "vm2@latest", "--from", "tape", "--to", tmp_path / "vm2")
        assert disks_in(tmp_path / "vm2") == lab.truth("vm2")
