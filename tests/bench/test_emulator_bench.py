"""The emulated drive: how fast it takes and gives records of 512 KiB, by a call and over iSCSI.

What is written through it must wait for the source, not for the emulator: more than any bench above it wants.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.drive import TapeDrive
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.scsi.iscsi import IscsiTransport
from tape.sequential import Position
from tests.tape.libraries import served

RECORD_BYTES, RECORDS = 512 << 10, 2000
MB = 10**6

pytestmark = pytest.mark.bench


@pytest.fixture
def library(tmp_path: Path) -> Iterator[VirtualLibrary]:
    """On tmpfs where there is one: the disk is not what is measured."""
    in_memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=in_memory if os.access(in_memory, os.W_OK) else tmp_path))
    made = VirtualLibrary.create(folder / "library", barcodes=["TAP001L8"], kind=Kind(capacity_mib=4096))
    made.drives[0].insert(made.cartridge("TAP001L8"))
    yield made
    shutil.rmtree(folder)


def speed(drive: TapeDrive, what: str) -> tuple[float, float]:
    """Written and read, in MB/s."""
    drive.load()
    drive.locate(Position(0, 0))
    record = memoryview(bytearray(os.urandom(RECORD_BYTES)))
    rates = []
    for act in (drive.write, drive.read):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(RECORDS):
            act(record)
        drive.flush()
        taken_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        rates.append(RECORDS * RECORD_BYTES / MB / taken_s)
        print(f"{what} {act.__name__}: {rates[-1]:.0f} MB/s, {RECORDS * RECORD_BYTES / MB / cpu_s:.0f} MB a CPU second")
        drive.rewind()
    return rates[0], rates[1]


def test_by_a_call(library: VirtualLibrary) -> None:
    written, read = speed(TapeDrive(library.drive_transport(0)), "by a call")
    assert written >= 800
    assert read >= 1200


def test_over_iscsi(library: VirtualLibrary) -> None:
    with served(library) as made:
        drive = TapeDrive(IscsiTransport(made.target.url(1)))
        written, read = speed(drive, "over iSCSI")
        drive.close()
    assert written >= 300
    assert read >= 400
