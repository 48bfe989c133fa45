"""How a cartridge fares: what its own memory and the drive's counters tell of its life.

Nothing here moves the tape. Whatever a drive or cartridge does not tell is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tape import logs, memory
from tape.errors import RefusedCommand
from tape.logs import Page
from tape.memory import Id
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_LAST_DRIVES = (0x020A, 0x020B, 0x020C, 0x020D)  # from the last to the fourth last
_DRIVE_VENDOR_BYTES = 8
_TOTAL_CORRECTED, _TOTAL_PROCESSED_BYTES, _TOTAL_UNCORRECTED = 0x03, 0x05, 0x06  # of the error pages (SPC-5, 7.3.9)
_MODE_WRITE_PROTECTED = 0x80


class MediumKind(Enum):
    """What sort of cartridge its memory says it is."""

    DATA = "data"
    CLEANING = "cleaning"
    WORM = "WORM"
    OTHER = "other"


_KINDS = {0x00: MediumKind.DATA, 0x01: MediumKind.CLEANING, 0x80: MediumKind.WORM}


@dataclass(frozen=True, slots=True)
class Errors:
    """What the drive counted since the cartridge was loaded.

    Attributes:
        corrected: errors that the drive mended, of no consequence but that there are many.
        uncorrected: those that it could not.
        processed_bytes: how much it had to do with.
    """

    corrected: int | None
    uncorrected: int | None
    processed_bytes: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """A cartridge in a drive.

    Attributes:
        barcode: as its memory has it; empty if nobody has written it there.
        maker: who made it.
        serial: its own serial number.
        made_on: YYYYMMDD.
        kind: for data, for cleaning, or WORM.
        density: by which drives know its generation.
        loads: how often it was loaded in its life.
        written_mib: in its life.
        read_mib: likewise.
        last_drives: vendor and serial number of the drives that loaded it last, the latest first.
        remaining_mib: what is left in each partition.
        maximum_mib: what each holds.
        write_protected: by its tab, or because this drive cannot write it.
        writing: what the drive counted.
        reading: likewise.
    """

    barcode: str
    maker: str
    serial: str
    made_on: str
    kind: MediumKind | None
    density: int | None
    loads: int | None
    written_mib: int | None
    read_mib: int | None
    last_drives: tuple[str, ...]
    remaining_mib: tuple[int, ...] | None
    maximum_mib: tuple[int, ...] | None
    write_protected: bool | None
    writing: Errors
    reading: Errors


def of(drive: SequentialDrive) -> Health:
    """Of the cartridge that is loaded.

    Raises:
        NoMedium: there is none.
        TapeError: the drive fails.
    """
    kind = _number(drive, Id.MEDIUM_TYPE)
    capacity = logs.capacity(drive)
    return Health(
        barcode=_text(drive, Id.BARCODE),
        maker=_text(drive, Id.MAKER),
        serial=_text(drive, Id.SERIAL),
        made_on=_text(drive, Id.MADE_ON),
        kind=None if kind is None else _KINDS.get(kind, MediumKind.OTHER),
        density=_number(drive, Id.DENSITY),
        loads=_number(drive, Id.LOADS),
        written_mib=_number(drive, Id.MIB_WRITTEN_IN_LIFE),
        read_mib=_number(drive, Id.MIB_READ_IN_LIFE),
        last_drives=_last_drives(drive),
        remaining_mib=capacity.remaining_mib if capacity is not None else None,
        maximum_mib=capacity.maximum_mib if capacity is not None else None,
        write_protected=_is_write_protected(drive),
        writing=_errors(drive, Page.WRITE_ERRORS),
        reading=_errors(drive, Page.READ_ERRORS),
    )


def _number(drive: SequentialDrive, identifier: int) -> int | None:
    """A number in its memory; all ones says that it is not known."""
    found = memory.read(drive, 0, identifier)
    if found is None or not found.value or (all(byte == 0xFF for byte in found.value) and len(found.value) > 1):
        return None
    return found.number


def _text(drive: SequentialDrive, identifier: int) -> str:
    found = memory.read(drive, 0, identifier)
    return found.text.strip("\0 ") if found is not None else ""


def _last_drives(drive: SequentialDrive) -> tuple[str, ...]:
    """Eight bytes of vendor, then the serial number (SPC-5, 7.4.2.2)."""
    names: list[str] = []
    for identifier in _LAST_DRIVES:
        found = memory.read(drive, 0, identifier)
        if found is not None and found.text:
            text = found.text
            names.append(
                f"{text[:_DRIVE_VENDOR_BYTES].strip()} {text[_DRIVE_VENDOR_BYTES:].strip(chr(0) + ' ')}".strip()
            )
    return tuple(names)


def _errors(drive: SequentialDrive, page: Page) -> Errors:
    found = {code: int.from_bytes(value, "big") for code, value in logs.read(drive, page).items()}
    return Errors(found.get(_TOTAL_CORRECTED), found.get(_TOTAL_UNCORRECTED), found.get(_TOTAL_PROCESSED_BYTES))


def _is_write_protected(drive: SequentialDrive) -> bool | None:
    """The WP bit in the header of MODE SENSE (SSC-5, 8.3.2)."""
    try:
        data = drive.unit.ask(cdb.mode_sense(0x00, 16), "mode sense", 16)
    except RefusedCommand:
        return None
    return bool(data[3] & _MODE_WRITE_PROTECTED) if len(data) >= 4 else None
