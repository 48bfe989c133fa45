"""A library's robot, on the emulated one: every move, every refusal, and nothing relied on but serials and barcodes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.changer import Changer, decode
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind, by_barcode
from tape.emulator.check import Check
from tape.emulator.library import VirtualLibrary
from tape.emulator.lun import Lun
from tape.emulator.robot import DRIVES, MAIL, SLOTS
from tape.errors import (
    FormatError,
    HardwareError,
    MediumChanged,
    NoMedium,
    NotReady,
    RefusedCommand,
    RemovalPrevented,
    TapeError,
)
from tape.scsi.sense import Key

BARCODES = ("TAP001L8", "TAP002L8", "CLN001L8")


@pytest.fixture
def library(tmp_path: Path) -> VirtualLibrary:
    return VirtualLibrary.create(tmp_path / "library", barcodes=BARCODES)


@pytest.fixture
def changer(library: VirtualLibrary) -> Changer:
    return Changer(library.changer_transport(), sleep=lambda _: None)


def at(changer: Changer, address: int) -> Element:
    return next(element for element in changer.elements() if element.address == address)


def drive(library: VirtualLibrary, number: int) -> TapeDrive:
    return TapeDrive(library.drive_transport(number), sleep=lambda _: None)


def test_everything_is_listed_with_its_barcode_and_serial(changer: Changer) -> None:
    elements = changer.elements()
    assert [element.barcode for element in elements if element.full] == list(BARCODES)
    assert {kind: sum(element.kind is kind for element in elements) for kind in ElementKind} == {
        ElementKind.ROBOT: 1,
        ElementKind.SLOT: 8,
        ElementKind.MAIL_SLOT: 2,
        ElementKind.DRIVE: 2,
    }
    serials = [element.drive_serial for element in elements if element.kind is ElementKind.DRIVE]
    assert serials == ["VLIB0001-D1", "VLIB0001-D2"]


def test_a_drive_is_matched_by_serial_whatever_its_number(library: VirtualLibrary, changer: Changer) -> None:
    by_serial = {found.identity.serial: found for found in (drive(library, 1), drive(library, 0))}
    second = at(changer, DRIVES + 1)
    changer.move(by_barcode(changer.elements(), "TAP001L8"), second)
    by_serial[second.drive_serial].load()
    with pytest.raises(NoMedium):
        by_serial["VLIB0001-D1"].wait_ready()


def test_a_cartridge_goes_out_and_comes_home(library: VirtualLibrary, changer: Changer) -> None:
    changer.move(at(changer, SLOTS), at(changer, DRIVES))
    loaded = at(changer, DRIVES)
    assert (loaded.barcode, loaded.source, loaded.accessible) == ("TAP001L8", SLOTS, False)
    used = drive(library, 0)
    used.load()
    used.unload()
    assert at(changer, DRIVES).accessible
    changer.move(at(changer, DRIVES), at(changer, SLOTS))
    assert at(changer, SLOTS).barcode == "TAP001L8"
    assert not at(changer, DRIVES).full


@pytest.mark.parametrize(
    ("source", "destination", "says"),
    [
        (SLOTS + 7, DRIVES, "the source is empty"),
        (SLOTS, SLOTS + 1, "the destination is full"),
        (SLOTS, SLOTS + 99, "no element of this address"),
        (99, SLOTS + 5, "no element of this address"),
    ],
)
def test_moves_that_cannot_be_are_refused_and_change_nothing(
    changer: Changer, source: int, destination: int, says: str
) -> None:
    before = changer.elements()
    with pytest.raises(RefusedCommand, match=says):
        changer.move(Element(source, ElementKind.SLOT, True), Element(destination, ElementKind.SLOT, False))
    assert changer.elements() == before


def test_a_cartridge_that_a_drive_holds_is_not_torn_out(library: VirtualLibrary, changer: Changer) -> None:
    changer.move(at(changer, SLOTS), at(changer, DRIVES))
    used = drive(library, 0)
    used.load()
    with used.held(), pytest.raises(RemovalPrevented):
        changer.move(at(changer, DRIVES), at(changer, SLOTS))
    assert at(changer, DRIVES).full


def test_an_open_door_is_told(library: VirtualLibrary, changer: Changer) -> None:
    library.shelf.door_open = True
    with pytest.raises(NotReady, match="door is open"):
        changer.move(Element(SLOTS, ElementKind.SLOT, True), Element(DRIVES, ElementKind.DRIVE, False))


def test_cartridges_moved_by_hand_stop_a_move_that_was_planned_before(
    library: VirtualLibrary, changer: Changer
) -> None:
    planned = at(changer, SLOTS), at(changer, DRIVES)
    library.import_cartridge("NEW001L8")
    with pytest.raises(MediumChanged):
        changer.move(*planned)
    assert at(changer, MAIL).barcode == "NEW001L8"
    changer.move(*planned)


def test_a_label_that_cannot_be_read_is_a_problem_not_another_cartridge(
    library: VirtualLibrary, changer: Changer
) -> None:
    library.shelf.unreadable.add("TAP002L8")
    found = at(changer, SLOTS + 1)
    assert (found.full, found.barcode, found.problem) == (True, "", (0x30, 0x00))
    with pytest.raises(TapeError, match="TAP002L8 is not in the library"):
        by_barcode(changer.elements(), "TAP002L8")


def test_a_library_is_opened_as_it_was_left(library: VirtualLibrary, changer: Changer) -> None:
    changer.move(at(changer, SLOTS + 1), at(changer, DRIVES + 1))
    used = drive(library, 1)
    used.load()
    used.write(b"kept")
    used.flush()
    again = VirtualLibrary.open(library.folder)
    assert Changer(again.changer_transport()).elements() == changer.elements()
    opened = drive(again, 1)
    opened.load()
    buf = bytearray(10)
    assert opened.read(memoryview(buf)) == 4


def test_a_robot_with_thousands_of_slots_is_asked_for_all_of_them(tmp_path: Path) -> None:
    barcodes = [f"T{number:05}L8" for number in range(10)]
    library = VirtualLibrary.create(tmp_path / "large", barcodes=barcodes, slots=4000)
    found = Changer(library.changer_transport()).elements()
    assert sum(element.kind is ElementKind.SLOT for element in found) == 4000
    assert [element.barcode for element in found if element.full] == barcodes


def test_a_robot_that_knows_no_identifiers_is_asked_without(library: VirtualLibrary, changer: Changer) -> None:
    def refuse(lun: Lun, command: bytes) -> None:
        if command[0] == 0xB8 and command[6] & 1:
            raise Check(Key.ILLEGAL_REQUEST, 0x24)

    library.robot.before = refuse
    assert [element.drive_serial for element in changer.elements() if element.kind is ElementKind.DRIVE] == ["", ""]


def test_a_look_that_fails_leaves_no_serial_number_out(library: VirtualLibrary, changer: Changer) -> None:
    def fail(lun: Lun, command: bytes) -> None:
        if command[0] == 0xB8 and command[6] & 1:
            raise Check(Key.HARDWARE_ERROR, 0x44)

    library.robot.before = fail
    with pytest.raises(HardwareError):
        changer.elements()


def test_a_drive_is_no_library(library: VirtualLibrary) -> None:
    with pytest.raises(TapeError, match="is no library"):
        Changer(library.drive_transport(0))
    with pytest.raises(TapeError, match="is no tape drive"):
        TapeDrive(library.changer_transport())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\x01\0\x01\0\0\0\x08\x02\x80\0\x0b\0\0\0\x0b" + bytes(11),  # elements of eleven bytes
        b"\0\x01\0\x01\0\0\0\x08\x02\x80\0\x34\0\0\x01\0",  # more than there is
    ],
)
def test_an_answer_that_contradicts_itself_is_refused(answer: bytes) -> None:
    with pytest.raises(FormatError):
        list(decode(answer, ElementKind.SLOT, "here"))


@pytest.mark.parametrize(
    ("barcodes", "says"),
    [(["a"], "no barcode"), (["A", "A"], "barcodes"), (["A" * 9], "no barcode"), (["A"] * 9, "fit")],
)
def test_a_library_that_cannot_be_is_not_made(tmp_path: Path, barcodes: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VirtualLibrary.create(tmp_path, barcodes=barcodes)


def test_a_drive_behind_two_tags_is_known_by_its_own_number() -> None:
    """The alternate tag (AVOLTAG) lies between the barcode and the drive's identifier."""
    alternate = b"2 (of no matter)".ljust(32) + bytes(4)
    identifier = bytes((2, 0, 0, 8)) + b"VDRV0001"
    element = b"\x01\0\x09" + bytes(9) + b"TAP001L8".ljust(32) + bytes(4) + alternate + identifier
    page = bytes((4, 0xC0)) + len(element).to_bytes(2, "big") + b"\0" + len(element).to_bytes(3, "big")
    body = page + element
    report = b"\x01\0\0\x01\0" + len(body).to_bytes(3, "big") + body
    [found] = decode(report, ElementKind.DRIVE, "here")
    assert (found.barcode, found.drive_serial) == ("TAP001L8", "VDRV0001")


def test_a_page_without_its_last_bytes_is_read_as_far_as_it_came() -> None:
    """As tgtd sends it; who the last drive is lies in what is missing, and is not guessed."""
    text = b"STGT    VDRIVE          VDRV0001"
    element = b"\x01\0\x09" + bytes(9) + b"TAP001L8".ljust(32) + bytes(4) + bytes((2, 1, 0, len(text))) + text
    page = bytes((4, 0x80)) + len(element).to_bytes(2, "big") + b"\0" + (2 * len(element)).to_bytes(3, "big")
    body = page + 2 * element
    report = b"\x01\0\0\x02\0" + (len(body) - 8).to_bytes(3, "big") + body[:-8]
    found = list(decode(report, ElementKind.DRIVE, "here"))
    assert [(drive.barcode, drive.drive_serial) for drive in found] == [("TAP001L8", "VDRV0001"), ("TAP001L8", "")]
    with pytest.raises(FormatError):
        list(decode(report[:-1], ElementKind.DRIVE, "here"))


@given(
    page=st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 70), st.integers(0, 300), st.binary(max_size=300)),
    kind=st.sampled_from(ElementKind),
    wrong_by=st.integers(-20, 20),
)
def test_whatever_a_robot_answers_is_elements_or_refused(
    page: tuple[int, bool, int, int, bytes], kind: ElementKind, wrong_by: int
) -> None:
    code, tagged, size, length, body = page
    told = bytes((code, 0x80 if tagged else 0)) + size.to_bytes(2, "big") + b"\0" + length.to_bytes(3, "big") + body
    head = b"\0\1\0\1\0" + max(0, len(told) + wrong_by).to_bytes(3, "big")
    with suppress(FormatError):
        assert all(element.kind is kind for element in decode(head + told, kind, "here"))
