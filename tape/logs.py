"""What a drive counts and notices: capacity, alerts, errors. Log pages (SPC-5, 7.3; SSC-5, 8.5).

0          2          4
├ page ────┼ length ──┼ parameters …        parameter: code (2), control (1), length (1), value
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from tape.errors import FormatError, RefusedCommand
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_ANSWER_BYTES = 0xFFFF


class Page(IntEnum):
    """Which page."""

    WRITE_ERRORS = 0x02
    READ_ERRORS = 0x03
    SEQUENTIAL_ACCESS = 0x0C
    DEVICE_STATISTICS = 0x14
    VOLUME_STATISTICS = 0x17
    ALERTS = 0x2E
    CAPACITY = 0x31


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of the loaded cartridge, in MiB: what is left in each partition, and what each has in all."""

    remaining_mib: tuple[int, int]
    maximum_mib: tuple[int, int]


def read(drive: SequentialDrive, page: int) -> dict[int, bytes]:
    """A page's parameters; none when the drive has no such page.

    Raises:
        TapeError: it cannot be read.
    """
    try:
        data = drive.unit.ask(cdb.log_sense(page, _ANSWER_BYTES), f"log sense {page:#04x}", _ANSWER_BYTES)
    except RefusedCommand:
        return {}
    if len(data) < 4 or data[0] & 0x3F != page:
        raise FormatError(where=drive.name, reason=f"log page {page:#04x} asked for, {data[:1].hex()} came")
    return dict(parameters(data[4 : 4 + int.from_bytes(data[2:4], "big")]))


def parameters(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Code and value of each; one that is cut off by the end of ``data`` is left out."""
    at = 0
    while at + 4 <= len(data):
        length = data[at + 3]
        if at + 4 + length > len(data):
            return
        yield int.from_bytes(data[at : at + 2], "big"), data[at + 4 : at + 4 + length]
        at += 4 + length


def capacity(drive: SequentialDrive) -> Capacity | None:
    """What the cartridge holds, and what of it is left; None when the drive does not tell."""
    found = {code: int.from_bytes(value, "big") for code, value in read(drive, Page.CAPACITY).items()}
    if not {1, 2, 3, 4} <= set(found):
        return None
    return Capacity((found[1], found[2]), (found[3], found[4]))


def alerts(drive: SequentialDrive) -> tuple[int, ...]:
    """Numbers of the TapeAlert flags that are up. Reading takes them down: note them."""
    return tuple(code for code, value in sorted(read(drive, Page.ALERTS).items()) if value and value[0] & 1)
