"""The program mtx as our robot, alive, on two robots that know nothing of each other: the emulated one and tgtd's."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tape import drivemap
from tape.changer import Changer
from tape.devices import ScsiDevices
from tape.drive import TapeDrive
from tape.elements import ElementKind, Robot
from tape.emulator.robot import SLOTS
from tape.errors import DestinationFull, LibraryError, MoveFailed, NotReady, RemovalPrevented, SourceEmpty, TapeError
from tape.library import Library
from tape.locks import LockFolder
from tape.mtx import Ended, MtxRobot
from tape.scsi.iscsi import IscsiTransport
from tests.tape import tgt
from tests.tape.libraries import Served, served, small_library
from tests.tape.shim import Shim

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("tgt")]

ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"


def by_mtx(shim: Path, target: str, lun: int) -> MtxRobot:
    """The robot of a target, moved by the mtx of this machine."""
    tool = Shim(shim, target)
    tool("mtx", "--version", code=1)  # skips where there is none

    def run(arguments: Sequence[str], timeout_s: float) -> Ended:
        done = subprocess.run(
            ["mtx", *arguments], env=tool.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return MtxRobot(f"/dev/vsg/{lun}", "VLIB0001", run)


# ---------------------------------------------------------------------- the emulated library


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Served]:
    with served(small_library(tmp_path / "library")) as made:
        yield made


@pytest.fixture
def devices(bench: Served, sgshim: Path, tmp_path: Path) -> ScsiDevices:
    drives = {
        lun.serial: lambda number=number: TapeDrive(bench.library.drive_transport(number), sleep=lambda _: None)
        for number, lun in enumerate(bench.library.drives)
    }
    robot = by_mtx(sgshim, bench.target.url(0).rpartition("/")[0], 0)
    return ScsiDevices(robot, drives, LockFolder(tmp_path / "locks"))


def said(robot: Robot) -> list[tuple[str, int, bool, str, bool]]:
    """What a robot says, numbers of places counted as people do; where a cartridge came from only if it is told."""
    counted: dict[ElementKind, int] = {}
    rows = []
    for element in robot.elements():
        if element.kind is not ElementKind.ROBOT:
            counted[element.kind] = counted.get(element.kind, 0) + 1
            remembered = element.kind is ElementKind.DRIVE and element.source is not None
            rows.append((str(element.kind), counted[element.kind], element.full, element.barcode, remembered))
    return sorted(rows)


def test_it_says_what_the_robot_says_itself(bench: Served, devices: ScsiDevices) -> None:
    direct = Changer(bench.library.changer_transport(), sleep=lambda _: None)
    bench.library.import_cartridge("NEW001L8")
    assert said(devices.robot) == said(direct)
    with Library(devices, known_drives={0: ONE, 1: TWO}) as library:
        library.load("TAP002L8", TWO)
        assert said(devices.robot) == said(direct)
        assert bench.library.shelf.full[SLOTS] == "TAP001L8"
        library.unload(TWO)
        assert said(devices.robot) == said(direct)


def test_a_library_moved_by_it(devices: ScsiDevices) -> None:
    with Library(devices, known_drives=drivemap.learn(devices, "TAP001L8", sleep=lambda _: None)) as library:
        with library.loaded("TAP001L8") as one, library.loaded("TAP002L8") as two:
            assert (one.identity.serial, two.identity.serial) == (ONE, TWO)
        assert library.export("TAP002L8").kind is ElementKind.MAIL_SLOT
        assert [element.barcode for element in library.import_()] == ["TAP002L8"]
    assert not any(element.full for element in devices.robot.elements() if element.kind is ElementKind.DRIVE)


def test_the_drives_that_it_does_not_tell_are_learnt(devices: ScsiDevices) -> None:
    with pytest.raises(LibraryError, match=r"its drives are \?, \?"), Library(devices).loaded("TAP001L8"):
        pass
    assert drivemap.learn(devices, "TAP002L8", sleep=lambda _: None) == {0: ONE, 1: TWO}


def full_destination(bench: Served) -> None:
    bench.library.shelf.full[SLOTS + 5] = "TAP009L8"


def empty_source(bench: Served) -> None:
    del bench.library.shelf.full[SLOTS]


def open_door(bench: Served) -> None:
    bench.library.shelf.door_open = True


@pytest.mark.parametrize(
    ("trouble", "kind"), [(full_destination, DestinationFull), (empty_source, SourceEmpty), (open_door, NotReady)]
)
def test_what_it_cannot_do_it_says_as_the_robot_would(
    bench: Served, devices: ScsiDevices, trouble: Callable[[Served], None], kind: type[TapeError]
) -> None:
    slots = [element for element in devices.robot.elements() if element.kind is ElementKind.SLOT]
    trouble(bench)
    with pytest.raises(kind):
        devices.robot.move(slots[0], slots[5])


def test_a_cartridge_that_a_drive_holds_is_not_torn_out(bench: Served, devices: ScsiDevices) -> None:
    elements = devices.robot.elements()
    drive, slot = elements[0], next(element for element in elements if element.kind is ElementKind.SLOT)
    devices.robot.move(slot, drive)
    bench.library.drives[0].removal_prevented = True
    with pytest.raises(RemovalPrevented):
        devices.robot.move(drive, slot)


def test_a_door_opened_before_a_load_is_told_by_the_library(bench: Served, devices: ScsiDevices) -> None:
    with Library(devices, known_drives={0: ONE, 1: TWO}) as library:
        open_door(bench)
        with pytest.raises(MoveFailed, match="its door is open"), library.loaded("TAP001L8"):
            pass
        bench.library.shelf.door_open = False


# ---------------------------------------------------------------------- tgtd's


def test_tgtds_library_is_moved_by_it_and_mapped(sgshim: Path, tmp_path: Path) -> None:
    (tmp_path / "tgt").mkdir()
    with tgt.running(tmp_path / "tgt") as made:
        drives = {
            serial: lambda lun=lun: TapeDrive(IscsiTransport(made.url(lun)), sleep=lambda _: None)
            for serial, lun in (("VDRV0002", 2), ("VDRV0001", 1))
        }
        robot = by_mtx(sgshim, made.target, tgt.CHANGER)
        devices = ScsiDevices(robot, drives, LockFolder(tmp_path / "locks"))
        with closing(Changer(IscsiTransport(made.url(tgt.CHANGER)), sleep=lambda _: None)) as direct:
            assert said(robot) == said(direct)
        known = drivemap.learn(devices, "TST004L8", sleep=lambda _: None)
        assert known == {0: "VDRV0001", 1: "VDRV0002"}
        with Library(devices, known_drives=known) as library:
            assert library.export("TST001L8").kind is ElementKind.MAIL_SLOT
            with pytest.raises(MoveFailed, match="the destination is full"):
                library.move(library.inventory().where("TST002L8"), library.inventory().where("TST001L8"))
            assert [element.barcode for element in library.import_()] == ["TST001L8"]
