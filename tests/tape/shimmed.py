"""The contract of tape devices over SG_IO: run by test_transports.py, in a process into which the shim is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.scsi.sg import SgTransport
from tape.scsi.transport import ScsiTransport
from tests.contract.tape import TapeBench, TapeContract
from tests.tape.libraries import served, small_library
from tests.tape.shim import TARGET_VARIABLE


class SgBench(TapeBench):
    def open(self, lun: int) -> ScsiTransport:
        return SgTransport(f"/dev/vsg/{lun}")


class TestSgIo(TapeContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[TapeBench]:
        with served(small_library(tmp_path / "library")) as made:
            os.environ[TARGET_VARIABLE] = made.target.url(0).rpartition("/")[0]
            bench = SgBench(made.library)
            yield bench
            bench.close()
