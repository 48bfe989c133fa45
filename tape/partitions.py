"""One cartridge as two tapes: a small partition 0 for indexes, the rest as partition 1 for data.

Medium partition page (SSC-4, 8.3.4), as MODE SENSE gives it:

    byte 2   greatest number of additional partitions      3   additional partitions there are
    byte 4   FDP SDP IDP (bits 7-5), PSUM (4-3): units     6   units: 10 to this power, in bytes
    byte 8   size of each partition, two bytes each: 0001h the smallest there is, FFFFh the rest

The page is kept by the drive and takes effect with FORMAT MEDIUM, at the beginning of partition 0. Either destroys
whatever the cartridge held.
"""

from __future__ import annotations

from tape.drive import LOAD_S, Position, TapeDrive
from tape.errors import TapeError
from tape.scsi import cdb

_PAGE = 0x11
_ANSWER_BYTES = 252
_GIGABYTES = 9
_IDP, _PSUM_UNITS = 0x20, 0x18


def count(drive: TapeDrive) -> int:
    """How many partitions the cartridge has.

    Raises:
        TapeError: the drive does not say.
    """
    return _page(drive)[3] + 1


def make_two(drive: TapeDrive) -> None:
    """Partition the cartridge in two: all that is on it is lost.

    Raises:
        RefusedCommand: neither this drive nor this cartridge can have two.
        TapeError: it failed; the cartridge may be in whatever state.
    """
    page = bytearray(_page(drive))
    if page[2] < 1:
        raise TapeError(f"{drive.name}: this drive, or this cartridge, cannot have two partitions")
    page[0] &= 0x3F
    page[3] = 1
    page[4] = (page[4] & 0x07) | _IDP | _PSUM_UNITS
    page[6] = _GIGABYTES
    sizes = bytes((0x00, 0x01, 0xFF, 0xFF))
    page[8:] = sizes
    page[1] = len(page) - 2
    drive.locate(Position(0, 0))
    data = bytes(8) + bytes(page)
    drive.unit.run(cdb.mode_select(len(data)), "mode select, partitions", data_out=data)
    _format(drive, two=True)
    if (found := count(drive)) != 2:
        raise TapeError(f"{drive.name}: after formatting there are {found} partitions, not 2")


def make_one(drive: TapeDrive) -> None:
    """Join all partitions: all that is on the cartridge is lost.

    Raises:
        TapeError: it failed.
    """
    drive.locate(Position(0, 0))
    _format(drive, two=False)


def _format(drive: TapeDrive, *, two: bool) -> None:
    drive.unit.run(cdb.format_medium(two), "format medium", timeout_s=LOAD_S)
    drive.locate(Position(0, 0))


def _page(drive: TapeDrive) -> bytes:
    """The medium partition page."""
    command = cdb.mode_sense(_PAGE, _ANSWER_BYTES, block_descriptor=False)
    data = drive.unit.ask(command, "mode sense, partitions", _ANSWER_BYTES)
    start = 8 + int.from_bytes(data[6:8], "big") if len(data) >= 8 else 0
    page = data[start : start + 2 + data[start + 1]] if len(data) >= start + 2 else b""
    if len(page) < 8 or page[0] & 0x3F != _PAGE:
        raise TapeError(f"{drive.name}: it does not tell how its cartridge is partitioned")
    return page
