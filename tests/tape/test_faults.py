"""Faults that were ordered, by plan or by a seed: each does what its name says, and to whom it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape import logs
from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import Element, ElementKind
from tape.emulator.faults import AFTER, BEFORE, Chance, Fault, Mischief
from tape.emulator.library import VirtualLibrary
from tape.emulator.robot import DRIVES, SLOTS
from tape.errors import (
    HardwareError,
    MediumError,
    NotReady,
    PositionLost,
    RefusedCommand,
    TapeError,
    TransportError,
    UnitAttention,
    WriteProtected,
)
from tape.sequential import EndWarning, Met, Position
from tests.tape.libraries import small_library


@pytest.fixture
def library(tmp_path: Path) -> VirtualLibrary:
    made = small_library(tmp_path / "library")
    made.drives[0].insert(made.cartridge("TAP001L8"))
    made.shelf.full = {address: barcode for address, barcode in made.shelf.full.items() if barcode != "TAP001L8"}
    made.shelf.full[DRIVES] = "TAP001L8"
    return made


def befallen(library: VirtualLibrary, *faults: str) -> tuple[TapeDrive, list[str]]:
    """The drive, after three blocks; and what is told of faults."""
    told: list[str] = []
    Mischief([Fault.parse(text) for text in faults], told=told.append).befall(library)
    drive = TapeDrive(library.drive_transport(0), sleep=lambda _: None)
    drive.load()
    drive.locate(Position(0, 0))
    for block in (b"one", b"two", b"three"):
        drive.write(block)
    return drive, told


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("medium-error", MediumError),
        ("deferred-error", MediumError),
        ("hardware-error", HardwareError),
        ("not-ready", NotReady),
        ("write-protected", WriteProtected),
        ("refused", RefusedCommand),
        ("hang", TransportError),
        ("lost-answer", TransportError),
        ("rewinding-reset", PositionLost),
        ("power-cut", PositionLost),
    ],
)
def test_a_write_fails_as_ordered(library: VirtualLibrary, deed: str, error: type[TapeError]) -> None:
    drive, told = befallen(library, f"drive1:write:4={deed}")
    with pytest.raises(error):
        drive.write(b"four")
    assert told == [f"drive1: {deed} at 0Ah"]
    drive.locate(Position(0, 0))
    drive.write(b"and the next goes well")


@pytest.mark.parametrize("deed", ["busy", "reset", "clean-now"])
def test_what_is_borne_is_borne(library: VirtualLibrary, deed: str) -> None:
    drive, told = befallen(library, f"drive1:write:4={deed}")
    assert drive.write(b"four") is EndWarning.NONE
    assert drive.position() == Position(0, 4)
    assert told == [f"drive1: {deed} at 0Ah"]
    assert logs.alerts(drive) == ((20,) if deed == "clean-now" else ())


def test_an_answer_that_is_lost_was_carried_out(library: VirtualLibrary) -> None:
    drive, _ = befallen(library, "drive1:write:4=lost-answer")
    with pytest.raises(TransportError):
        drive.write(b"four")
    assert drive.position() == Position(0, 4)


def test_what_was_buffered_is_lost_with_a_deferred_error(library: VirtualLibrary) -> None:
    drive, _ = befallen(library, "drive1:filemarks:1=deferred-error")
    with pytest.raises(MediumError, match="an earlier command failed"):
        drive.write_filemarks()
    assert drive.position() == Position(0, 0)


def test_a_filemark_that_is_none(library: VirtualLibrary) -> None:
    drive, _ = befallen(library, "drive1:read:2=early-filemark")
    drive.locate(Position(0, 0))
    buf = memoryview(bytearray(10))
    assert drive.read(buf) == 3
    assert drive.read(buf) is Met.FILEMARK
    assert drive.position() == Position(0, 1), "nothing was passed: only looking tells"


def test_several_in_a_row(library: VirtualLibrary) -> None:
    drive, told = befallen(library, "drive1:position:5x2=hardware-error")
    seen: list[bool] = []
    for _ in range(8):
        try:
            drive.position()
        except HardwareError:
            seen.append(True)
        else:
            seen.append(False)
    assert seen.count(True) == len(told) == 2


def test_a_door_is_opened_in_the_middle(library: VirtualLibrary) -> None:
    befallen(library, "robot:move:2=door-open")
    changer = Changer(library.changer_transport(), sleep=lambda _: None)
    slot, drive = Element(SLOTS + 1, ElementKind.SLOT, True), Element(DRIVES + 1, ElementKind.DRIVE, False)
    changer.move(slot, drive)
    with pytest.raises(NotReady, match="door is open"):
        changer.move(drive, slot)
    library.close_door()
    with pytest.raises(UnitAttention):
        changer.move(drive, slot)
    changer.move(drive, slot)


def test_others_are_left_alone(library: VirtualLibrary) -> None:
    drive, told = befallen(library, "drive2:write:1=medium-error", "robot:any:1=hang")
    drive.write(b"four")
    assert told == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no fault"),
        ("drive1:write=hang", "is no fault"),
        ("tape1:write:1=hang", "is no fault"),
        ("drive1:scribble:1=hang", "commands are any, write"),
        ("drive1:write:1=explode", "deeds are medium-error"),
        ("drive1:write:0=hang", "counted from 1"),
    ],
)
def test_what_is_no_fault_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault.parse(text)


def test_every_deed_can_be_ordered() -> None:
    for deed in (*BEFORE, *AFTER):
        assert Fault.parse(f"any:any:3x4={deed}") == Fault("any", "any", 3, 4, deed)


def by_chance(library: VirtualLibrary, seed: int) -> list[str]:
    told: list[str] = []
    Mischief(chance=Chance(seed, 0.2, ("busy", "medium-error")), told=told.append).befall(library)
    drive = TapeDrive(library.drive_transport(0), sleep=lambda _: None)
    for _ in range(60):
        try:
            drive.rewind()
        except MediumError:
            continue
    return told


def test_the_same_seed_gives_the_same_faults(library: VirtualLibrary) -> None:
    first = by_chance(library, 7)
    assert first == by_chance(library, 7)
    assert first != by_chance(library, 8)
    assert {"drive1: busy at 01h", "drive1: medium-error at 01h"} <= set(first)
