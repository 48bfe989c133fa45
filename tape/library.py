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

import logging
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
from tape.errors import (
    DestinationFull,
    InUse,
    LibraryChanged,
    LibraryError,
    NotReady,
    RefusedCommand,
    RemovalPrevented,
    Reserved,
    SourceEmpty,
    TapeError,
)
from tape.scsi.reservation import key_of
from tape.seats import Seats
from tape.sequential import SequentialDrive

_OVERTAKEN_MAX = 3
_SEATS_LOOK_S = 5.0  # whether another program has let a drive go: the robot is asked each time


_log = logging.getLogger(__name__)


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
        self._left: dict[str, str] = {}
        """Drives in which we have left a cartridge, longest ago first, and its label."""

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
                self.put_away()
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
        with self._arm.held():
            return self._arm.look()

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
        with self._seat(barcode, wait_s, among) as serial:
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
                self._empty(serial)
        self._attendant.clean_if_asked(self, serial, sleep=self._sleep, monotonic=self._monotonic)

    @contextmanager
    def seated(self, barcode: str, serial: str, *, wait_s: float = 0.0) -> Iterator[SequentialDrive]:
        """Have any cartridge, those for cleaning too, lie in a drive for the length of a ``with``: as it is.

        It is neither threaded nor verified, and brought home in the end.

        Raises:
            TapeError: as ``loaded``.
        """
        with self._seat(barcode, wait_s, [serial]) as seat:
            with self._seats.session(seat) as drive:
                yield drive
            self._empty(seat)

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
        self._left.pop(serial, None)

    def unload(self, serial: str, destination: Element | None = None, *, wait_s: float = 0.0) -> Element:
        """Take the cartridge out of a drive, back into its slot or to another place; gives where it is now.

        Raises:
            InUse: the drive is taken.
            LibraryError: nothing is in it, or there is no place for it.
            MoveFailed: it could not be carried.
        """
        with self._seats.lease(serial, wait_s):
            return self._empty(serial, destination)

    def put_away(self) -> None:
        """Bring home what was left in drives, but for drives that somebody uses.

        Raises:
            TapeError: one could not be brought home; the others were.
        """
        first: TapeError | None = None
        for serial, barcode in list(self._left.items()):
            try:
                with self._seats.lease(serial, 0.0):
                    if self.inventory().drive(serial).barcode == barcode:
                        self._empty(serial)
            except InUse:
                continue
            except TapeError as error:
                first = first or error
        if first is not None:
            raise first

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

    def transfer(self, barcode: str, destination: Element, *, wait_s: float = 0.0) -> Element:
        """Carry a cartridge, wherever it lies, to an element; gives where it is now.

        Raises:
            CartridgeMissing: it is not in the library.
            TapeError: as ``move``.
        """
        return self.move(self.inventory().where(barcode), destination, wait_s=wait_s)

    def export(self, barcode: str, *, wait_s: float = 0.0) -> Element:
        """Put a cartridge into a mail slot, for a person to take out; gives which one.

        Raises:
            LibraryError: no mail slot is empty.
            TapeError: as ``transfer``.
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

    # ------------------------------------------------------------------ the drives' side

    @contextmanager
    def _seat(self, barcode: str, wait_s: float, among: Sequence[str]) -> Iterator[str]:
        """Have a drive with that cartridge in it."""
        until_s = self._monotonic() + wait_s
        overtaken = 0
        while True:
            with ExitStack() as taken:
                serial, refusals = self._take_one(barcode, among, taken)
                try:
                    brought = serial is not None and self._bring(barcode, serial)
                except LibraryError as error:
                    overtaken += 1
                    if not _is_overtaken(error) or overtaken > _OVERTAKEN_MAX:
                        raise
                    _log.warning("%s; planned anew", error)
                    continue
                if serial is not None:
                    if not brought:
                        continue  # another drive got it first
                    self._left.pop(serial, None)
                    self._left[serial] = barcode
                    yield serial
                    return
            if self._monotonic() >= until_s:
                raise refusals[0] if len(refusals) == 1 else InUse(
                    device=f"every drive of {self.name}", holder=", ".join(str(one.holder) for one in refusals)
                )  # fmt: skip
            self._seats.wait(min(_SEATS_LOOK_S, until_s - self._monotonic()))

    def _take_one(
        self, barcode: str, among: Sequence[str], taken: ExitStack
    ) -> tuple[str | None, list[InUse | Reserved]]:
        """Take the first drive that is free of those that would do; else who has them."""
        inventory = self.inventory()
        refusals: list[InUse | Reserved] = []
        for serial in self._choices(inventory, inventory.where(barcode), among):
            with ExitStack() as trial:
                try:
                    trial.enter_context(self._seats.lease(serial, 0.0))
                    self._seats.hold_ours(serial)
                except (InUse, Reserved) as error:
                    refusals.append(error)
                else:
                    taken.push(trial.pop_all())
                    return serial, refusals
        return None, refusals

    def _choices(self, inventory: Inventory, found: Element, among: Sequence[str]) -> list[str]:
        """Drives that would do, best first: the one that has it; empty ones; those whose cartridge idled longest."""
        reachable = [
            element
            for element in inventory.of_kind(ElementKind.DRIVE)
            if element.drive_serial in self._devices.drives and (not among or element.drive_serial in among)
        ]
        if not reachable:
            told = ", ".join(element.drive_serial or "?" for element in inventory.of_kind(ElementKind.DRIVE)) or "none"
            known = ", ".join(among or self._devices.drives) or "none"
            raise LibraryError(f"{self.name}: its drives are {told}; asked for, or known to this host: {known}")
        if found.kind is ElementKind.DRIVE:
            if found not in reachable:
                raise LibraryError(f"{self.name}: {found.barcode} lies in {_drive(found)}; unload it there first")
            return [found.drive_serial]
        idle = list(self._left)
        full = [element.drive_serial for element in reachable if element.full]
        full.sort(key=lambda serial: idle.index(serial) if serial in idle else -1)
        return [element.drive_serial for element in reachable if not element.full] + full

    def _bring(self, barcode: str, serial: str) -> bool:
        """Put a cartridge into a drive of ours; False when another drive got it first."""
        drive = self.inventory().drive(serial)
        if drive.full and drive.barcode == barcode:
            return True
        if drive.full:
            self._eject(serial)  # takes minutes, in which the robot can serve others
        with self._arm.held():
            inventory = self._arm.look()
            drive = inventory.drive(serial)
            if inventory.where(barcode).kind is ElementKind.DRIVE:
                return inventory.where(barcode) == drive
            if drive.full:
                self._arm.carry(inventory, drive, inventory.home_of(drive))
                inventory = self._arm.look()
            self._arm.carry(inventory, inventory.where(barcode), inventory.drive(serial))
        return True

    def _empty(self, serial: str, destination: Element | None = None) -> Element:
        """Take out what lies in a drive of ours."""
        if not self.inventory().drive(serial).full:
            raise LibraryError(f"{self.name}: nothing is in drive {serial}")
        self._eject(serial)
        with self._arm.held():
            inventory = self._arm.look()
            drive = inventory.drive(serial)
            place = destination or inventory.home_of(drive)
            carried = self._arm.carry(inventory, drive, inventory.at(place.kind, place.address))
        self._left.pop(serial, None)
        return carried

    def _eject(self, serial: str) -> None:
        """Have a drive of ours give its cartridge out."""
        if serial not in self._devices.drives:
            return  # it may be one that gives out by itself; if not, the robot will say so
        with self._seats.session(serial) as drive:
            # A program that died may have left it held; now nobody else on this host can be using it.
            drive.release()
            try:
                drive.unload()
            except RemovalPrevented:
                raise
            except (NotReady, RefusedCommand):  # it has been given out already, as after cleaning; the robot will tell
                return

    def _known(self, drive: Element) -> str:
        if not drive.drive_serial:
            raise LibraryError(f"{self.name}: the robot does not tell which drive is {drive}; map the drives first")
        return drive.drive_serial


def _is_overtaken(error: LibraryError) -> bool:
    """Whether others were at the places of a move in the moment between the look and the move; nothing was carried."""
    because = getattr(error, "because", None)
    return isinstance(error, LibraryChanged) or isinstance(because, SourceEmpty | DestinationFull)


def _drive(element: Element) -> str:
    return f"drive {element.drive_serial}" if element.drive_serial else str(element)
