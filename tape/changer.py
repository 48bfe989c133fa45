"""A library's robot: what lies where, and cartridges carried from one place to another.

Elements are known by their SMC addresses, cartridges by their barcodes, drives by their serial numbers: which element a
drive is, the robot says (DVCID); which device file it is, the drive's own serial number. Numbers of device files change
from boot to boot and are never relied upon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from typing_extensions import override

from tape.elements import Element, ElementKind, Robot
from tape.errors import FormatError, MediumChanged, RefusedCommand, TapeError, UnitAttention
from tape.scsi import cdb
from tape.scsi.transport import ScsiTransport
from tape.scsi.unit import CHANGER, Identity, Unit

_STATUS_BYTES = 64 << 10
_STATUS_BYTES_MAX = (1 << 24) - 1  # the field has three bytes
_HEAD_BYTES = 8
_SPARE_BYTES = 64  # some robots count a little less than they then send
_PAGE_BYTES = 8
_TAG_BYTES = 36  # a primary tag, and an alternate one behind it, where the page says so
_MISSING_BYTES_MAX = 8  # tgtd takes its own head for a part of the report: the last page comes without its last bytes
_MOVE_S = 600.0
_INVENTORY_S = 3600.0
_TRIES_MAX = 4
_T = TypeVar("_T")


class Changer(Robot):
    """One robot. For one thread, and one program at a time."""

    def __init__(self, transport: ScsiTransport, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Take it over.

        Raises:
            TapeError: it does not answer, or is no robot.
        """
        self.unit = Unit(transport, sleep=sleep)
        self.unit.attend()
        self.identity: Identity = self.unit.inquiry()
        if self.identity.kind != CHANGER:
            raise TapeError(f"{self.name} is no library: {self.identity}")

    @property
    @override
    def name(self) -> str:
        return self.unit.name

    @property
    @override
    def serial(self) -> str:
        return self.identity.serial

    @override
    def elements(self) -> list[Element]:
        # Each kind by itself: asked for all at once, some robots answer with damaged pages.
        return [element for kind in ElementKind for element in self._of_kind(kind)]

    @override
    def take_stock(self) -> None:
        self._patiently(cdb.initialize_element_status(), "initialize element status", _INVENTORY_S)

    @override
    def move(self, source: Element, destination: Element) -> None:
        what = f"move from {source} to {destination}"
        self._patiently(cdb.move_medium(0, source.address, destination.address), what, _MOVE_S)

    @override
    def close(self) -> None:
        self.unit.close()

    def _of_kind(self, kind: ElementKind) -> list[Element]:
        for identified in (True, False):
            try:
                return list(decode(self._report(kind, identified), kind, self.name))
            except (FormatError, RefusedCommand):  # older robots know no identifiers
                if not identified:
                    raise
        return []

    def _report(self, kind: ElementKind, identified: bool) -> bytes:
        """The whole report; asked for once more where it is longer than most are: not every adapter carries so much."""
        length = _STATUS_BYTES
        while True:
            data = self._asked(cdb.read_element_status(kind, 0, 0xFFFF, length, identifiers=identified), length)
            whole = _HEAD_BYTES + int.from_bytes(data[5:8], "big") + _SPARE_BYTES
            if whole <= length or length == _STATUS_BYTES_MAX:
                return data
            length = min(whole, _STATUS_BYTES_MAX)

    def _asked(self, command: bytes, length: int) -> bytes:
        """Ask, also when cartridges may have been moved by hand meanwhile: where they are now is the question."""
        return _past_attentions(
            lambda: self.unit.ask(command, "read element status", length, timeout_s=_INVENTORY_S), also_moves=True
        )

    def _patiently(self, command: bytes, what: str, timeout_s: float) -> None:
        """Do it; not when cartridges may have been moved by hand meanwhile: it may be wrong by now."""
        _past_attentions(lambda: self.unit.run(command, what, timeout_s=timeout_s), also_moves=False)


def _past_attentions(act: Callable[[], _T], *, also_moves: bool) -> _T:
    """A command that meets a unit attention was not carried out: send it again."""
    for _ in range(_TRIES_MAX):
        try:
            return act()
        except UnitAttention as error:
            if isinstance(error, MediumChanged) and not also_moves:
                raise
    return act()


def decode(data: bytes, kind: ElementKind, where: str) -> Iterator[Element]:
    """The elements of one kind in an answer to READ ELEMENT STATUS (SMC-3, 6.13).

    Raises:
        FormatError: it contradicts itself.
    """
    if len(data) < 8:
        raise FormatError(where=where, reason=f"an element status of {len(data)} bytes")
    end = min(8 + int.from_bytes(data[5:8], "big"), len(data))
    at = 8
    while at + _PAGE_BYTES <= end:
        page_kind, tagged, tagged_twice = data[at], bool(data[at + 1] & 0x80), bool(data[at + 1] & 0x40)
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        length = int.from_bytes(data[at + 5 : at + 8], "big")
        at += _PAGE_BYTES
        if size < 12 or at + length > end + (_MISSING_BYTES_MAX if size >= 12 + _MISSING_BYTES_MAX else 0):
            raise FormatError(where=where, reason=f"an element status page of {length} bytes, {size} an element")
        if page_kind == kind:
            for start in range(at, at + length - size + 1, size):
                yield _element(data[start : min(start + size, end)], kind, tagged, tagged_twice)
        at += length


def _element(data: bytes, kind: ElementKind, tagged: bool, tagged_twice: bool) -> Element:
    flags = data[2]
    full = bool(flags & 0x01)
    barcode = data[12:44].decode("ascii", "replace").strip("\0 ") if tagged and len(data) >= 44 else ""
    return Element(
        address=int.from_bytes(data[0:2], "big"),
        kind=kind,
        full=full,
        barcode=barcode if full else "",
        accessible=bool(flags & 0x08) or kind is ElementKind.ROBOT,
        source=int.from_bytes(data[10:12], "big") if full and data[9] & 0x80 else None,
        drive_serial=_serial(data[12 + _TAG_BYTES * (tagged + tagged_twice) :]) if kind is ElementKind.DRIVE else "",
        problem=(data[4], data[5]) if flags & 0x04 else None,
    )


def _serial(identifier: bytes) -> str:
    """The drive's serial number in its identifier: the last word of a T10 one, or all of one that is that alone."""
    if len(identifier) < 4:
        return ""
    code, kind, length = identifier[0] & 0x0F, identifier[1] & 0x0F, identifier[3]
    text = identifier[4 : 4 + length]
    if code != 0x02 or len(text) < length:
        return ""
    return text[24 if kind == 0x01 and length > 24 else 0 :].decode("ascii", "replace").strip("\0 ")
