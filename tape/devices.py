"""Where a library's devices come from, so that everything above is the same for all of them.

ScsiDevices        a robot and drives of this host, matched by their serial numbers
EmulatedDevices    an emulated library in a folder, opened in this process and by no other
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Protocol

from tape.changer import Changer
from tape.elements import Robot
from tape.errors import TapeError
from tape.locks import LockFolder
from tape.scsi.transport import ScsiTransport

Opener = Callable[[], ScsiTransport]
"""Begins a session with a device; each user of it has one of his own."""


class Devices(Protocol):
    """What a library is made of."""

    @property
    def robot(self) -> Robot:
        """Who carries."""

    @property
    def drives(self) -> Mapping[str, Opener]:
        """How to get at each drive, by serial number; those of other libraries among them do no harm."""

    def taken(self, serial: str, wait_s: float) -> AbstractContextManager[None]:
        """Have a device for this program alone, for the length of a ``with``.

        Raises:
            InUse: another program has it.
        """

    def close(self) -> None:
        """Let everything go."""


class ScsiDevices:
    """A robot, and drives that were found."""

    def __init__(self, robot: Robot, drives: Mapping[str, Opener], locks: LockFolder) -> None:
        """Use them; the robot is closed with this."""
        self._robot = robot
        self._drives = dict(drives)
        self._locks = locks

    @property
    def robot(self) -> Robot:
        """Who carries."""
        return self._robot

    @property
    def drives(self) -> Mapping[str, Opener]:
        """How to get at each drive, by serial number."""
        return self._drives

    def taken(self, serial: str, wait_s: float) -> AbstractContextManager[None]:
        """Lock the device's file."""
        return self._locks.held(serial, wait_s=wait_s)

    def close(self) -> None:
        """Let the robot go."""
        self._robot.close()


class EmulatedDevices:
    """An emulated library in a folder. What lies where is kept in memory, so that only one program may have it open."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            InUse: another program has it open.
            TapeError: the folder holds no library.
        """
        from tape.emulator.library import VirtualLibrary

        self._held = ExitStack()
        if not folder.is_dir():
            raise TapeError(f"{folder}: there is no emulated library")
        try:
            self._held.enter_context(LockFolder(folder).held("library"))
            self.library = VirtualLibrary.open(folder)
            self._robot = Changer(self.library.changer_transport())
        except ValueError as error:
            self._held.close()
            raise TapeError(str(error)) from error
        except BaseException:
            self._held.close()
            raise

    @property
    def robot(self) -> Robot:
        """The emulated one."""
        return self._robot

    @property
    def drives(self) -> Mapping[str, Opener]:
        """The emulated ones."""
        library = self.library
        return {
            drive.serial: lambda number=number: library.drive_transport(number)  # type: ignore[misc]
            for number, drive in enumerate(library.drives)
        }

    def taken(self, serial: str, wait_s: float) -> AbstractContextManager[None]:
        """Nobody else can have it: the whole library is ours."""
        return nullcontext()

    def close(self) -> None:
        """Let the folder go."""
        self._robot.close()
        self._held.close()
