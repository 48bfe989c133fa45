"""The promises of a tape drive, kept by SCSI commands on the emulated drive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.sequential import SequentialDrive
from tests.contract.drive import CAPACITY_MIB, PROMISES


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_drive_keeps_its_promises(promise: Callable[[SequentialDrive], None], tmp_path: Path) -> None:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=CAPACITY_MIB)))
    drive = TapeDrive(LoopTransport(lun))
    drive.load()
    promise(drive)
