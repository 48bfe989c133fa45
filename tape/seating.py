"""Cartridges brought into drives and taken out of them: which drive is chosen, and what must be moved for it.

    asked for ─▶ a drive that is free and would do ─▶ what idles in it is taken home ─▶ the cartridge is carried there
                  └ none: wait until one is let go     └ hands were at these places since the look: planned anew

A cartridge that is no longer used stays in its drive until the drive is wanted for another: those that have idled
longest give way first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tape.arm import Arm
from tape.elements import Element, ElementKind, Inventory
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
from tape.seats import Seats
from tape.sequential import SequentialDrive

_OVERTAKEN_MAX = 3
_SEATS_LOOK_S = 5.0  # whether another program has let a drive go: the robot is asked each time

_log = logging.getLogger(__name__)


class Seating:
    """Who sits in which drive of one library. Any thread may call any method."""

    def __init__(
        self, name: str, drives: Collection[str], arm: Arm, seats: Seats, *, monotonic: Callable[[], float]
    ) -> None:
        """Bring and take cartridges.

        Args:
            name: what messages call the library.
            drives: serial numbers of those that this host has.
            arm: the robot.
            seats: the drives.
            monotonic: a clock, in seconds.
        """
        self.name = name
        self._drives = drives
        self._arm = arm
        self._seats = seats
        self._monotonic = monotonic
        self._left: dict[str, str] = {}
        """Drives in which we have left a cartridge, longest ago first, and its label."""

    def inventory(self) -> Inventory:
        """What lies where, by a look now; see ``Arm.inventory``."""
        return self._arm.inventory()

    @contextmanager
    def seated(self, barcode: str, serial: str, *, wait_s: float = 0.0) -> Iterator[SequentialDrive]:
        """Have any cartridge, those for cleaning too, lie in a drive for the length of a ``with``: as it is.

        It is neither threaded nor verified, and brought home in the end.

        Raises:
            TapeError: as ``loaded``.
        """
        with self.seat(barcode, wait_s, [serial]) as seat:
            with self._seats.session(seat) as drive:
                yield drive
            self.empty(seat)

    @contextmanager
    def seat(self, barcode: str, wait_s: float, among: Sequence[str]) -> Iterator[str]:
        """Have a drive with that cartridge in it, for a ``with``; it stays there. Gives the drive's number.

        Args:
            barcode: the cartridge.
            wait_s: how long to wait for a drive, or for whoever has this cartridge.
            among: serial numbers of the drives to choose from; any, if none are given.

        Raises:
            InUse: every drive is taken, or the one that has it.
            LibraryError: it is not in the library, or could not be carried; or it is overtaken again and again.
        """
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

    def empty(self, serial: str, destination: Element | None = None) -> Element:
        """Take out what lies in a drive on which the caller has a lease, home or elsewhere; gives where it is now.

        Raises:
            LibraryError: nothing is in it, or there is no place for it.
            MoveFailed: it could not be carried.
        """
        if not self._arm.inventory().drive(serial).full:
            raise LibraryError(f"{self.name}: nothing is in drive {serial}")
        self._eject(serial)
        with self._arm.held():
            inventory = self._arm.look()
            drive = inventory.drive(serial)
            place = destination or inventory.home_of(drive)
            carried = self._arm.carry(inventory, drive, inventory.at(place.kind, place.address))
        self._left.pop(serial, None)
        return carried

    def leave(self, serial: str) -> None:
        """What lies in this drive is meant to stay there."""
        self._left.pop(serial, None)

    def put_away(self) -> None:
        """Bring home what was left in drives, but for drives that somebody uses.

        Raises:
            TapeError: one could not be brought home; the others were.
        """
        first: TapeError | None = None
        for serial, barcode in list(self._left.items()):
            try:
                with self._seats.lease(serial, 0.0):
                    if self._arm.inventory().drive(serial).barcode == barcode:
                        self.empty(serial)
            except InUse:
                continue
            except TapeError as error:
                first = first or error
        if first is not None:
            raise first

    # ------------------------------------------------------------------ which drive, and what it takes

    def _take_one(
        self, barcode: str, among: Sequence[str], taken: ExitStack
    ) -> tuple[str | None, list[InUse | Reserved]]:
        """Take the first drive that is free of those that would do; else who has them."""
        inventory = self._arm.inventory()
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
            if element.drive_serial in self._drives and (not among or element.drive_serial in among)
        ]
        if not reachable:
            told = ", ".join(element.drive_serial or "?" for element in inventory.of_kind(ElementKind.DRIVE)) or "none"
            known = ", ".join(among or self._drives) or "none"
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
        drive = self._arm.inventory().drive(serial)
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

    def _eject(self, serial: str) -> None:
        """Have a drive of ours give its cartridge out."""
        if serial not in self._drives:
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


def _is_overtaken(error: LibraryError) -> bool:
    """Whether others were at the places of a move in the moment between the look and the move; nothing was carried."""
    because = getattr(error, "because", None)
    return isinstance(error, LibraryChanged) or isinstance(because, SourceEmpty | DestinationFull)


def _drive(element: Element) -> str:
    return f"drive {element.drive_serial}" if element.drive_serial else str(element)
