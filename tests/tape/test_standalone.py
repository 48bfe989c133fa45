"""A drive without a robot: what lies in it is known, what does not is asked for, and nobody is disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape import memory
from tape.devices import standing_alone
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.loop import LoopTransport
from tape.errors import CartridgeMissing, InUse, LibraryError, NoMedium, TapeError
from tape.library import Library
from tape.locks import LockFolder
from tape.memory import Id
from tape.scsi.discover import Device
from tape.scsi.unit import TAPE
from tape.standalone import LabelBook, StandaloneDevices, labels_beside, say_label

SERIAL = "1013000ABC"


@pytest.fixture
def lun() -> DriveLun:
    return DriveLun(SERIAL)


@pytest.fixture
def locks(tmp_path: Path) -> LockFolder:
    return LockFolder(tmp_path / "locks")


@pytest.fixture
def labels(locks: LockFolder) -> LabelBook:
    return labels_beside(locks)


@pytest.fixture
def library(lun: DriveLun, locks: LockFolder, labels: LabelBook) -> Library:
    devices = StandaloneDevices(SERIAL, lambda: TapeDrive(LoopTransport(lun)), locks, labels)
    return Library(devices, name="attic", puts_away=False)


def put_in(lun: DriveLun, folder: Path) -> None:
    """A person does."""
    if lun.cartridge is not None:
        lun.take_out()
    lun.insert(Cartridge(folder) if folder.exists() else Cartridge.create(folder))


def labelled(library: Library, labels: LabelBook, barcode: str) -> None:
    """The blank cartridge in the drive is said to bear a label, and gets it written into its memory."""
    with library.drive(SERIAL) as drive:
        say_label(drive, labels, barcode)
    with library.loaded(barcode) as drive:
        memory.write(drive, 0, [memory.ascii_value(Id.BARCODE, barcode, 32)])


def test_an_empty_drive_asks_for_the_cartridge(library: Library) -> None:
    with pytest.raises(CartridgeMissing, match="TAP001L8"), library.loaded("TAP001L8"):
        pass
    assert not library.inventory().drive(SERIAL).full


def test_a_blank_cartridge_is_known_once_its_label_is_said(
    library: Library, lun: DriveLun, labels: LabelBook, tmp_path: Path
) -> None:
    put_in(lun, tmp_path / "TAP001L8")
    with pytest.raises(CartridgeMissing), library.loaded("TAP001L8"):
        pass
    with library.drive(SERIAL) as drive:
        assert say_label(drive, labels, "TAP001L8") == "TAP001L8"
    with library.loaded("TAP001L8") as drive:
        drive.write(b"data")
    put_in(lun, tmp_path / "TAP002L8")
    assert library.inventory().drive(SERIAL).barcode == ""
    put_in(lun, tmp_path / "TAP001L8")
    assert library.inventory().drive(SERIAL).barcode == "TAP001L8"


def test_one_with_a_label_in_its_memory_tells_it_itself(
    library: Library, lun: DriveLun, labels: LabelBook, tmp_path: Path
) -> None:
    put_in(lun, tmp_path / "TAP001L8")
    labelled(library, labels, "TAP001L8")
    labels.path.unlink()
    assert library.inventory().where("TAP001L8").drive_serial == SERIAL
    with library.drive(SERIAL) as drive, pytest.raises(LibraryError, match="says that it is TAP001L8"):
        say_label(drive, labels, "TAP009L8")


def test_it_stays_in_the_drive_and_is_given_out_when_asked(
    library: Library, lun: DriveLun, labels: LabelBook, tmp_path: Path
) -> None:
    put_in(lun, tmp_path / "TAP001L8")
    with library:
        labelled(library, labels, "TAP001L8")
    assert lun.threaded
    assert library.unload(SERIAL).kind is ElementKind.SLOT
    assert not lun.threaded


def test_a_drive_in_use_is_not_disturbed_by_a_look(
    library: Library, lun: DriveLun, labels: LabelBook, tmp_path: Path
) -> None:
    put_in(lun, tmp_path / "TAP001L8")
    labelled(library, labels, "TAP001L8")
    with library.loaded("TAP001L8") as drive:
        drive.rewind()
        drive.write(b"first")
        commands: list[int] = []
        lun.before = lambda _, command: commands.append(command[0])
        assert library.inventory().drive(SERIAL).barcode == "TAP001L8"
        assert commands == []
        lun.before = None
        drive.write(b"second")


def test_another_programs_drive_is_in_use(library: Library, locks: LockFolder) -> None:
    with LockFolder(locks.folder, command="a backup").held(SERIAL), pytest.raises(InUse, match="a backup"):
        library.inventory()


def test_a_cleaning_cartridge_is_no_data(library: Library, lun: DriveLun, tmp_path: Path) -> None:
    put_in(lun, tmp_path / "CLN001L8")
    assert (library.inventory().drive(SERIAL).full, library.inventory().barcodes) == (True, [])


def test_nothing_is_carried_but_out(library: Library, lun: DriveLun, tmp_path: Path) -> None:
    put_in(lun, tmp_path / "TAP001L8")
    with library.drive(SERIAL) as drive:
        say_label(drive, LabelBook(tmp_path / "locks" / "labels.json"), "TAP001L8")
    with pytest.raises(LibraryError, match="no mail slot is empty"):
        library.export("TAP001L8")
    assert library.import_() == []
    lun.take_out()
    with library.drive(SERIAL) as drive, pytest.raises(NoMedium):
        say_label(drive, LabelBook(tmp_path / "labels.json"), "TAP001L8")


def test_a_label_is_one_cartridges(labels: LabelBook) -> None:
    labels.note("S1", "TAP001L8")
    labels.note("S2", "TAP001L8")
    assert (labels.of("S1"), labels.of("S2"), labels.of("S3")) == ("", "TAP001L8", "")
    labels.path.write_text("[]")
    with pytest.raises(TapeError, match=r"labels\.json"):
        labels.of("S1")


def test_a_drive_that_this_host_does_not_see_is_told(locks: LockFolder) -> None:
    seen = [Device(TAPE, SERIAL, "IBM", "ULT3580-TD8", sg=Path("/nowhere/sg1"))]
    assert list(standing_alone("/nowhere/sg1", locks, found=seen).drives) == [SERIAL]
    with pytest.raises(TapeError, match="sees no drive OTHER"):
        standing_alone("OTHER", locks, found=seen)
