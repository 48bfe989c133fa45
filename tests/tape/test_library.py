"""A library used by threads and programs at once, and with hands in it; the robot is asked, nothing is remembered."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tape import cleaning, memory
from tape.arrival import same_label
from tape.cleaninglog import CleaningLog
from tape.devices import EmulatedDevices, Opener, ScsiDevices
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Lun
from tape.emulator.pace import LTO9, Pace
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import (
    CartridgeMissing,
    DestinationFull,
    InUse,
    LibraryChanged,
    LibraryError,
    MoveFailed,
    NotReady,
    SourceEmpty,
    TapeError,
    WrongCartridge,
)
from tape.library import Library
from tape.locks import LockFolder
from tape.memory import Id
from tape.scsi.sense import Key

BARCODES = ("TAP001L8", "TAP002L8", "TAP003L8", "CLN001L8")
ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    VirtualLibrary.create(tmp_path / "library", barcodes=BARCODES, slots=4, mail=1)
    return tmp_path / "library"


@pytest.fixture
def devices(folder: Path) -> Iterator[EmulatedDevices]:
    with closing(EmulatedDevices(folder)) as opened:
        yield opened


@pytest.fixture
def library(devices: EmulatedDevices) -> Iterator[Library]:
    with Library(devices, name="lib", sleep=lambda _: None) as opened:
        yield opened


def places(library: Library) -> dict[str, str]:
    """Which drive, or which kind of place, each cartridge lies in."""
    return {
        element.barcode: element.drive_serial or str(element.kind)
        for element in library.inventory().elements
        if element.full
    }


def on_move(virtual: VirtualLibrary, act: object) -> None:
    """Have something happen just before the robot's next move."""

    def once(lun: Lun, command: bytes) -> None:
        if command[0] == 0xA5:
            lun.before = None
            assert callable(act)
            act()

    virtual.robot.before = once


# ---------------------------------------------------------------------- cartridges in drives


def test_a_cartridge_is_brought_threaded_and_held(library: Library, devices: EmulatedDevices) -> None:
    with library.loaded("TAP002L8") as drive:
        assert places(library)["TAP002L8"] == drive.identity.serial == ONE
        drive.write(b"a block")
        assert devices.library.drives[0].removal_prevented
        with pytest.raises(InUse, match=f"drive {ONE} is in use by another task"):
            library.unload(ONE)
    assert not devices.library.drives[0].removal_prevented


def test_hands_exchange_no_cartridge_between_the_look_at_it_and_its_use(
    library: Library, devices: EmulatedDevices
) -> None:
    """Somebody presses the drive's button while it is asked what it complains of."""
    virtual = devices.library

    def hand(lun: Lun, command: bytes) -> None:
        if command[0] == 0x4D and not virtual.drives[0].removal_prevented:
            virtual.drives[0].insert(Cartridge(virtual.folder / "TAP003L8"))

    virtual.drives[0].before = hand
    with library.loaded("TAP001L8", among=[ONE]):
        lies_there = virtual.drives[0].cartridge
        assert lies_there is not None
        assert lies_there.folder.name == "TAP001L8"
        virtual.drives[0].before = None


class Renumbered(EmulatedDevices):
    """After a path came back each drive answers where the other did."""

    @property
    def drives(self) -> Mapping[str, Opener]:
        one, two = super().drives.values()
        return {ONE: two, TWO: one}


def test_a_drive_that_answers_in_anothers_place_is_not_used(folder: Path) -> None:
    devices = Renumbered(folder)
    with Library(devices, name="lib", sleep=lambda _: None, puts_away=False) as library:
        with pytest.raises(TapeError, match=f"was drive {ONE}, and is {TWO} now"), library.drive(ONE):
            pass
        with pytest.raises(TapeError, match=f"was drive {ONE}, and is {TWO} now"), library.loaded("TAP001L8"):
            pass


def test_it_stays_in_its_drive_until_the_drive_is_wanted_or_the_library_is_closed(folder: Path) -> None:
    with Library.in_folder(folder) as library:
        for barcode in ("TAP001L8", "TAP002L8"):
            with library.loaded(barcode):
                pass
        assert (places(library)["TAP001L8"], places(library)["TAP002L8"]) == (ONE, TWO)
        with library.loaded("TAP001L8"):
            pass
        with library.loaded("TAP003L8") as drive:  # takes the place of the one that idled longest
            assert drive.identity.serial == TWO
        assert (places(library)["TAP001L8"], places(library)["TAP002L8"]) == (ONE, "slot")
    with Library.in_folder(folder) as again:
        assert set(places(again).values()) == {"slot"}
        assert again.inventory().where("TAP002L8").address == SLOTS + 1


def test_or_goes_home_at_once(folder: Path) -> None:
    with Library.in_folder(folder, keep_loaded=False) as library:
        with library.loaded("TAP001L8"):
            pass
        assert places(library)["TAP001L8"] == "slot"


def test_loaded_by_hand_it_stays_when_the_library_is_closed(folder: Path) -> None:
    with Library.in_folder(folder) as library:
        library.load("TAP003L8", TWO)
    with Library.in_folder(folder) as again:
        assert places(again)["TAP003L8"] == TWO
        assert again.unload(TWO).address == SLOTS + 2
        with pytest.raises(LibraryError, match="nothing is in drive"):
            again.unload(TWO)


def test_what_is_not_there_or_holds_no_data_is_not_loaded(library: Library) -> None:
    with pytest.raises(CartridgeMissing, match="OTHER1L8 is not in the library"), library.loaded("OTHER1L8"):
        pass
    with pytest.raises(LibraryError, match="cleaning cartridge"), library.loaded("CLN001L8"):
        pass
    assert set(places(library).values()) == {"slot"}


def test_a_cartridge_that_says_it_is_another_is_refused(library: Library, devices: EmulatedDevices) -> None:
    with library.loaded("TAP001L8") as drive:
        memory.write(drive, 0, [memory.ascii_value(Id.BARCODE, "TAP002L8", 32)])
    with (
        pytest.raises(WrongCartridge, match="labelled TAP001L8 says of itself that it is TAP002L8"),
        library.loaded("TAP001L8"),
    ):
        pass
    assert not devices.library.drives[0].removal_prevented


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("TAP001L8", "TAP001L8", True),
        ("TAP001", "TAP001L8", True),
        ("TAP001L8  ", "TAP001", True),
        ("TAP001L8", "TAP002L8", False),
        ("TAP00", "TAP00L8", False),
        ("TAP001", "TAP0011L8", False),
        ("TAP001", "TAP00112", False),
    ],
)
def test_a_label_may_lack_its_generation(one: str, other: str, same: bool) -> None:
    assert same_label(one, other) is same


def test_a_drive_that_a_dead_program_left_held_is_emptied(library: Library, devices: EmulatedDevices) -> None:
    library.load("TAP001L8", ONE)
    devices.library.drives[0].removal_prevented = True
    assert library.unload(ONE).barcode == "TAP001L8"


# ---------------------------------------------------------------------- drives that take their time


class Hours:
    """A clock that passes when somebody waits."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def monotonic(self) -> float:
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        self.passed_s += seconds


@pytest.fixture
def slow(devices: EmulatedDevices, tmp_path: Path) -> tuple[Library, Hours]:
    """A library of steel, with drives of the ninth generation, which calibrate new cartridges."""
    clock, virtual = Hours(), devices.library
    for lun in virtual.drives:
        lun.pace = Pace(LTO9, clock)
    drives = {
        lun.serial: lambda number=number: TapeDrive(
            virtual.drive_transport(number), sleep=clock.sleep, monotonic=clock.monotonic
        )
        for number, lun in enumerate(virtual.drives)
    }
    steel = ScsiDevices(devices.robot, drives, LockFolder(tmp_path / "locks"))
    return Library(steel, sleep=clock.sleep, monotonic=clock.monotonic), clock


def test_a_new_cartridge_that_is_calibrated_for_forty_minutes_is_waited_for_and_that_is_said(
    slow: tuple[Library, Hours], caplog: pytest.LogCaptureFixture
) -> None:
    library, clock = slow
    with library.loaded("TAP001L8") as drive:
        assert clock.passed_s >= LTO9.first_load_s
        drive.write(b"ready at last")
    [told] = caplog.messages
    assert "cartridge TAP001L8 is not ready yet (it is becoming ready)" in told
    library.unload(ONE)
    before_s = clock.passed_s
    with library.loaded("TAP001L8"):
        assert LTO9.load_s <= clock.passed_s - before_s < 120


def test_a_cleaning_cartridge_is_taken_out_when_it_is_done_not_sooner(
    slow: tuple[Library, Hours], tmp_path: Path
) -> None:
    library, clock = slow
    log = CleaningLog(tmp_path / "cleaning.json")
    done = cleaning.clean(library.seating, ONE, log, sleep=clock.sleep, monotonic=clock.monotonic)
    assert done.uses == 1
    assert LTO9.cleaning_s <= clock.passed_s < LTO9.cleaning_s + 60
    assert places(library)["CLN001L8"] == "slot"


# ---------------------------------------------------------------------- several at once


def test_each_thread_has_a_drive_of_its_own(library: Library) -> None:
    together = threading.Barrier(2, timeout=20)

    def use(barcode: str) -> str:
        with library.loaded(barcode) as drive:
            together.wait()  # both have theirs at the same time
            return drive.identity.serial

    with ThreadPoolExecutor(2) as pool:
        used = list(pool.map(use, ("TAP001L8", "TAP002L8")))
    assert set(used) == {ONE, TWO}


def test_more_tasks_than_drives_wait_for_one(library: Library) -> None:
    def use(barcode: str) -> bytes:
        for _ in range(3):
            with library.loaded(barcode, wait_s=60) as drive:
                drive.rewind()
                drive.write(barcode.encode())
        with library.loaded(barcode, wait_s=60) as drive:
            buf = bytearray(100)
            length = drive.read(memoryview(buf))
            assert isinstance(length, int)
            return bytes(buf[:length])

    wanted = ["TAP001L8", "TAP002L8", "TAP003L8"]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(use, wanted)) == [barcode.encode() for barcode in wanted]


def test_who_has_the_drives_is_told(library: Library) -> None:
    with (
        library.loaded("TAP001L8"),
        library.loaded("TAP002L8"),
        pytest.raises(InUse, match="every drive of lib is in use by another task of this program"),
        library.loaded("TAP003L8"),
    ):
        pass


def test_a_cartridge_in_use_is_waited_for_in_its_own_drive(library: Library) -> None:
    with library.loaded("TAP001L8"), pytest.raises(InUse, match=ONE), library.loaded("TAP001L8", wait_s=0.1):
        pass
    assert places(library)["TAP001L8"] == ONE


def test_an_emulated_library_is_one_programs_at_a_time(folder: Path) -> None:
    code = "import sys, pathlib; from tape.library import Library\nLibrary.in_folder(pathlib.Path(sys.argv[1]))"
    with Library.in_folder(folder):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 1
    assert "InUse: library is in use by process" in done.stderr


# ---------------------------------------------------------------------- moves


def test_cartridges_go_out_and_come_in_through_the_mail_slot(library: Library, devices: EmulatedDevices) -> None:
    library.load("TAP001L8", ONE)
    where = library.export("TAP001L8")
    assert where.kind is ElementKind.MAIL_SLOT
    assert library.export("TAP001L8") == where
    with pytest.raises(LibraryError, match="no mail slot is empty"):
        library.export("TAP002L8")
    devices.library.export_cartridge(where.address)
    devices.library.import_cartridge("NEW001L8")
    assert [element.barcode for element in library.import_()] == ["NEW001L8"]
    assert places(library)["NEW001L8"] == "slot"
    devices.library.import_cartridge("TAP001L8")
    with pytest.raises(LibraryError, match="every slot is full"):
        library.import_()
    assert places(library)["TAP001L8"] == "mail slot"


def test_a_slot_is_kept_free_for_a_cartridge_that_is_in_a_drive(folder: Path) -> None:
    with Library.in_folder(folder) as library:
        library.load("TAP001L8", ONE)
        library.export("TAP002L8")
        assert library.import_()[0].address == SLOTS + 1  # its own
        library.export("TAP003L8")
        inventory = library.inventory()
        library.move(inventory.where("TAP002L8"), inventory.at(ElementKind.SLOT, SLOTS + 2))
        assert library.import_()[0].address == SLOTS + 1  # not that of the one in the drive
        assert library.unload(ONE).address == SLOTS


def test_an_unlabelled_cartridge_is_not_taken_in(library: Library, devices: EmulatedDevices) -> None:
    library.export("TAP001L8")
    devices.library.shelf.unreadable.add("TAP001L8")
    assert library.import_() == []


def test_a_destination_filled_meanwhile_is_told_with_where_the_cartridge_lies(
    library: Library, devices: EmulatedDevices
) -> None:
    shelf = devices.library.shelf
    slot = library.inventory().at(ElementKind.SLOT, SLOTS)
    mail = library.inventory().empty_mail_slot()
    on_move(devices.library, lambda: shelf.full.update({mail.address: "NEW001L8"}))
    with pytest.raises(MoveFailed, match=r"the destination is full.*; it lies in slot 1024 now") as caught:
        library.move(slot, mail)
    assert isinstance(caught.value.because, DestinationFull)


def test_a_source_emptied_meanwhile_is_told(library: Library, devices: EmulatedDevices) -> None:
    shelf = devices.library.shelf
    slot, mail = library.inventory().at(ElementKind.SLOT, SLOTS), library.inventory().empty_mail_slot()
    on_move(devices.library, lambda: shelf.full.pop(SLOTS))
    with pytest.raises(MoveFailed, match="nowhere to be seen now") as caught:
        library.move(slot, mail)
    assert isinstance(caught.value.because, SourceEmpty)


def test_a_cartridge_taken_away_meanwhile_is_missing_then(library: Library, devices: EmulatedDevices) -> None:
    on_move(devices.library, lambda: devices.library.shelf.full.pop(SLOTS))
    with pytest.raises(CartridgeMissing), library.loaded("TAP001L8"):
        pass


def test_a_drive_that_another_host_has_filled_meanwhile_is_passed_over(
    library: Library, devices: EmulatedDevices, caplog: pytest.LogCaptureFixture
) -> None:
    virtual = devices.library

    def other_host() -> None:
        barcode = virtual.shelf.full.pop(SLOTS + 1)
        virtual.shelf.full[DRIVES] = barcode
        virtual.drives[0].insert(Cartridge(virtual.folder / barcode))

    on_move(virtual, other_host)
    with library.loaded("TAP001L8") as drive:
        assert drive.identity.serial == TWO
    assert "the destination is full" in caplog.text
    assert "planned anew" in caplog.text


def test_a_door_opened_in_the_middle_is_told_and_the_next_try_works(library: Library, devices: EmulatedDevices) -> None:
    shelf = devices.library.shelf

    def open_door() -> None:
        shelf.door_open = True

    on_move(devices.library, open_door)
    with pytest.raises(MoveFailed, match="door is open") as caught, library.loaded("TAP001L8"):
        pass
    assert isinstance(caught.value.because, NotReady)
    shelf.door_open = False
    with library.loaded("TAP001L8") as drive:
        assert drive.identity.serial == ONE


def test_hands_elsewhere_do_not_stop_a_move(library: Library, devices: EmulatedDevices) -> None:
    on_move(devices.library, lambda: told(devices, devices.library.import_cartridge("NEW001L8")))
    with library.loaded("TAP001L8"):
        pass
    assert places(library)["NEW001L8"] == "mail slot"


def test_hands_in_the_way_of_a_move_do(library: Library, devices: EmulatedDevices) -> None:
    slot, mail = library.inventory().at(ElementKind.SLOT, SLOTS), library.inventory().empty_mail_slot()
    on_move(devices.library, lambda: swapped(devices))
    with pytest.raises(LibraryChanged, match="slot 1024 held TAP001L8, and now TAP002L8"):
        library.move(slot, mail)


def test_a_cartridge_that_hands_have_moved_is_found_where_it_is_now(library: Library, devices: EmulatedDevices) -> None:
    on_move(devices.library, lambda: swapped(devices))
    with library.loaded("TAP001L8"):
        assert devices.library.shelf.sources[DRIVES] == SLOTS + 1


def test_hands_that_never_rest_are_told(library: Library, devices: EmulatedDevices) -> None:
    def again(lun: Lun, command: bytes) -> None:
        if command[0] == 0xA5:
            swapped(devices)

    devices.library.robot.before = again
    with pytest.raises(LibraryChanged), library.loaded("TAP001L8"):
        pass


def swapped(devices: EmulatedDevices) -> None:
    """Somebody swaps two cartridges, and the robot notices."""
    full = devices.library.shelf.full
    full[SLOTS], full[SLOTS + 1] = full[SLOTS + 1], full[SLOTS]
    told(devices)


def told(devices: EmulatedDevices, *_: object) -> None:
    """The attention that the robot would give for it, to the very command that it meets."""
    raise Check(Key.UNIT_ATTENTION, 0x28, 0x01)


def test_a_robot_that_drops_a_cartridge_is_told_with_the_new_look(library: Library, devices: EmulatedDevices) -> None:
    def drop() -> None:
        devices.library.shelf.full.pop(SLOTS)
        raise Check(Key.HARDWARE_ERROR, 0x44)

    on_move(devices.library, drop)
    with pytest.raises(MoveFailed, match="nowhere to be seen now: look into the library"), library.loaded("TAP001L8"):
        pass


def test_of_one_without_a_label_it_is_not_said_that_it_lies_where_another_does(
    library: Library, devices: EmulatedDevices
) -> None:
    def drop() -> None:
        devices.library.shelf.full.pop(SLOTS + 1)
        raise Check(Key.HARDWARE_ERROR, 0x44)

    devices.library.shelf.unreadable |= {"TAP001L8", "TAP002L8"}
    second, empty = library.inventory().of_kind(ElementKind.SLOT)[1], library.inventory().empty_mail_slot()
    on_move(devices.library, drop)
    with pytest.raises(MoveFailed, match="nowhere to be seen now: look into the library"):
        library.move(second, empty)


def test_two_of_one_label_are_not_guessed_between(library: Library, devices: EmulatedDevices) -> None:
    devices.library.shelf.full[SLOTS + 1] = "TAP001L8"
    with pytest.raises(LibraryError, match="two cartridges bear the label TAP001L8"), library.loaded("TAP001L8"):
        pass


def test_a_library_whose_drives_are_not_known_here_says_which(devices: EmulatedDevices) -> None:
    library = Library(devices)
    with (
        pytest.raises(LibraryError, match=f"its drives are {ONE}, {TWO}; asked for.*: OTHER"),
        library.loaded("TAP001L8", among=["OTHER"]),
    ):
        pass
    with pytest.raises(TapeError, match="drive OTHER is not known"), library.drive("OTHER"):
        pass
