"""One cartridge as two tapes: a small partition 0 for indexes, the rest as partition 1 for data.

Medium partition page (SSC-4, 8.3.4), as MODE SENSE gives it:

    byte 2   greatest number of additional partitions      3   additional partitions there are
    byte 4   FDP SDP IDP (bits 7-5), PSUM (4-3): units     6   units: 10 to this power, in bytes
    byte 8   size of each partition, two bytes each: 0001h the smallest there is, FFFFh the rest

The page is kept by the drive and takes effect with FORMAT MEDIUM, at the beginning of partition 0. Either destroys
whatever the cartridge held. Where the tape stands is for the caller, before and after.
"""

from __future__ import annotations

from tape.errors import TapeError
from tape.scsi import cdb
from tape.scsi.unit import Unit
from tape.sequential import LOAD_S

_PAGE = 0x11
_ANSWER_BYTES = 252
_GIGABYTES = 9
_IDP, _PSUM_UNITS = 0x20, 0x18


def count(unit: Unit) -> int:
    """How many partitions the cartridge has.

    Raises:
        TapeError: the drive does not say.
    """
    return _page(unit)[3] + 1


def make_two(unit: Unit) -> None:
    """Partition the cartridge in two: all that is on it is lost.

    Raises:
        RefusedCommand: neither this drive nor this cartridge can have two.
        TapeError: it failed; the cartridge may be in whatever state.
    """
    page = bytearray(_page(unit))
    if page[2] < 1:
        raise TapeError(f"{unit.name}: this drive, or this cartridge, cannot have two partitions")
    page[0] &= 0x3F
    page[3] = 1
    page[4] = (page[4] & 0x07) | _IDP | _PSUM_UNITS
    page[6] = _GIGABYTES
    sizes = bytes((0x00, 0x01, 0xFF, 0xFF))
    page[8:] = sizes
    page[1] = len(page) - 2
    data = bytes(8) + bytes(page)
    unit.run(cdb.mode_select(len(data)), "mode select, partitions", data_out=data)
    unit.run(cdb.format_medium(two_partitions=True), "format medium", timeout_s=LOAD_S)
    if (found := count(unit)) != 2:
        raise TapeError(f"{unit.name}: after formatting there are {found} partitions, not 2")


def _page(unit: Unit) -> bytes:
    """The medium partition page."""
    command = cdb.mode_sense(_PAGE, _ANSWER_BYTES, block_descriptor=False)
    data = unit.ask(command, "mode sense, partitions", _ANSWER_BYTES)
    start = 8 + int.from_bytes(data[6:8], "big") if len(data) >= 8 else 0
    page = data[start : start + 2 + data[start + 1]] if len(data) >= start + 2 else b""
    if len(page) < 8 or page[0] & 0x3F != _PAGE:
        raise TapeError(f"{unit.name}: it does not tell how its cartridge is partitioned")
    return page
