"""Where a library's devices come from, so that everything above is the same for all of them.

ScsiDevices        a robot and drives of this host, matched by their serial numbers
EmulatedDevices    an emulated library in a folder, opened in this process and by no other
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from tape.changer import Changer
from tape.drive import TapeDrive
from tape.elements import Robot
from tape.errors import TapeError
from tape.locks import LockFolder
from tape.mtx import MtxRobot
from tape.opener import Opener
from tape.scsi import cdb
from tape.scsi.discover import Device, changers, discover, drives
from tape.scsi.iscsi import IscsiTransport
from tape.scsi.sg import SgTransport
from tape.scsi.transport import ScsiTransport
from tape.scsi.unit import CHANGER, TAPE, Unit
from tape.sequential import SequentialDrive
from tape.st import drive as st
from tape.standalone import StandaloneDevices, labels_beside

_log = logging.getLogger(__name__)
T = TypeVar("T")
_LUNS_BYTES = 8 + 8 * 256


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

    def holder(self, serial: str) -> str | None:
        """Who has a device now; None when nobody has."""

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

    def holder(self, serial: str) -> str | None:
        """Whoever has locked its file."""
        return self._locks.holder(serial)

    def close(self) -> None:
        """Let the robot go."""
        self._robot.close()


def on_this_host(
    changer: str,
    locks: LockFolder,
    *,
    by_mtx: bool = False,
    only: Sequence[str] = (),
    found: Sequence[Device] | None = None,
) -> ScsiDevices:
    """A robot, and the drives that this machine sees.

    Args:
        changer: the robot's serial number, or its device file.
        locks: where the locks of all programs of this host lie.
        by_mtx: whether the program mtx moves it.
        only: serial numbers or device files of the drives that may be used; all, if none are given.
        found: what ``discover`` gives, for whoever has it already.

    Raises:
        TapeError: there is no such robot, or no such drive.
    """
    seen = discover() if found is None else found
    robot = _named(changer, changers(seen).values(), "library")
    path = robot.sg
    if path is None:
        raise TapeError(f"{robot}: the kernel has no generic device for it: `modprobe sg`")
    chosen = drives(seen)
    if only:
        wanted = [_named(name, chosen.values(), "drive") for name in only]
        chosen = {device.serial: device for device in wanted}
    openers = {serial: _by_kernel(device) for serial, device in chosen.items()}
    arm = MtxRobot(str(path), robot.serial) if by_mtx else _taken_over(Changer, SgTransport(path))
    return ScsiDevices(arm, openers, locks)


def standing_alone(drive: str, locks: LockFolder, *, found: Sequence[Device] | None = None) -> StandaloneDevices:
    """A drive of this machine without a robot.

    Args:
        drive: its serial number, or its device file.
        locks: where the locks of all programs of this host lie, and beside them the labels of blank cartridges.
        found: what ``discover`` gives, for whoever has it already.

    Raises:
        TapeError: there is no such drive.
    """
    device = _named(drive, drives(discover() if found is None else found).values(), "drive")
    return StandaloneDevices(device.serial, _by_kernel(device), locks, labels_beside(locks))


def at_portal(url: str, locks: LockFolder, *, only: Sequence[str] = ()) -> Devices:
    """The robot and the drives of an iSCSI target; or its one drive, fed by hand.

    Args:
        url: ``iscsi://HOST[:PORT]/TARGET``.
        locks: where the locks of all programs of this host lie.
        only: serial numbers of the drives that may be used; all, if none are given.

    Raises:
        TapeError: it cannot be reached, has no robot or several, or not that drive.
        ValueError: ``url`` is none.
    """
    if len(url.split("/")) != 4:
        raise ValueError(f"{url}: not iscsi://HOST[:PORT]/TARGET")
    robots: list[str] = []
    openers: dict[str, Opener] = {}
    for lun in _luns(url):
        place = f"{url}/{lun}"
        with closing(IscsiTransport(place)) as transport:
            identity = Unit(transport).inquiry()  # answered also by a drive that another host has reserved
        if identity.kind == CHANGER:
            robots.append(place)
        elif identity.kind == TAPE:
            openers[identity.serial] = partial(_over_iscsi, place)
    missing = [serial for serial in only if serial not in openers]
    if missing:
        raise TapeError(f"{url}: there is no drive {', '.join(missing)}; there are: {', '.join(openers) or 'none'}")
    openers = {serial: begin for serial, begin in openers.items() if not only or serial in only}
    if not robots and len(openers) == 1:
        [(serial, begin)] = openers.items()
        return StandaloneDevices(serial, begin, locks, labels_beside(locks))
    if len(robots) != 1:
        raise TapeError(f"{url}: a library has one robot, there are {len(robots)}")
    return ScsiDevices(_taken_over(Changer, IscsiTransport(robots[0])), openers, locks)


def _over_iscsi(place: str) -> TapeDrive:
    return _taken_over(TapeDrive, IscsiTransport(place))


def drive_at(path: str, found: Sequence[Device]) -> SequentialDrive:
    """A drive by its device file: generic, or the tape driver's, among what ``discover`` has found.

    Raises:
        TapeError: it cannot be opened, or is none.
    """
    behind = next((device for device in found if path == str(device.nst)), None)
    return _taken_over(TapeDrive, SgTransport(path, alone=True)) if behind is None else st.open_drive(behind)


def _taken_over(kind: Callable[[ScsiTransport], T], transport: ScsiTransport) -> T:
    """A robot or drive behind a transport, which is let go when it is none, or somebody else's."""
    try:
        return kind(transport)
    except BaseException:
        transport.close()
        raise


def _luns(url: str) -> list[int]:
    """Numbers of the logical units of a target, by REPORT LUNS (SPC-5, 6.39)."""
    with closing(IscsiTransport(f"{url}/0")) as transport:
        data = Unit(transport).ask(cdb.report_luns(_LUNS_BYTES), "report luns", _LUNS_BYTES)
    end = min(8 + int.from_bytes(data[:4], "big"), len(data))
    return [int.from_bytes(data[at : at + 2], "big") & 0x3FFF for at in range(8, end - 7, 8)]


def _named(name: str, among: Iterable[Device], what: str) -> Device:
    """The device of a serial number, or of a device file."""
    devices = list(among)
    path = os.path.realpath(name) if name.startswith("/") else None
    for device in devices:
        if name == device.serial or (path is not None and path in (str(device.sg), str(device.nst))):
            if device.problem:
                raise TapeError(f"{device}: {device.problem}")
            return device
    known = "; ".join(str(device) for device in devices) or "none"
    raise TapeError(f"this host sees no {what} {name}; it sees: {known}")


def _by_kernel(device: Device) -> Opener:
    """By its generic device; where that is not to be had, by the tape driver's."""

    def begin() -> SequentialDrive:
        if device.sg is not None and (device.nst is None or os.access(device.sg, os.R_OK | os.W_OK)):
            return _taken_over(TapeDrive, SgTransport(device.sg, alone=True))
        if device.nst is None:
            raise TapeError(f"{device}: the kernel has no generic device for it: `modprobe sg`")
        _log.info("%s: used through the tape driver: its generic device cannot be had", device)
        return st.open_drive(device)

    return begin


class EmulatedDevices:
    """An emulated library in a folder. What lies where is kept in memory, so that only one program may have it open.

    Hands reach in meanwhile by its door, as they do when it is served: who waits for a cartridge is brought it.
    """

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            InUse: another program has it open.
            TapeError: the folder holds no library.
        """
        from tape.emulator.door import Door
        from tape.emulator.library import VirtualLibrary

        self._held = ExitStack()
        self._door = ExitStack()
        if not folder.is_dir():
            raise TapeError(f"{folder}: there is no emulated library")
        try:
            self._held.enter_context(LockFolder(folder).held("library"))
            self.library = VirtualLibrary.open(folder)
            self._robot = _taken_over(Changer, self.library.changer_transport())
            with suppress(OSError):  # a file system without sockets has no door
                self._door.enter_context(Door(self.library))
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
        return {drive.serial: partial(self._drive, number) for number, drive in enumerate(self.library.drives)}

    def _drive(self, number: int) -> TapeDrive:
        return TapeDrive(self.library.drive_transport(number))

    def taken(self, serial: str, wait_s: float) -> AbstractContextManager[None]:
        """Nobody else can have it: the whole library is ours."""
        return nullcontext()

    def holder(self, serial: str) -> str | None:
        """Nobody else."""
        return None

    def close(self) -> None:
        """Let the folder go."""
        self._door.close()
        self._robot.close()
        self._held.close()
