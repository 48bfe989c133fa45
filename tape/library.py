"""A library: one robot and its drives, everything known by serial number and label.

    with Library.in_folder(path) as library, library.loaded("TAP001L8", wait_s=600) as drive:
        ...                                          a drive, its cartridge threaded, verified and held

Nothing about what lies where is remembered: the robot is asked before every move, which costs it milliseconds, and
other programs, other hosts and hands may have been there. What a failed move has left where, only a new look tells.

Several threads, and several programs, may use one library: each drive belongs to one of them at a time, the robot to
whoever moves just now. A cartridge that is no longer used stays in its drive until the drive is wanted for another, or
the library is closed: a job's next volume is mostly the one of its last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tape import arrival
from tape.arm import Arm
from tape.attendant import Attendant, Heard
from tape.cleaninglog import CleaningLog
from tape.devices import Devices, EmulatedDevices
from tape.elements import CLEANING_PREFIX, Element, ElementKind, Inventory
from tape.errors import LibraryError, TapeError
from tape.scsi.reservationkey import key_of
from tape.seating import Seating
from tape.seats import Seats
from tape.sequential import SequentialDrive


class Library:
    """One library, opened. Any thread may call any method."""

    def __init__(
        self,
        devices: Devices,
        *,
        name: str = "",
        known_drives: Mapping[int, str] | None = None,
        keep_loaded: bool = True,
        puts_away: bool = True,
        cleaning: CleaningLog | None = None,
        heard: Callable[[Heard], None] | None = None,
        reserve_as: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use devices; they are closed with this.

        Args:
            devices: the robot, and how to get at the drives.
            name: what messages call it; by its robot's serial number, if not given.
            known_drives: serial numbers of drives by their numbers in the library, from 0, for a robot that does not
                tell them: see ``tape.drivemap``.
            keep_loaded: whether a cartridge stays in its drive until that is wanted for another.
            puts_away: whether cartridges are brought home in the end; where people feed the drive, they rather stay.
            cleaning: if drives that ask for it are cleaned by us: where the uses of cleaning cartridges are counted.
            heard: told what drives complain of; else it is logged.
            reserve_as: this host's name, to keep drives from other hosts while they are used; None: they are not.
            sleep: waits so many seconds.
            monotonic: a clock, in seconds.
        """
        self._devices = devices
        self.name = name or f"library {devices.robot.serial or devices.robot.name}"
        self._arm = Arm(devices, self.name, known_drives or {})
        self._keep_loaded = keep_loaded
        self._puts_away = puts_away
        self._attendant = Attendant(cleaning, heard)
        self._sleep = sleep
        self._monotonic = monotonic
        self._seats = Seats(devices, monotonic, key_of(reserve_as) if reserve_as is not None else None)
        self.seating = Seating(self.name, devices.drives, self._arm, self._seats, monotonic=monotonic)
        """Cartridges in drives as they are, those for cleaning too; and those that idle there."""

    @classmethod
    def in_folder(cls, folder: Path, *, name: str = "", keep_loaded: bool = True) -> Self:
        """An emulated one, in this process.

        Raises:
            InUse: another program has it open.
            TapeError: there is none.
        """
        return cls(EmulatedDevices(folder), name=name or str(folder), keep_loaded=keep_loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put away what was left in drives, and let everything go. The first error is the one to be told."""
        try:
            if self._puts_away:
                self.seating.put_away()
        except TapeError as second:
            if error is None:
                raise
            error.add_note(str(second))
        finally:
            self.close()

    def close(self) -> None:
        """Let everything go, cartridges left where they are."""
        self._devices.close()

    # ------------------------------------------------------------------ what lies where

    def inventory(self) -> Inventory:
        """What lies where, without moving anything.

        Raises:
            InUse: another program keeps the robot busy.
            NotReady: its door is open, or it is taking stock.
            TapeError: it does not tell.
        """
        return self._arm.inventory()

    def take_stock(self) -> Inventory:
        """Have every label looked at anew, which takes minutes.

        Raises:
            TapeError: as ``inventory``.
        """
        with self._arm.held():
            self._arm.take_stock()
            return self._arm.look()

    @property
    def reachable(self) -> Sequence[str]:
        """Serial numbers of the drives that this host has; other libraries' may be among them."""
        return tuple(self._devices.drives)

    def holder(self, serial: str) -> str | None:
        """Who has a drive now, in words; None when nobody has.

        Raises:
            TapeError: that cannot be seen.
        """
        return self._seats.holder(serial)

    # ------------------------------------------------------------------ drives and what is in them

    @contextmanager
    def loaded(self, barcode: str, *, wait_s: float = 0.0, among: Sequence[str] = ()) -> Iterator[SequentialDrive]:
        """Have a cartridge in a drive, ready and held, for the length of a ``with``.

        Args:
            barcode: its label.
            wait_s: how long to wait for a drive, or for whoever has this cartridge.
            among: serial numbers of the drives to choose from; any, if none are given.

        Raises:
            CartridgeMissing: it is not in the library.
            InUse: every drive is taken, or the one that has it.
            WrongCartridge: its memory says that it is another one.
            MoveFailed: it could not be carried.
            LibraryChanged: cartridges are moved by hand, again and again: what others have changed since the look is
                planned anew a few times.
            TapeError: the drive cannot use it.
        """
        if barcode.startswith(CLEANING_PREFIX):
            raise LibraryError(f"{self.name}: {barcode} is a cleaning cartridge; it holds no data")
        with self.seating.seat(barcode, wait_s, among) as serial:
            with self._seats.session(serial) as drive:
                arrival.thread(drive, barcode, self._sleep, self._monotonic)
                try:
                    with drive.held():
                        self._attendant.hear(serial, barcode, drive)
                        arrival.identify(drive, barcode)  # last: from here on hands can exchange it no more
                        yield drive
                except BaseException:
                    with suppress(TapeError):  # the first error is the one to be told
                        self._attendant.hear(serial, barcode, drive)
                    raise
                self._attendant.hear(serial, barcode, drive)
            if not self._keep_loaded:
                self.seating.empty(serial)
        self._attendant.clean_if_asked(self.seating, serial, sleep=self._sleep, monotonic=self._monotonic)

    @contextmanager
    def drive(self, serial: str, *, wait_s: float = 0.0) -> Iterator[SequentialDrive]:
        """Have a drive as it is, whatever lies in it, for the length of a ``with``.

        Raises:
            InUse: it is taken.
            TapeError: there is no such drive, or it does not answer.
        """
        with self._seats.lease(serial, wait_s), self._seats.session(serial) as drive:
            yield drive

    def load(self, barcode: str, serial: str, *, wait_s: float = 0.0) -> None:
        """Put a cartridge into a certain drive and leave it there, threaded, also when the library is closed.

        Raises:
            TapeError: as ``loaded``.
        """
        with self.loaded(barcode, wait_s=wait_s, among=[serial]):
            pass
        self.seating.leave(serial)

    def unload(self, serial: str, destination: Element | None = None, *, wait_s: float = 0.0) -> Element:
        """Take the cartridge out of a drive, back into its slot or to another place; gives where it is now.

        Raises:
            InUse: the drive is taken.
            LibraryError: nothing is in it, or there is no place for it.
            MoveFailed: it could not be carried.
        """
        with self._seats.lease(serial, wait_s):
            return self.seating.empty(serial, destination)

    # ------------------------------------------------------------------ carrying

    def move(self, source: Element, destination: Element, *, wait_s: float = 0.0) -> Element:
        """Carry whatever lies in one element to another; a drive is unloaded first. Gives where it is now.

        Raises:
            InUse: a drive is taken.
            LibraryError: nothing lies in the source.
            MoveFailed: it could not be carried.
        """
        if source.kind is ElementKind.DRIVE:
            return self.unload(self._known(source), destination, wait_s=wait_s)
        with ExitStack() as taken:
            if destination.kind is ElementKind.DRIVE:
                taken.enter_context(self._seats.lease(self._known(destination), wait_s))
            with self._arm.held():
                inventory = self._arm.look()
                start = inventory.at(source.kind, source.address)
                return self._arm.carry(inventory, start, inventory.at(destination.kind, destination.address))

    def export(self, barcode: str, *, wait_s: float = 0.0) -> Element:
        """Put a cartridge into a mail slot, for a person to take out; gives which one.

        Raises:
            LibraryError: no mail slot is empty.
            TapeError: as ``move``.
        """
        inventory = self.inventory()
        found = inventory.where(barcode)
        if found.kind is ElementKind.MAIL_SLOT:
            return found
        return self.move(found, inventory.empty_mail_slot(), wait_s=wait_s)

    def import_(self) -> list[Element]:
        """Take in what lies in the mail slots; gives the slots that they are in now.

        One without a label that can be read stays where it is: nobody could tell it from others in there.

        Raises:
            LibraryError: every slot is full; what was taken in before stays.
            MoveFailed: one could not be carried.
        """
        brought: list[Element] = []
        with self._arm.held():
            inventory = self._arm.look()
            for element in inventory.of_kind(ElementKind.MAIL_SLOT):
                if element.full and element.barcode:
                    home = inventory.home_of(element)
                    brought.append(self._arm.carry(inventory, element, home))
                    inventory = self._arm.look()
        return brought

    def _known(self, drive: Element) -> str:
        if not drive.drive_serial:
            raise LibraryError(f"{self.name}: the robot does not tell which drive is {drive}; map the drives first")
        return drive.drive_serial
