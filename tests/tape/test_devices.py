"""Where a library's devices come from: an iSCSI portal, and what the kernel shows; and which drive is which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tape import drivemap
from tape.changer import Changer
from tape.devices import ScsiDevices, at_portal, on_this_host
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.library import VirtualLibrary
from tape.errors import InUse, LibraryError, TapeError
from tape.library import Library
from tape.locks import LockFolder
from tape.scsi.discover import Device
from tape.scsi.unit import CHANGER, TAPE

NAME = "iqn.2026-11.test:library"
ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"


@pytest.fixture
def virtual(tmp_path: Path) -> VirtualLibrary:
    return VirtualLibrary.create(tmp_path / "library", barcodes=("TAP001L8", "TAP002L8"))


@pytest.fixture
def locks(tmp_path: Path) -> LockFolder:
    return LockFolder(tmp_path / "locks", command="a test")


# ---------------------------------------------------------------------- behind a portal


@pytest.fixture
def target(virtual: VirtualLibrary) -> Iterator[IscsiTarget]:
    with IscsiTarget([virtual.drives[1], virtual.robot, virtual.drives[0]], NAME) as served:
        yield served


def test_a_library_behind_a_portal_is_one_like_any_other(target: IscsiTarget, locks: LockFolder) -> None:
    with Library(at_portal(f"iscsi://{target.portal}/{NAME}", locks)) as library:
        with library.loaded("TAP002L8") as drive:
            assert drive.identity.serial == ONE
            drive.write(b"over the wire")
        assert library.inventory().drive(ONE).barcode == "TAP002L8"


def test_two_programs_share_its_drives_and_are_told_of_each_other(target: IscsiTarget, locks: LockFolder) -> None:
    url = f"iscsi://{target.portal}/{NAME}"
    with (
        Library(at_portal(url, locks)) as mine,
        Library(at_portal(url, locks)) as theirs,
    ):
        with mine.loaded("TAP001L8") as one, theirs.loaded("TAP002L8") as two:
            assert {one.identity.serial, two.identity.serial} == {ONE, TWO}
            with pytest.raises(InUse, match=rf"{ONE} is in use by process \d+ \(a test\)"), theirs.loaded("TAP001L8"):
                pass
        with theirs.loaded("TAP001L8") as again:  # let go, it is used where it is
            assert again.identity.serial == ONE


def test_a_portal_of_drives_without_a_robot_is_no_library(virtual: VirtualLibrary, locks: LockFolder) -> None:
    with IscsiTarget(virtual.drives, NAME) as served, pytest.raises(TapeError, match="has one robot, there are 0"):
        at_portal(f"iscsi://{served.portal}/{NAME}", locks)


# ---------------------------------------------------------------------- known to the kernel


def seen(kind: int, serial: str, sg: str, problem: str = "") -> Device:
    return Device(kind, serial, "IBM", "ULT3580-TD8", sg=Path(sg), problem=problem)


SEEN = (
    seen(CHANGER, "LIB1", "/nowhere/sg2"),
    seen(TAPE, "D1", "/nowhere/sg0"),
    seen(TAPE, "D2", "/nowhere/sg1", "the kernel holds it to be offline"),
)


@pytest.mark.parametrize(
    ("changer", "only", "says"),
    [
        ("LIB2", (), "sees no library LIB2; it sees: IBM ULT3580-TD8 LIB1 at /nowhere/sg2"),
        ("LIB1", ("D3",), "sees no drive D3"),
        ("LIB1", ("D2",), "the kernel holds it to be offline"),
        ("/nowhere/sg2", ("/nowhere/sg0",), "No such file"),
    ],
)
def test_what_this_host_does_not_see_is_said(changer: str, only: Sequence[str], says: str, locks: LockFolder) -> None:
    with pytest.raises(TapeError, match=says):
        on_this_host(changer, locks, only=only, found=SEEN)


def test_by_mtx_the_robot_is_opened_only_when_it_is_asked(locks: LockFolder) -> None:
    devices = on_this_host("/nowhere/sg2", locks, by_mtx=True, only=["D1"], found=SEEN)
    assert (devices.robot.serial, list(devices.drives)) == ("LIB1", ["D1"])


# ---------------------------------------------------------------------- a robot that tells no serial numbers


class Silent(Changer):
    """The emulated robot, but it does not know its drives."""

    def elements(self) -> list[Element]:
        return [replace(element, drive_serial="") for element in super().elements()]


@pytest.fixture
def silent(virtual: VirtualLibrary, locks: LockFolder) -> ScsiDevices:
    drives = {
        drive.serial: lambda number=number: TapeDrive(virtual.drive_transport(number))
        for number, drive in enumerate(virtual.drives)
    }
    return ScsiDevices(Silent(virtual.changer_transport()), dict(reversed(drives.items())), locks)


def test_drives_are_found_by_putting_a_cartridge_into_each(silent: ScsiDevices, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"its drives are \?, \?"), Library(silent).loaded("TAP001L8"):
        pass
    learnt = drivemap.learn(silent, "TAP002L8", sleep=lambda _: None)
    assert learnt == {0: ONE, 1: TWO}
    drivemap.save(tmp_path, silent.robot.serial, learnt)
    kept = drivemap.load(tmp_path, silent.robot.serial)
    with Library(silent, known_drives=kept) as library, library.loaded("TAP001L8", among=[TWO]) as drive:
        second = library.inventory().of_kind(ElementKind.DRIVE)[1]
        assert second.drive_serial == drive.identity.serial == TWO


def test_a_drive_of_another_host_has_no_serial_number(virtual: VirtualLibrary, silent: ScsiDevices) -> None:
    seconds = iter(range(1000))
    mine = ScsiDevices(silent.robot, {TWO: silent.drives[TWO]}, LockFolder(virtual.folder / "locks"))
    learnt = drivemap.learn(mine, "TAP001L8", sleep=lambda _: None, monotonic=lambda: float(next(seconds)) * 30)
    assert learnt == {1: TWO}


def test_a_drive_that_is_not_empty_is_left_alone(virtual: VirtualLibrary, silent: ScsiDevices) -> None:
    elements = {element.address: element for element in silent.robot.elements()}
    silent.robot.move(elements[0x400], elements[0x101])
    with pytest.raises(LibraryError, match="not empty: drive 257"):
        drivemap.learn(silent, "TAP002L8")
    assert virtual.drives[1].cartridge is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "x"}', '{"format": "tape.drivemap/1", "drives": {"a": "b"}}'])
def test_a_map_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "drives-LIB1.json").write_text(text)
    with pytest.raises(TapeError, match="drives-LIB1"):
        drivemap.load(tmp_path, "LIB1")
    assert drivemap.load(tmp_path, "OTHER") == {}
