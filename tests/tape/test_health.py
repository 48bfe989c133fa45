"""What drives and cartridges tell of themselves: alerts in words, a life in numbers; and drives that want cleaning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape import alerts, cleaning, health, memory
from tape.alerts import Severity, Subject
from tape.attendant import Heard
from tape.cleaninglog import USES_MAX, CleaningLog, Uses
from tape.devices import EmulatedDevices
from tape.emulator.check import Check
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Lun
from tape.errors import LibraryError, TapeError
from tape.health import MediumKind
from tape.library import Library
from tape.memory import Attribute, Form, Id
from tape.scsi.sense import Key

BARCODES = ("TAP001L8", "TAP002L8", "CLN001L8", "CLN002L8")
ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"
MIB = 1 << 20


@pytest.fixture
def devices(tmp_path: Path) -> EmulatedDevices:
    VirtualLibrary.create(tmp_path / "library", barcodes=BARCODES)
    return EmulatedDevices(tmp_path / "library")


@pytest.fixture
def log(tmp_path: Path) -> CleaningLog:
    return CleaningLog(tmp_path / "cleaning.json")


@pytest.fixture
def heard() -> list[Heard]:
    return []


@pytest.fixture
def library(devices: EmulatedDevices, log: CleaningLog, heard: list[Heard]) -> Iterator[Library]:
    with Library(devices, name="lib", cleaning=log, heard=heard.append, sleep=lambda _: None) as opened:
        yield opened


# ---------------------------------------------------------------------- alerts


def test_every_flag_has_words_and_a_severity() -> None:
    found = [alerts.alert(number) for number in range(1, alerts.COUNT + 1)]
    assert [one.number for one in found] == list(range(1, 65))
    assert all(one.text and one.name for one in found)
    assert {one.number for one in found if one.subject is Subject.UNKNOWN} == {47, 48, 61, 62, 63, 64}
    assert alerts.alert(20).severity is Severity.CRITICAL


def test_the_worst_is_told_first_and_only_once(library: Library, devices: EmulatedDevices) -> None:
    devices.library.drives[0].alerts |= {19, 7, 4, 62}
    with library.drive(ONE) as drive:
        assert [one.number for one in alerts.read(drive)] == [4, 7, 62, 19]
        assert alerts.read(drive) == []


def test_what_a_drive_complains_of_while_it_is_used_is_heard(
    library: Library, devices: EmulatedDevices, heard: list[Heard]
) -> None:
    with library.loaded("TAP001L8"):
        devices.library.drives[0].alerts.add(2)
    assert [(one.serial, one.barcode, one.alert.number) for one in heard] == [(ONE, "TAP001L8", 2)]


def test_also_when_the_work_failed(library: Library, devices: EmulatedDevices, heard: list[Heard]) -> None:
    def work() -> None:
        with library.loaded("TAP001L8"):
            devices.library.drives[0].alerts.add(6)
            raise RuntimeError("the work")

    with pytest.raises(RuntimeError, match="the work"):
        work()
    assert "TapeAlert 6, write failure (critical)" in str(heard[0])


def test_or_logged_where_nobody_listens(devices: EmulatedDevices, caplog: pytest.LogCaptureFixture) -> None:
    devices.library.drives[0].alerts.add(26)
    with Library(devices, sleep=lambda _: None) as library, library.loaded("TAP001L8"):
        pass
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"drive {ONE}, cartridge TAP001L8: TapeAlert 26, cooling fan failure" in caplog.text


# ---------------------------------------------------------------------- a cartridge's life


def test_a_cartridges_life(library: Library) -> None:
    with library.loaded("TAP001L8", among=[ONE]) as drive:
        for _ in range(3):
            drive.write(bytes(MIB))
        drive.flush()
        memory.write(drive, 0, [memory.ascii_value(Id.BARCODE, "TAP001L8", 32)])
    library.unload(ONE)
    with library.loaded("TAP001L8", among=[TWO]) as drive:
        found = health.of(drive)
    assert (found.barcode, found.maker, found.serial) == ("TAP001L8", "EMULATED", "TAP001L8")
    assert (found.kind, found.density, found.loads) == (MediumKind.DATA, 0x5E, 2)
    assert (found.written_mib, found.read_mib) == (3, 0)
    assert found.last_drives == (f"IBM {TWO}", f"IBM {ONE}")
    assert found.remaining_mib is not None
    assert found.maximum_mib is not None
    assert found.remaining_mib[0] == found.maximum_mib[0] - 3
    assert (found.writing.uncorrected, found.reading.uncorrected) == (0, 0)


def test_what_is_not_told_is_not_zero(library: Library, devices: EmulatedDevices) -> None:
    def refuse(lun: Lun, command: bytes) -> None:
        if command[0] in (0x4D, 0x5A):
            raise Check(Key.ILLEGAL_REQUEST, 0x20)

    with library.loaded("TAP001L8") as drive:
        tape = devices.library.drives[0].cartridge
        assert tape is not None
        unknown = Attribute(Id.LOADS, Form.BINARY, b"\xff" * 8, True)
        tape.set_attribute(0, Id.LOADS, unknown.encode())
        devices.library.drives[0].before = refuse
        found = health.of(drive)
        devices.library.drives[0].before = None
    assert (found.loads, found.remaining_mib, found.write_protected, found.writing.corrected) == (None,) * 4


# ---------------------------------------------------------------------- cleaning


@pytest.mark.parametrize("flag", [20, 21])
def test_a_drive_that_asks_for_it_is_cleaned_after_the_work(
    library: Library, devices: EmulatedDevices, log: CleaningLog, flag: int
) -> None:
    with library.loaded("TAP001L8") as drive:
        devices.library.drives[0].alerts.add(flag)
        drive.write(b"first the work")
    assert log.of("CLN001L8") == Uses(1)
    assert devices.library.drives[0].alerts == set()
    assert devices.library.drives[0].cartridge is None
    assert {element.barcode for element in library.inventory().elements if element.full} == set(BARCODES)
    with library.loaded("TAP001L8"):
        pass
    assert log.of("CLN001L8") == Uses(1)  # once is enough


def test_a_drive_whose_work_failed_is_cleaned_the_next_time(
    library: Library, devices: EmulatedDevices, log: CleaningLog
) -> None:
    def work() -> None:
        with library.loaded("TAP001L8"):
            devices.library.drives[0].alerts.add(20)
            raise RuntimeError("the work")

    with pytest.raises(RuntimeError, match="the work"):
        work()
    assert log.asked(ONE)  # the drive itself will not say it again
    with library.loaded("TAP001L8"):
        pass
    assert not log.asked(ONE)
    assert log.of("CLN001L8") == Uses(1)


def test_without_a_log_nothing_is_cleaned(devices: EmulatedDevices) -> None:
    with Library(devices, heard=lambda _: None) as library:
        with library.loaded("TAP001L8"):
            devices.library.drives[0].alerts.add(21)
        assert library.inventory().drive(ONE).barcode == "TAP001L8"


def test_the_most_used_cleans_until_it_can_no_more(
    library: Library, devices: EmulatedDevices, log: CleaningLog
) -> None:
    log.used("CLN002L8", TWO)
    done = cleaning.clean(library.seating, TWO, log, sleep=lambda _: None)
    assert (done.barcode, done.uses, done.left) == ("CLN002L8", 2, USES_MAX - 2)
    wear_out(devices, "CLN002L8")
    done = cleaning.clean(library.seating, TWO, log, sleep=lambda _: None)
    assert (done.barcode, done.uses) == ("CLN001L8", 1)
    assert log.of("CLN002L8") == Uses(2, expired=True)
    with pytest.raises(LibraryError, match="CLN002L8 is used up"):
        cleaning.clean(library.seating, TWO, log, barcode="CLN002L8")


def wear_out(devices: EmulatedDevices, barcode: str) -> None:
    """More loads than it cleans."""
    used_up = Attribute(Id.LOADS, Form.BINARY, (50).to_bytes(8, "big"), True)
    path = devices.library.folder / barcode / f"attr_0_{Id.LOADS:x}"
    path.write_bytes(used_up.encode())


def test_none_that_can_clean_is_told_and_stops_no_work(
    library: Library, devices: EmulatedDevices, log: CleaningLog, caplog: pytest.LogCaptureFixture
) -> None:
    for barcode in ("CLN001L8", "CLN002L8"):
        wear_out(devices, barcode)
    with library.loaded("TAP001L8"):
        devices.library.drives[0].alerts.add(21)
    assert (
        f"drive {ONE} asks to be cleaned, and was not: lib: no cleaning cartridge that can still clean" in caplog.text
    )
    with library.loaded("TAP001L8"):
        pass


def test_a_drive_that_refuses_to_give_out_what_it_has_given_out_is_emptied(
    library: Library, devices: EmulatedDevices, log: CleaningLog
) -> None:
    def refuse(lun: Lun, command: bytes) -> None:
        if command[0] == 0x1B:
            raise Check(Key.ILLEGAL_REQUEST, 0x2C)

    devices.library.drives[0].before = refuse
    assert cleaning.clean(library.seating, ONE, log, sleep=lambda _: None).uses == 1
    assert devices.library.drives[0].cartridge is None


@pytest.mark.parametrize(
    ("barcode", "says"), [("TAP001L8", "is no cleaning cartridge"), ("CLN009L8", "not in the library")]
)
def test_only_a_cleaning_cartridge_cleans(library: Library, log: CleaningLog, barcode: str, says: str) -> None:
    with pytest.raises(TapeError, match=says):
        cleaning.clean(library.seating, ONE, log, barcode=barcode)


def test_a_drive_that_does_not_finish_is_told(library: Library, devices: EmulatedDevices, log: CleaningLog) -> None:
    seconds = iter(range(0, 100_000, 60))

    def busy(lun: Lun, command: bytes) -> None:
        if command[0] == 0x00:
            raise Check(Key.NOT_READY, 0x04, 0x01)

    devices.library.drives[0].before = busy
    with pytest.raises(LibraryError, match="has not finished cleaning after 30 minutes"):
        cleaning.clean(library.seating, ONE, log, sleep=lambda _: None, monotonic=lambda: float(next(seconds)))
    devices.library.drives[0].before = None
    assert log.of("CLN001L8") == Uses()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "x"}', '{"format": "tape.cleaning/1", "cartridges": {"A": 1}, "drives": []}']
)
def test_a_log_that_is_none_is_refused(log: CleaningLog, text: str) -> None:
    log.path.write_text(text)
    with pytest.raises(TapeError, match=r"cleaning\.json"):
        log.of("CLN001L8")
