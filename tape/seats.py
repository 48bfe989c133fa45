"""Which drive is whose: each belongs to one thread of one program at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from tape.devices import Devices
from tape.errors import InUse, TapeError
from tape.scsi.reservation import reserved
from tape.sequential import SequentialDrive

LOOK_AGAIN_S = 1.0  # whether another program has let go of a drive: they do not tell us
_US = "another task of this program"


class Seats:
    """The drives of a library, given out."""

    def __init__(self, devices: Devices, monotonic: Callable[[], float], reservation_key: bytes | None = None) -> None:
        """Give out the drives of these devices.

        Args:
            devices: the drives among them.
            monotonic: a clock, in seconds.
            reservation_key: with which each drive is kept from other hosts while it is spoken to; None: it is not.
        """
        self._reservation_key = reservation_key
        self._devices = devices
        self._monotonic = monotonic
        self._freed = threading.Condition()
        self._leased: set[str] = set()

    @contextmanager
    def session(self, serial: str) -> Iterator[SequentialDrive]:
        """Speak with a drive for the length of a ``with``; the caller has a lease on it.

        Raises:
            Reserved: another host has it.
            TapeError: this host has no such drive, another one answers in its place, or it does not answer.
        """
        try:
            opener = self._devices.drives[serial]
        except KeyError:
            known = ", ".join(self._devices.drives) or "none"
            raise TapeError(f"drive {serial} is not known to this host; known: {known}") from None
        with closing(opener()) as drive:
            # Device files are numbered anew whenever a path to the drives comes back: this one may be another's by now.
            if drive.identity.serial != serial:
                found = drive.identity.serial or "one without a serial number"
                raise TapeError(f"{drive.name} was drive {serial}, and is {found} now; nothing was done, ask again")
            if self._reservation_key is None:
                yield drive
                return
            with reserved(drive.unit, self._reservation_key) as again, drive.guarded(again):
                yield drive

    @contextmanager
    def lease(self, serial: str, wait_s: float) -> Iterator[None]:
        """Have a drive for this thread of this program alone, for the length of a ``with``.

        Args:
            serial: its number.
            wait_s: how long to wait for whoever has it.

        Raises:
            InUse: somebody has it.
        """
        until_s = self._monotonic() + wait_s
        with self._freed:
            while serial in self._leased:
                left_s = until_s - self._monotonic()
                if left_s <= 0:
                    raise InUse(device=f"drive {serial}", holder=_US)
                self._freed.wait(min(left_s, LOOK_AGAIN_S))
            self._leased.add(serial)
        try:
            with self._devices.taken(serial, max(0.0, until_s - self._monotonic())):
                yield
        finally:
            with self._freed:
                self._leased.discard(serial)
                self._freed.notify_all()

    def hold_ours(self, serial: str) -> None:
        """Make sure that no other host has a drive, before a cartridge is put into it; the caller has a lease on it.

        Raises:
            Reserved: another host has it.
            TapeError: it does not answer.
        """
        if self._reservation_key is not None and serial in self._devices.drives:
            with self.session(serial):
                return

    def holder(self, serial: str) -> str | None:
        """Who has a drive now; None when nobody has."""
        with self._freed:
            if serial in self._leased:
                return _US
        return self._devices.holder(serial)

    def wait(self, seconds: float) -> None:
        """Until a drive of ours is let go, or for so long: other programs do not tell us."""
        with self._freed:
            self._freed.wait(max(seconds, 0.0))
