"""A reset before every single command of a job: what it does not move is passed over, what it moves is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.loop import LoopTransport
from tape.errors import PositionLost, TapeError
from tape.ltfs.recover import recover
from tape.ltfs.volume import LtfsVolume
from tape.scsi.transport import Buffer, Reply
from tests.tape.volumes import BLOCK, MAKER, Ticks, content, drive_with, files_of, formatted, mounted, put

KEPT = {"/kept": content(1, 2 * BLOCK + 5)}
MORE = {"/one": content(2, 3 * BLOCK + 7), "/two": content(3, 10)}


class Interrupted(LoopTransport):
    """Before the command of a number something happens to the drive."""

    def __init__(self, lun: DriveLun, number: int = 0, act: Callable[[], None] = lambda: None) -> None:
        super().__init__(lun)
        self.count = 0
        self._number = number
        self._act = act

    def execute(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None, timeout_s: float = 60.0
    ) -> Reply:
        self.count += 1
        if self.count == self._number:
            self._act()
        return super().execute(cdb, data_out=data_out, data_in=data_in, timeout_s=timeout_s)


def job(transport: Interrupted) -> None:
    """Mount, append two files with a commit between them, unmount; the cartridge held."""
    drive = TapeDrive(transport, sleep=lambda _: None)
    drive.load()
    with drive.held(), LtfsVolume.mount(drive, MAKER, Ticks()) as volume:
        for path, data in MORE.items():
            put(volume, path, data)
            volume.commit()


def commands_of_a_job(begun: Path, to: Path) -> int:
    transport = Interrupted(copied(begun, to))
    job(transport)
    return transport.count


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where this machine has one: every flush of a drive is one of the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def begun(fast_path: Path) -> Path:
    """A cartridge with a file on it, to be copied for every job."""
    folder = fast_path / "begun" / "TAP001L8"
    with mounted(formatted(folder, capacity_mib=100)) as volume:
        for path, data in KEPT.items():
            put(volume, path, data)
    return folder


def copied(begun: Path, to: Path) -> DriveLun:
    shutil.copytree(begun, to / begun.name)
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge(to / begun.name))
    return lun


def test_a_reset_that_moves_nothing_is_passed_over_wherever_it_comes(begun: Path, fast_path: Path) -> None:
    for number in range(1, commands_of_a_job(begun, fast_path / "0") + 1):
        lun = copied(begun, fast_path / str(number))
        lun.rewinds_on_reset = False
        job(Interrupted(lun, number, lun.reset))
        assert files_of(mounted(lun, search=True)) == KEPT | MORE, f"a reset before command {number}"


@pytest.mark.parametrize("rewound", [True, False], ids=["a reset that rewinds", "a power cut"])
def test_one_that_moves_the_tape_loses_nothing_that_was_committed(begun: Path, fast_path: Path, rewound: bool) -> None:
    went_well = lost = 0
    for number in range(1, commands_of_a_job(begun, fast_path / "0") + 1):
        lun = copied(begun, fast_path / str(number))
        try:
            job(Interrupted(lun, number, lun.rewound_by_reset if rewound else lun.power_cut))
            went_well += 1
        except PositionLost:
            lost += 1
        except TapeError:
            pass
        recover(drive_with(lun), MAKER, Ticks())
        found = files_of(mounted(lun, search=True))
        assert found.items() >= KEPT.items(), f"before command {number}"
        assert found.items() <= (KEPT | MORE).items(), f"before command {number}"
    assert lost
    assert went_well, "between two movements it does not matter"
