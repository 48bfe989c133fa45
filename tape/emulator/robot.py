"""An emulated robot (SMC): elements, and cartridges carried between them.

    address   1         16 …              256 …       1024 …
              robot     import/export     drives      slots          as a TS-series library numbers them

Cartridges are known by their barcodes; where each lies, ``Shelf`` keeps, whose other user is whoever opens the door.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from tape.emulator import life
from tape.emulator.cartridge import Cartridge
from tape.emulator.check import Check, invalid_field
from tape.emulator.drive import DriveLun
from tape.emulator.lun import Lun
from tape.emulator.pace import Pace
from tape.scsi.sense import Key
from tape.scsi.transport import Buffer

ROBOT, MAIL, DRIVES, SLOTS = 0x0001, 0x0010, 0x0100, 0x0400
MAIL_ACCESSED = (0x28, 0x01)
_TAG_BYTES = 36
_IDENTIFIER_BYTES = 56  # maker, model, and a serial number of up to 32 characters


class ElementKind(IntEnum):
    """SMC's element types."""

    ALL = 0
    ROBOT = 1
    SLOT = 2
    MAIL = 3
    DRIVE = 4


@dataclass(slots=True)
class Shelf:
    """What lies where.

    Attributes:
        slots: how many storage elements.
        mail: how many import/export elements.
        drives: how many drives.
        full: barcode by address, of the elements that are not empty.
        sources: for a cartridge that was moved, the slot that it came from.
        unreadable: barcodes that the scanner cannot read.
        unreadable_code: as what it tells that; many makers have one of their own, such as 83/01.
        door_open: nobody moves anything.
    """

    slots: int
    mail: int
    drives: int
    full: dict[int, str] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    unreadable_code: tuple[int, int] = (0x30, 0x00)
    door_open: bool = False

    def elements(self, kind: ElementKind) -> Sequence[int]:
        """The addresses of a kind."""
        first, count = {
            ElementKind.ROBOT: (ROBOT, 1),
            ElementKind.SLOT: (SLOTS, self.slots),
            ElementKind.MAIL: (MAIL, self.mail),
            ElementKind.DRIVE: (DRIVES, self.drives),
        }[kind]
        return range(first, first + count)

    def kind_of(self, address: int) -> ElementKind | None:
        """What kind of element an address is; None when there is none."""
        for kind in (ElementKind.ROBOT, ElementKind.SLOT, ElementKind.MAIL, ElementKind.DRIVE):
            if address in self.elements(kind):
                return kind
        return None


class RobotLun(Lun):
    """The robot of one library."""

    kind: ClassVar[int] = 8

    def __init__(
        self,
        serial: str,
        shelf: Shelf,
        drives: Sequence[DriveLun],
        cartridge: Callable[[str], Cartridge],
        moved: Callable[[], None] = lambda: None,
        pace: Pace | None = None,
    ) -> None:
        """Make it.

        Args:
            serial: its number.
            shelf: what lies where.
            drives: in the order of their elements.
            cartridge: takes the one of a barcode in hand.
            moved: told after each move.
            pace: how long one takes; no time, if not given.
        """
        super().__init__("VCBPROXY", "LIBRARY", "0100", serial)
        assert len(drives) == shelf.drives
        self.shelf = shelf
        self._drives = drives
        self._cartridge = cartridge
        self._moved = moved
        self._pace = pace if pace is not None else Pace()
        self._handlers |= {
            0x07: self._inventory,
            0x1A: self._mode_sense,
            0x1E: lambda _cdb, _data: b"",
            0x2B: lambda _cdb, _data: b"",
            0x37: self._inventory,
            0x5A: self._mode_sense,
            0xA5: self._move,
            0xA6: self._exchange,
            0xB8: self._status,
            0xE7: self._inventory,
        }

    def _test_unit_ready(self, cdb: bytes, data: Buffer) -> bytes:
        self._hold_closed()
        return b""

    def _hold_closed(self) -> None:
        if self.shelf.door_open:
            raise Check(Key.NOT_READY, 0x04, 0x18)

    def _inventory(self, cdb: bytes, data: Buffer) -> bytes:
        self._hold_closed()
        return b""

    @contextmanager
    def hands(self) -> Iterator[Shelf]:
        """Somebody's hands are in it: for the length of a ``with`` the robot does nothing."""
        with self._lock:
            yield self.shelf

    def _move(self, cdb: bytes, data: Buffer) -> bytes:
        self._hold_closed()
        self.carry(int.from_bytes(cdb[4:6], "big"), int.from_bytes(cdb[6:8], "big"))
        return b""

    def _exchange(self, cdb: bytes, data: Buffer) -> bytes:
        """EXCHANGE MEDIUM: what lies at the first destination goes to the second, which may be the source."""
        self._hold_closed()
        source, first, second = (int.from_bytes(cdb[at : at + 2], "big") for at in (4, 6, 8))
        for full in (source, first):
            self._hold_places(full)
        self._hold_places(source, second)
        if second in self.shelf.full and second != source:
            raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0D)
        one, other = self._pick(source), self._pick(first)
        self._pace.move()
        self._put(first, *one)
        self._put(second, *other)
        self._moved()
        return b""

    def carry(self, source: int, destination: int) -> None:
        """Carry a cartridge.

        Raises:
            Check: that cannot be.
        """
        self._hold_places(source, destination)
        if destination in self.shelf.full and destination != source:
            raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0D)
        picked = self._pick(source)
        self._pace.move()
        self._put(destination, *picked)
        self._moved()

    def _hold_places(self, source: int, *others: int) -> None:
        """Hold that there are such places, and that something lies in the first."""
        for address in (source, *others):
            if self.shelf.kind_of(address) in (None, ElementKind.ROBOT):
                raise Check(Key.ILLEGAL_REQUEST, 0x21, 0x01)
        if source not in self.shelf.full:
            raise Check(Key.ILLEGAL_REQUEST, 0x3B, 0x0E)

    def _pick(self, source: int) -> tuple[Cartridge, int]:
        """Take one in hand; gives it, and the slot that it came from."""
        shelf, origin = self.shelf, source
        if shelf.kind_of(source) is ElementKind.DRIVE:
            emptied = self._drives[source - DRIVES]
            cartridge = emptied.take_out()
            life.note_traffic(cartridge, written_bytes=emptied.deck.written_bytes, read_bytes=emptied.deck.read_bytes)
            origin = shelf.sources.get(source, source)
        else:
            try:
                cartridge = self._cartridge(shelf.full[source])
            except ValueError:  # its folder is damaged
                raise Check(Key.MEDIUM_ERROR, 0x52) from None
        del shelf.full[source]
        shelf.sources.pop(source, None)
        return cartridge, origin

    def _put(self, destination: int, cartridge: Cartridge, origin: int) -> None:
        if self.shelf.kind_of(destination) is ElementKind.DRIVE:
            filled = self._drives[destination - DRIVES]
            life.note_load(cartridge, filled.vendor, filled.serial)
            filled.insert(cartridge)
        self.shelf.full[destination] = cartridge.barcode
        self.shelf.sources[destination] = origin

    # ------------------------------------------------------------------ what lies where

    def _status(self, cdb: bytes, data: Buffer) -> bytes:
        tagged, wanted = bool(cdb[1] & 0x10), cdb[1] & 0x0F
        start, count = int.from_bytes(cdb[2:4], "big"), int.from_bytes(cdb[4:6], "big")
        identified, length = bool(cdb[6] & 1), int.from_bytes(cdb[7:10], "big")
        if wanted > ElementKind.DRIVE:
            raise invalid_field()
        pages, told, first = b"", 0, 0
        for kind in (ElementKind.ROBOT, ElementKind.SLOT, ElementKind.MAIL, ElementKind.DRIVE):
            if wanted not in (ElementKind.ALL, kind):
                continue
            chosen = [address for address in self.shelf.elements(kind) if address >= start][: count - told]
            if not chosen:
                continue
            described = [self._described(kind, address, tagged, identified) for address in chosen]
            body = b"".join(described)
            head = bytes((kind, 0x80 if tagged else 0)) + len(described[0]).to_bytes(2, "big")
            pages += head + b"\0" + len(body).to_bytes(3, "big") + body
            first = first or chosen[0]
            told += len(chosen)
        head = first.to_bytes(2, "big") + told.to_bytes(2, "big") + b"\0" + len(pages).to_bytes(3, "big")
        return (head + pages)[:length]

    def _described(self, kind: ElementKind, address: int, tagged: bool, identified: bool) -> bytes:
        shelf = self.shelf
        barcode = shelf.full.get(address)
        flags = int(barcode is not None)
        if kind is ElementKind.MAIL:
            flags |= 0x30  # both import and export
        if kind is not ElementKind.ROBOT and not (kind is ElementKind.DRIVE and self._threaded(address)):
            flags |= 0x08  # the robot can get at it
        code = shelf.unreadable_code if barcode in shelf.unreadable else (0, 0)
        if code != (0, 0):
            flags |= 0x04
        source = shelf.sources.get(address) if barcode is not None else None
        valid = b"\x80" + source.to_bytes(2, "big") if source is not None else bytes(3)
        made = address.to_bytes(2, "big") + bytes((flags, 0, *code, 0, 0, 0)) + valid
        if tagged:
            text = barcode if barcode is not None and barcode not in shelf.unreadable else ""
            made += text.encode("ascii").ljust(32, b" " if text else b"\0") + bytes(_TAG_BYTES - 32)
        return made + self._identifier(kind, address, identified)

    def _identifier(self, kind: ElementKind, address: int, identified: bool) -> bytes:
        """The drive's own name (DVCID), by which an element is matched with a device."""
        if not identified or kind is not ElementKind.DRIVE:
            return bytes(4 + (_IDENTIFIER_BYTES if identified else 0))
        drive = self._drives[address - DRIVES]
        text = (drive.vendor.ljust(8) + drive.product.ljust(16) + drive.serial).encode("ascii")
        return bytes((0x02, 0x01, 0, len(text))) + text.ljust(_IDENTIFIER_BYTES, b"\0")

    def _threaded(self, address: int) -> bool:
        return self._drives[address - DRIVES].occupied

    def _mode_sense(self, cdb: bytes, data: Buffer) -> bytes:
        pages = {0x1D: self._addresses(), 0x1E: bytes((0x1E, 2, 0, 0)), 0x1F: self._capabilities()}
        page = cdb[2] & 0x3F
        if page == 0x3F:
            body = b"".join(pages.values())
        elif page in pages:
            body = pages[page]
        else:
            raise invalid_field()
        if cdb[0] == 0x1A:
            return (bytes((3 + len(body), 0, 0, 0)) + body)[: cdb[4]]
        return ((6 + len(body)).to_bytes(2, "big") + bytes(6) + body)[: int.from_bytes(cdb[7:9], "big")]

    def _addresses(self) -> bytes:
        shelf = self.shelf
        numbers = (ROBOT, 1, SLOTS, shelf.slots, MAIL, shelf.mail, DRIVES, shelf.drives)
        return bytes((0x1D, 18)) + b"".join(number.to_bytes(2, "big") for number in numbers) + bytes(2)

    def _capabilities(self) -> bytes:
        """Slots, mail slots and drives hold cartridges, and each can be moved from and to each."""
        return bytes((0x1F, 18, 0x0E, 0, 0, 0x0E, 0x0E, 0x0E)) + bytes(12)
