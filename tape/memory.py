"""A cartridge's own memory (MAM): small attributes that are read without moving the tape.

    0               2        3               5
    ├ identifier ───┼ flags ─┼ length ───────┼ value …

Numbers are big-endian; flags: 80h read-only, below 0 binary, 1 ASCII, 2 text.

A reading gives all attributes from an identifier on: what was not asked for is passed over. One that was never written
is refused by the drive (5/24/00), and is None here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from tape.errors import FormatError, RefusedCommand
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_ANSWER_BYTES = 4096


class Id(IntEnum):
    """Which attribute."""

    REMAINING_MIB = 0x0000
    MAXIMUM_MIB = 0x0001
    ALERTS = 0x0002
    LOADS = 0x0003
    VOLUME_CHANGE_REFERENCE = 0x0009
    LAST_DRIVE = 0x020A
    MIB_WRITTEN_IN_LIFE = 0x0220
    MIB_READ_IN_LIFE = 0x0221
    MAKER = 0x0400
    SERIAL = 0x0401
    DENSITY = 0x0405
    MADE_ON = 0x0406
    MEDIUM_TYPE = 0x0408
    APPLICATION_VENDOR = 0x0800
    APPLICATION_NAME = 0x0801
    APPLICATION_VERSION = 0x0802
    VOLUME_NAME = 0x0803
    LAST_WRITTEN = 0x0804
    TEXT_LOCALISATION = 0x0805
    BARCODE = 0x0806
    OWNING_HOST = 0x0807
    MEDIA_POOL = 0x0808
    FORMAT_VERSION = 0x080B
    VOLUME_COHERENCY = 0x080C
    VOLUME_LOCK = 0x1623


class Form(IntEnum):
    """How a value is to be understood."""

    BINARY = 0
    ASCII = 1
    TEXT = 2


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute.

    Attributes:
        id: which; not only those of ``Id`` exist.
        form: how to understand it.
        value: its bytes, padding and all.
        read_only: whether only the drive writes it.
    """

    id: int
    form: Form
    value: bytes
    read_only: bool = False

    @property
    def number(self) -> int:
        """A binary one's value."""
        return int.from_bytes(self.value, "big")

    @property
    def text(self) -> str:
        """One of characters, without its padding."""
        return self.value.decode("utf-8", "replace").rstrip("\0 ")

    def encode(self) -> bytes:
        """As it is sent and stored."""
        flags = (0x80 if self.read_only else 0) | self.form
        return self.id.to_bytes(2, "big") + bytes((flags,)) + len(self.value).to_bytes(2, "big") + self.value


def ascii_value(identifier: Id, text: str, length: int) -> Attribute:
    """Characters of ASCII, padded with blanks."""
    return Attribute(identifier, Form.ASCII, text.encode("ascii", "replace")[:length].ljust(length, b" "))


def text_value(identifier: Id, text: str, length: int) -> Attribute:
    """Characters of UTF-8, whole ones only, padded with NUL."""
    encoded = text.encode()[:length].decode("utf-8", "ignore").encode()
    return Attribute(identifier, Form.TEXT, encoded.ljust(length, b"\0"))


def decode(data: bytes, where: str) -> Iterator[Attribute]:
    """Attributes one behind the other; one that is cut off by the end of ``data`` is left out.

    Raises:
        FormatError: a form that does not exist.
    """
    at = 0
    while at + 5 <= len(data):
        flags, length = data[at + 2], int.from_bytes(data[at + 3 : at + 5], "big")
        value = data[at + 5 : at + 5 + length]
        if len(value) < length:
            return
        if flags & 0x03 == 0x03:
            raise FormatError(where=where, reason=f"attribute {data[at : at + 2].hex()} of an unknown form")
        yield Attribute(int.from_bytes(data[at : at + 2], "big"), Form(flags & 0x03), value, bool(flags & 0x80))
        at += 5 + length


def read(drive: SequentialDrive, partition: int, identifier: int) -> Attribute | None:
    """One attribute; None when it was never written, or this drive has no such thing.

    Raises:
        TapeError: the memory cannot be read.
    """
    try:
        data = drive.unit.ask(cdb.read_attribute(partition, identifier, _ANSWER_BYTES), "read attribute", _ANSWER_BYTES)
    except RefusedCommand:
        return None
    found = next(decode(data[4:], f"{drive.name}, cartridge memory"), None)
    return found if found is not None and found.id == identifier else None


def write(drive: SequentialDrive, partition: int, attributes: Iterable[Attribute]) -> None:
    """Write attributes; an empty value removes one.

    Raises:
        TapeError: the memory takes no writing.
    """
    body = b"".join(attribute.encode() for attribute in attributes)
    data = len(body).to_bytes(4, "big") + body
    drive.unit.tell(cdb.write_attribute(partition, len(data)), "write attribute", data)
