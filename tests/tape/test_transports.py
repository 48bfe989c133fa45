"""Every way to tape devices keeps one contract: a call, iSCSI, and SG_IO."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.emulator.loop import LoopTransport
from tape.scsi.iscsi import IscsiTransport
from tape.scsi.transport import ScsiTransport
from tests.contract.tape import TapeBench, TapeContract
from tests.tape.libraries import Served, served, small_library
from tests.tape.shim import ROOT, TARGET_VARIABLE


class LoopBench(TapeBench):
    def open(self, lun: int) -> ScsiTransport:
        return LoopTransport(self.library.luns[lun])


class IscsiBench(TapeBench):
    def __init__(self, made: Served) -> None:
        super().__init__(made.library)
        self._target = made.target

    def open(self, lun: int) -> ScsiTransport:
        return IscsiTransport(self._target.url(lun))


class TestLoop(TapeContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> TapeBench:
        return LoopBench(small_library(tmp_path / "library"))


class TestIscsi(TapeContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[TapeBench]:
        with served(small_library(tmp_path / "library")) as made:
            bench = IscsiBench(made)
            yield bench
            bench.close()


@pytest.mark.real
def test_sg_io_keeps_it_too(sgshim: Path, tmp_path: Path) -> None:
    """The same contract, in a process of its own that has SG_IO by the shim."""
    path = ROOT / "tests" / "tape" / "shimmed.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'there'}", path]
    environment = {**os.environ, "LD_PRELOAD": str(sgshim), TARGET_VARIABLE: "set by each test"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout
