"""What a library has, and who carries it: elements, what lies in them, and the seam to whatever moves the arm.

    drive 0 │ drive 1 │ …     slot │ slot │ slot │ …     mail slot │ …
        ╰───────── robot carries a cartridge from any element to any other ─────────╯

Cartridges are known by their barcodes, drives by their serial numbers; numbers of elements are the library's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from tape.errors import CartridgeMissing, LibraryError, TapeError

CLEANING_PREFIX = "CLN"


class ElementKind(IntEnum):
    """What an element is."""

    ROBOT = 1
    SLOT = 2
    MAIL_SLOT = 3
    DRIVE = 4

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Element:
    """One place in which a cartridge may lie.

    Attributes:
        address: the robot's number for it: SMC's, or that of ``mtx``.
        kind: what it is.
        full: whether one lies there.
        barcode: its label; nothing when it is empty, or has none that can be read.
        accessible: whether the robot can get at it; a drive that has threaded its tape is not.
        source: the slot that the cartridge came from, where the robot remembers.
        drive_serial: of the drive, where the robot tells.
        problem: what is wrong with it (asc, ascq), where something is.
    """

    address: int
    kind: ElementKind
    full: bool
    barcode: str = ""
    accessible: bool = True
    source: int | None = None
    drive_serial: str = ""
    problem: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.address}"


class Robot(Protocol):
    """Whoever moves cartridges. For one thread, and one program at a time."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def serial(self) -> str:
        """By which it is known."""

    def elements(self) -> list[Element]:
        """Everything that the library has, without moving anything.

        Raises:
            NotReady: its door is open, or it is taking stock.
            TapeError: it does not tell.
        """

    def take_stock(self) -> None:
        """Look at every label anew; takes minutes.

        Raises:
            TapeError: it cannot.
        """

    def move(self, source: Element, destination: Element) -> None:
        """Carry a cartridge.

        Raises:
            RemovalPrevented: the drive holds it: unload it first.
            SourceEmpty: nothing lies there.
            DestinationFull: something lies there.
            MediumChanged: cartridges may have been moved by hand: look again. Nothing was carried.
            TapeError: it failed; where the cartridge is now, only a new look tells.
        """

    def close(self) -> None:
        """Let it go."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What lay where at one look.

    Attributes:
        name: the library's.
        elements: all of them, each kind in the order of its addresses.
    """

    name: str
    elements: tuple[Element, ...]

    def of_kind(self, kind: ElementKind) -> list[Element]:
        """Those of one kind; an element's place in it is its number for people, from 0."""
        return [element for element in self.elements if element.kind is kind]

    @property
    def barcodes(self) -> list[str]:
        """Every label that can be read."""
        return [element.barcode for element in self.elements if element.full and element.barcode]

    def where(self, barcode: str) -> Element:
        """Where a cartridge lies.

        Raises:
            CartridgeMissing: it is not in the library.
            LibraryError: two have this label.
        """
        found = by_barcode(self.elements, barcode)
        twin = next((one for one in self.elements if one.barcode == barcode and one is not found), None)
        if twin is not None:
            raise LibraryError(f"{self.name}: two cartridges bear the label {barcode}, in {found} and {twin}")
        return found

    def at(self, kind: ElementKind, address: int) -> Element:
        """The element of an address.

        Raises:
            TapeError: there is none.
        """
        for element in self.of_kind(kind):
            if element.address == address:
                return element
        known = ", ".join(str(element.address) for element in self.of_kind(kind)) or "none"
        raise TapeError(f"{self.name}: there is no {kind} {address}; there are: {known}")

    def drive(self, serial: str) -> Element:
        """The element that is a certain drive.

        Raises:
            TapeError: there is none.
        """
        for element in self.of_kind(ElementKind.DRIVE):
            if element.drive_serial == serial:
                return element
        known = ", ".join(element.drive_serial or f"element {element.address} (serial not told)"
                          for element in self.of_kind(ElementKind.DRIVE))  # fmt: skip
        raise TapeError(f"{self.name}: the robot has no drive {serial}; it has: {known or 'none'}")

    def home_of(self, element: Element) -> Element:
        """Where the cartridge in an element belongs: the slot it came from, or an empty one.

        One from which a cartridge came that is in a drive now is kept free for that, as long as there are others.

        Raises:
            LibraryError: every slot is full.
        """
        empty = [one for one in self.of_kind(ElementKind.SLOT) if not one.full]
        if not empty:
            raise LibraryError(
                f"{self.name}: every slot is full; export a cartridge, to make room for the one in {element}"
            )
        away = {one.source for one in self.of_kind(ElementKind.DRIVE) if one.full and one != element}
        own = [one for one in empty if one.address == element.source]
        free = [one for one in empty if one.address not in away]
        return (own or free or empty)[0]

    def empty_mail_slot(self) -> Element:
        """One through which a cartridge can leave.

        Raises:
            LibraryError: there is none, or all are full.
        """
        found = next((one for one in self.of_kind(ElementKind.MAIL_SLOT) if not one.full), None)
        if found is None:
            raise LibraryError(f"{self.name}: no mail slot is empty; take the exported cartridges out")
        return found


def by_barcode(elements: Sequence[Element], barcode: str) -> Element:
    """Where a cartridge lies.

    Raises:
        CartridgeMissing: it is not in the library.
    """
    found = next((element for element in elements if element.full and element.barcode == barcode), None)
    if found is None:
        raise CartridgeMissing(barcode=barcode)
    return found
