"""TapeAlert: what a drive, a robot or a cartridge has to complain of, in words. Log page 2Eh (SSC-5, annex A).

Reading the page takes the flags down: whoever reads them notes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from tape import logs
from tape.sequential import SequentialDrive

COUNT = 64
CLEAN_NOW, CLEAN_PERIODIC, CLEANING_EXPIRED, CLEANING_INVALID = 20, 21, 22, 23


class Severity(IntEnum):
    """How bad it is."""

    INFORMATION = 0
    WARNING = 1
    CRITICAL = 2
    """Data are in danger, or the device is."""

    def __str__(self) -> str:
        return self.name.lower()


class Subject(Enum):
    """What it is that has the trouble."""

    CARTRIDGE = "cartridge"
    DRIVE = "drive"
    LIBRARY = "library"
    UNDECIDED = "cartridge or drive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Alert:
    """One of the 64 flags.

    Attributes:
        number: 1 to 64.
        name: the standard's name for it.
        severity: how bad it is.
        subject: what has the trouble.
        text: what it means, and what to do.
    """

    number: int
    name: str
    severity: Severity
    subject: Subject
    text: str

    def __str__(self) -> str:
        return f"TapeAlert {self.number}, {self.name} ({self.severity}): {self.text}"


_I, _W, _C = Severity.INFORMATION, Severity.WARNING, Severity.CRITICAL
_TAPE, _DRIVE, _LIBRARY, _EITHER = Subject.CARTRIDGE, Subject.DRIVE, Subject.LIBRARY, Subject.UNDECIDED

_KNOWN = (
    Alert(1, "read warning", _W, _EITHER, "reading is troublesome, nothing is lost yet; watch it"),
    Alert(2, "write warning", _W, _EITHER, "writing is troublesome, and costs capacity; watch it"),
    Alert(3, "hard error", _W, _EITHER, "something was not read, written or found; see the others"),
    Alert(4, "media", _C, _TAPE, "the cartridge is faulty: copy off what can be read, and retire it"),
    Alert(5, "read failure", _C, _EITHER, "tape or drive is faulty: try another drive, copy it off"),
    Alert(6, "write failure", _C, _EITHER, "tape or drive is faulty: try another of each"),
    Alert(7, "media life", _W, _TAPE, "the cartridge is worn out: copy it off, and retire it"),
    Alert(8, "not data grade", _W, _TAPE, "the cartridge is not made for data: copy it off, and retire it"),
    Alert(9, "write protect", _C, _TAPE, "a write to a write-protected cartridge: slide its tab, or take another"),
    Alert(10, "no removal", _I, _DRIVE, "it was to give out a cartridge that a program holds"),
    Alert(11, "cleaning media", _I, _TAPE, "a cleaning cartridge is in the drive"),
    Alert(12, "unsupported format", _I, _TAPE, "a cartridge of a kind that this drive does not take"),
    Alert(13, "recoverable mechanical cartridge failure", _C, _TAPE, "the tape is broken, and can be taken out"),
    Alert(14, "unrecoverable mechanical cartridge failure", _C, _TAPE, "the tape is broken and stuck: call service"),
    Alert(15, "memory chip in cartridge failure", _W, _TAPE, "its memory fails: copy it off, and retire it"),
    Alert(16, "forced eject", _C, _EITHER, "a cartridge was taken out by hand while it was used: check its volume"),
    Alert(17, "read only format", _W, _TAPE, "this drive can only read cartridges of this generation"),
    Alert(18, "tape directory corrupted on load", _W, _TAPE, "its directory is damaged: searching will be slow"),
    Alert(19, "nearing media life", _I, _TAPE, "the cartridge is nearly worn out: copy it off soon"),
    Alert(20, "clean now", _C, _DRIVE, "the drive must be cleaned before anything else"),
    Alert(21, "clean periodic", _W, _DRIVE, "the drive should be cleaned soon"),
    Alert(22, "expired cleaning media", _C, _TAPE, "the cleaning cartridge is used up: throw it away"),
    Alert(23, "invalid cleaning tape", _C, _TAPE, "this is no cleaning cartridge for this drive"),
    Alert(24, "retension requested", _W, _TAPE, "the tape wants to be wound through once"),
    Alert(25, "dual port interface error", _W, _DRIVE, "one of its two ports fails: look at the cable"),
    Alert(26, "cooling fan failure", _W, _DRIVE, "a fan fails"),
    Alert(27, "power supply", _W, _DRIVE, "a power supply fails"),
    Alert(28, "power consumption", _W, _DRIVE, "it takes more power than it should"),
    Alert(29, "drive maintenance", _W, _DRIVE, "it wants maintenance, not cleaning"),
    Alert(30, "hardware A", _C, _DRIVE, "it is broken, and wants to be reset"),
    Alert(31, "hardware B", _C, _DRIVE, "it is broken: switch it off and on, then call for service"),
    Alert(32, "interface", _W, _DRIVE, "its line to the host fails: look at cable and adapter"),
    Alert(33, "eject media", _C, _EITHER, "take the cartridge out and put it in again, then repeat what failed"),
    Alert(34, "microcode update failure", _W, _DRIVE, "new firmware was not taken: try again with the right one"),
    Alert(35, "drive humidity", _W, _DRIVE, "too dry or too damp"),
    Alert(36, "drive temperature", _W, _DRIVE, "too hot or too cold: look at the cooling"),
    Alert(37, "drive voltage", _W, _DRIVE, "its supply is out of range"),
    Alert(38, "predictive failure", _C, _DRIVE, "it expects to fail: call for service"),
    Alert(39, "diagnostics required", _W, _DRIVE, "it suspects a fault: run its diagnostics"),
    Alert(40, "loader hardware A", _C, _LIBRARY, "the robot has trouble with the drive"),
    Alert(41, "loader stray tape", _C, _LIBRARY, "a cartridge was left in a drive after a fault"),
    Alert(42, "loader hardware B", _W, _LIBRARY, "the robot has a fault"),
    Alert(43, "loader door", _C, _LIBRARY, "its door is open"),
    Alert(44, "loader hardware C", _C, _LIBRARY, "the robot has a fault that is not mechanical"),
    Alert(45, "loader magazine", _C, _LIBRARY, "a magazine is missing"),
    Alert(46, "loader predictive failure", _W, _LIBRARY, "the robot expects to fail: call for service"),
    Alert(49, "diminished native capacity", _I, _TAPE, "the cartridge holds less than it should"),
    Alert(50, "lost statistics", _W, _TAPE, "what the cartridge counted was lost at some time"),
    Alert(51, "tape directory invalid at unload", _W, _TAPE, "its directory was not written: searching will be slow"),
    Alert(52, "tape system area write failure", _C, _TAPE, "its system area is bad: copy it off, and retire it"),
    Alert(53, "tape system area read failure", _C, _TAPE, "its system area is bad: copy it off, and retire it"),
    Alert(54, "no start of data", _C, _TAPE, "its beginning was not found: damaged, or near a magnet"),
    Alert(55, "loading failure", _C, _EITHER, "not threaded: look at its pin, try another drive"),
    Alert(56, "unrecoverable unload failure", _C, _DRIVE, "the cartridge is stuck in the drive: call for service"),
    Alert(57, "automation interface failure", _C, _DRIVE, "its line to the library fails"),
    Alert(58, "firmware failure", _W, _DRIVE, "its firmware failed: update it"),
    Alert(59, "WORM medium integrity check failed", _C, _TAPE, "somebody may have tampered with this WORM cartridge"),
    Alert(60, "WORM medium overwrite attempted", _C, _TAPE, "a write over what this WORM cartridge keeps was refused"),
)  # fmt: skip
BY_NUMBER = {alert.number: alert for alert in _KNOWN}


def alert(number: int) -> Alert:
    """What a flag means; those that the standard has set aside, or not yet named, mean that somebody must look."""
    reserved = f"flag {number} has no meaning in the standard: see the drive's manual"
    return BY_NUMBER.get(number, Alert(number, f"flag {number}", _W, Subject.UNKNOWN, reserved))


def read(drive: SequentialDrive) -> list[Alert]:
    """What a drive complains of, worst first; it is taken down by this.

    Raises:
        TapeError: it does not tell.
    """
    return sorted((alert(number) for number in logs.alerts(drive)), key=lambda one: (-one.severity, one.number))


def wants_cleaning(found: list[Alert]) -> bool:
    """Whether it asks to be cleaned, now or soon."""
    return any(one.number in (CLEAN_NOW, CLEAN_PERIODIC) for one in found)
