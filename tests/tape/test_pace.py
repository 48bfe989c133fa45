"""How long things take: by a clock that the test holds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tape.drive import TapeDrive
from tape.emulator import pace
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.emulator.loop import LoopTransport
from tape.emulator.pace import LTO8, LTO9, Pace, Timing
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import NotReady
from tape.sequential import Position
from tests.tape.libraries import small_library

MB = 10**6


class HeldClock:
    """Goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


def drive_with(clock: HeldClock, timing: Timing, folder: Path, capacity_mib: int = 100) -> tuple[DriveLun, TapeDrive]:
    lun = DriveLun("VDRV0001", pace=Pace(timing, clock))
    lun.insert(Cartridge.create(folder / "TAP001L8", Kind(capacity_mib=capacity_mib)))
    return lun, TapeDrive(LoopTransport(lun), sleep=clock.sleep, monotonic=clock.monotonic)


def test_a_cartridge_becomes_ready(clock: HeldClock, tmp_path: Path) -> None:
    _, drive = drive_with(clock, LTO8, tmp_path)
    waited: list[str] = []
    start_s = clock.now_s
    drive.wait_ready(waiting=lambda error: waited.append(f"{error.asc:02x}/{error.ascq:02x}"))
    assert set(waited) == {"04/01"}
    assert clock.now_s - start_s == pytest.approx(15, abs=1)


def test_a_new_cartridge_is_calibrated_once(clock: HeldClock, tmp_path: Path) -> None:
    _, drive = drive_with(clock, LTO9, tmp_path)
    with pytest.raises(NotReady):
        drive.wait_ready(timeout_s=60)
    start_s = clock.now_s
    drive.load()
    assert clock.now_s - start_s == pytest.approx(LTO9.first_load_s - 60, abs=2)


def test_a_seek_takes_as_long_as_the_tape_is_long_and_not_as_the_numbers_are_apart() -> None:
    clock = HeldClock()
    timing = Timing(seek_s_min=3, pass_s=100, wraps=4)
    whole = 400 * pace.RECORD_BYTES  # four wraps of a hundred blocks
    taken = Pace(timing, clock)

    def seek_s(start: int, end: int) -> float:
        before = clock.now_s
        taken.seek(start, end, whole)
        return clock.now_s - before

    assert seek_s(0, 100) == pytest.approx(103)
    assert seek_s(0, 200) == pytest.approx(3), "at the beginning again, two wraps on"
    assert seek_s(50, 150) == pytest.approx(3), "side by side"
    assert seek_s(7, 7) == 0


def test_the_tape_takes_no_more_than_it_can(clock: HeldClock, tmp_path: Path) -> None:
    timing = Timing(bytes_per_s=10 * MB, buffer_bytes=5 * MB, backhitch_s=3)
    lun, drive = drive_with(clock, timing, tmp_path)
    drive.load()
    drive.locate(Position(0, 0))
    start_s = clock.now_s
    for _ in range(20):
        drive.write(bytes(MB))
    assert clock.now_s - start_s == pytest.approx(1.5), "all but what the buffer holds"
    drive.flush()
    assert clock.now_s - start_s == pytest.approx(2.0)
    assert lun.pace.stops == 0


def test_a_drive_that_starves_stops_goes_back_and_counts_it(clock: HeldClock, tmp_path: Path) -> None:
    timing = Timing(bytes_per_s=10 * MB, buffer_bytes=5 * MB, backhitch_s=3)
    lun, drive = drive_with(clock, timing, tmp_path)
    drive.load()
    drive.locate(Position(0, 0))
    start_s = clock.now_s
    for _ in range(3):
        drive.write(bytes(MB))
        clock.sleep(5.0)
    drive.flush()
    assert lun.pace.stops == 2
    assert clock.now_s - start_s == pytest.approx(15.0), "what the drive loses is hidden by how slow the source is"
    drive.write(bytes(MB))
    clock.sleep(1.0)
    drive.write(bytes(MB))  # starved; while it goes back it takes what its buffer holds, and no more
    before_s = clock.now_s
    for _ in range(4):
        drive.write(bytes(MB))
    assert clock.now_s == before_s
    drive.write(bytes(MB))
    assert clock.now_s - before_s == pytest.approx(3 + 0.1)


def test_unloading_takes_its_time_and_waits_for_the_buffer(clock: HeldClock, tmp_path: Path) -> None:
    timing = replace(LTO8, bytes_per_s=10.0 * MB)
    _, drive = drive_with(clock, timing, tmp_path)
    drive.load()
    drive.locate(Position(0, 0))
    start_s = clock.now_s
    for _ in range(20):
        drive.write(bytes(MB))
    drive.unload()
    assert clock.now_s - start_s == pytest.approx(2 + 24)


def test_a_robot_takes_its_time(clock: HeldClock, tmp_path: Path) -> None:
    folder = small_library(tmp_path / "library").folder
    library = VirtualLibrary.open(folder, timing=LTO8, clock=clock)
    before_s = clock.now_s
    library.robot.carry(SLOTS, DRIVES)
    assert clock.now_s - before_s == LTO8.move_s
    assert not library.drives[0].pace.ready


def test_a_cleaning_cartridge_is_kept_until_it_is_done(clock: HeldClock, tmp_path: Path) -> None:
    lun = DriveLun("VDRV0001", pace=Pace(LTO8, clock))
    lun.alerts = {20}
    lun.insert(Cartridge.create(tmp_path / "CLN001L8"))
    with closing(TapeDrive(LoopTransport(lun), sleep=clock.sleep)) as drive:
        assert lun.occupied
        with pytest.raises(NotReady, match="a cleaning cartridge is in it"):
            drive.unit.run(bytes(6), "test unit ready")
        clock.sleep(LTO8.cleaning_s)
        assert not lun.occupied
        lun.take_out()
