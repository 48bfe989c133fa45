"""Which element is which drive, for robots that do not tell: a cartridge is put into each, and who has it now is seen.

    drive 0  ◀── scratch cartridge ──   1013000ABC becomes ready     {0: "1013000ABC", 1: "1013000DEF"}
    drive 1  ◀──                        1013000DEF becomes ready

Kept in a file by the robot's serial number, for it holds until somebody re-cables drives or exchanges one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from tape.devices import Devices
from tape.elements import Element, ElementKind, Inventory, Robot
from tape.errors import LibraryError, NoMedium, NotReady, TapeError
from tape.locks import folder_for_all
from tape.scsi import cdb
from tape.sequential import SequentialDrive

_FORMAT = "tape.drivemap/1"
_READABLE_BY_ALL = 0o644  # root and the service's user must read each other's
_ARRIVAL_S = 120.0
_LOOK_AGAIN_S = 1.0


def learn(
    devices: Devices,
    barcode: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[int, str]:
    """Carry a cartridge into each drive, and see which drive has it; it is back in its slot at the end.

    Args:
        devices: the robot and the drives; all of these are taken for the time.
        barcode: of any cartridge; nothing is read from it or written to it.
        sleep: waits so many seconds.
        monotonic: a clock, in seconds.

    Returns:
        Serial numbers by the numbers of drives in the library, from 0: unlike the addresses of elements, they are the
        same whoever speaks to the robot. Of one that no drive of this host is, nothing.

    Raises:
        InUse: a program has one of them.
        LibraryError: a drive is not empty, or several had the cartridge at once: those are not to be told apart.
        TapeError: a move failed, or a drive does not answer.
    """
    with ExitStack() as held:
        held.enter_context(devices.taken(devices.robot.serial or devices.robot.name, 0.0))
        drives: dict[str, SequentialDrive] = {}
        for serial, begin in devices.drives.items():
            held.enter_context(devices.taken(serial, 0.0))
            drives[serial] = held.enter_context(closing(begin()))
        robot = devices.robot
        _hold_empty(robot, drives)
        found: dict[int, str] = {}
        for number in range(len(_look(robot).of_kind(ElementKind.DRIVE))):
            inventory = _look(robot)
            home, place = inventory.where(barcode), inventory.of_kind(ElementKind.DRIVE)[number]
            robot.move(home, place)
            try:
                holder = _who_has_it(drives, monotonic() + _ARRIVAL_S, sleep, monotonic)
            finally:
                _bring_back(robot, drives, place, home)
            if holder is not None:
                found[number] = holder
        return found


def _look(robot: Robot) -> Inventory:
    return Inventory(robot.name, tuple(robot.elements()))


def _hold_empty(robot: Robot, drives: Mapping[str, SequentialDrive]) -> None:
    full = [str(element) for element in _look(robot).of_kind(ElementKind.DRIVE) if element.full]
    full += [serial for serial, drive in drives.items() if not full and _has_one(drive)]
    if full:
        raise LibraryError(f"{robot.name}: unload the drives first; not empty: {', '.join(full)}")


def _has_one(drive: SequentialDrive) -> bool:
    """Whether a cartridge is in it, threaded or on its way."""
    drive.unit.attend()
    try:
        drive.unit.run(cdb.test_unit_ready(), "test unit ready")
    except NoMedium:
        return False
    except NotReady:
        return True
    return True


def _who_has_it(
    drives: Mapping[str, SequentialDrive],
    until_s: float,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> str | None:
    """The drive that a cartridge has come into; None when it is none of this host's."""
    while True:
        having = [serial for serial, drive in drives.items() if _has_one(drive)]
        if len(having) > 1:
            raise LibraryError(f"drives {' and '.join(having)} both say that they have the cartridge")
        if having or monotonic() >= until_s:
            return having[0] if having else None
        sleep(_LOOK_AGAIN_S)


def _bring_back(robot: Robot, drives: Mapping[str, SequentialDrive], place: Element, home: Element) -> None:
    for drive in drives.values():
        if _has_one(drive):
            drive.wait_ready()
            drive.unload()
    inventory = _look(robot)
    robot.move(inventory.at(place.kind, place.address), inventory.at(home.kind, home.address))


# ---------------------------------------------------------------------- kept


def load(folder: Path, robot_serial: str) -> dict[int, str]:
    """What was learnt of a robot's drives; nothing, if nothing was.

    Raises:
        TapeError: the file cannot be read, or is none.
    """
    path = _path(folder, robot_serial)
    try:
        kept = json.loads(path.read_text("utf-8"))
        if kept["format"] != _FORMAT:
            raise TapeError(f"{path}: format {kept['format']!r} is not known")
        return {int(number): str(serial) for number, serial in kept["drives"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TapeError(f"{path}: this is no map of drives ({error}); map them again") from error


def save(folder: Path, robot_serial: str, drives: Mapping[int, str]) -> Path:
    """Keep it; gives where.

    Raises:
        TapeError: the file cannot be written.
    """
    path = _path(folder, robot_serial)
    kept = {"format": _FORMAT, "drives": {str(number): serial for number, serial in sorted(drives.items())}}
    try:
        folder_for_all(folder)
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
        aside.chmod(_READABLE_BY_ALL)
        aside.replace(path)
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    return path


def _path(folder: Path, robot_serial: str) -> Path:
    safe = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in robot_serial)
    return folder / f"drives-{safe or '_'}.json"
