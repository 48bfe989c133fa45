"""A robot, used with care: a look before each move, and another one after each that failed.

What was planned by an old look is not carried out when hands have been at the places concerned since then; what a
failed move has left where is said by a new look, or said to be unknown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tape.devices import Devices
from tape.elements import Element, ElementKind, Inventory
from tape.errors import LibraryChanged, LibraryError, MediumChanged, MoveFailed, TapeError

_WAIT_S = 900.0  # another program's move, or its taking stock of a few slots


class Arm:
    """A library's robot, for several threads and programs, one at a time."""

    def __init__(self, devices: Devices, name: str, known_drives: Mapping[int, str]) -> None:
        """Use it.

        Args:
            devices: the robot among them.
            name: what messages call the library.
            known_drives: serial numbers of drives by their numbers, from 0, if the robot does not tell.
        """
        self._devices = devices
        self._robot = devices.robot
        self._name = name
        self._known_drives = dict(known_drives)
        self._hand = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the robot for a look and the moves that are planned by it.

        Raises:
            InUse: another program keeps it busy.
        """
        with self._hand, self._devices.taken(self._robot.serial or self._robot.name, _WAIT_S):
            yield

    def look(self) -> Inventory:
        """What lies where, by the robot's word now; the caller has the arm.

        Raises:
            TapeError: it does not tell.
        """
        elements = self._robot.elements()
        drives = [element.address for element in elements if element.kind is ElementKind.DRIVE]
        return Inventory(self._name, tuple(self._with_serial(element, drives) for element in elements))

    def inventory(self) -> Inventory:
        """What lies where, by a look for which the robot is taken.

        Raises:
            InUse: another program keeps the robot busy.
            NotReady: its door is open, or it is taking stock.
            TapeError: it does not tell.
        """
        with self.held():
            return self.look()

    def _with_serial(self, element: Element, drives: Sequence[int]) -> Element:
        if element.kind is not ElementKind.DRIVE:
            return element
        told = element.drive_serial or self._known_drives.get(drives.index(element.address), "")
        return replace(element, drive_serial=self._spelled(told) if told else "")

    def _spelled(self, told: str) -> str:
        """A serial number as the drive itself spells it: some robots leave out leading zeroes."""
        drives = self._devices.drives
        if told in drives:
            return told
        alike = [serial for serial in drives if serial.lstrip("0") == told.lstrip("0")]
        return alike[0] if len(alike) == 1 else told

    def carry(self, inventory: Inventory, source: Element, destination: Element) -> Element:
        """Carry what lies in an element; the caller has the arm. Gives where it is now.

        Args:
            inventory: what a look has just shown.
            source: of that look.
            destination: of that look.

        Raises:
            LibraryError: nothing lies in the source.
            MoveFailed: it was not carried; after a new look.
            LibraryChanged: hands have been at one of the places since.
        """
        if not source.full:
            raise LibraryError(f"{self._name}: nothing lies in {source}")
        try:
            try:
                self._robot.move(source, destination)
            except MediumChanged as error:
                self._unchanged(inventory, source, destination, error)
                self._robot.move(source, destination)
        except LibraryChanged:
            raise
        except TapeError as error:
            raise self._not_carried(source, destination, error) from error
        return self.look().at(destination.kind, destination.address)

    def _unchanged(self, before: Inventory, source: Element, destination: Element, error: MediumChanged) -> None:
        """Hands were in the library: what was planned still holds if both places are as they were."""
        after = self.look()
        for place in (source, destination):
            now = after.at(place.kind, place.address)
            if (now.full, now.barcode) != (place.full, place.barcode):
                what = f"{place} held {_content(place)}, and now {_content(now)}"
                raise LibraryChanged(library=self._name, what=what, before=before, after=after) from error

    def _not_carried(self, source: Element, destination: Element, error: TapeError) -> MoveFailed:
        """What to say of a move that failed, after a new look."""
        cartridge = source.barcode or "a cartridge without a label"
        place: Element | None = None
        try:
            after = self.look()
        except TapeError as second:
            now = f"where it lies now cannot be seen ({second}): look at the inventory before anything else is moved"
        else:
            # Without a label it is told from others by its place alone.
            ends = {(one.kind, one.address) for one in (source, destination)}
            among = [one for one in after.elements if source.barcode or (one.kind, one.address) in ends]
            place = next((one for one in among if one.full and one.barcode == source.barcode), None)
            now = (
                f"it lies in {place} now"
                if place is not None
                else "it is nowhere to be seen now: look into the library"
            )
        return MoveFailed(
            library=self._name, cartridge=cartridge, source=source, destination=destination,
            reason=str(error), now=now, place=place, because=error,
        )  # fmt: skip

    def take_stock(self) -> None:
        """Have the robot look at every label anew; the caller has the arm.

        Raises:
            TapeError: it cannot.
        """
        self._robot.take_stock()


def _content(element: Element) -> str:
    return (element.barcode or "a cartridge without a label") if element.full else "nothing"
