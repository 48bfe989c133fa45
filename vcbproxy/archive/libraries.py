"""Tape libraries of the configuration, opened."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tape import drivemap
from tape.attendant import Heard
from tape.cleaninglog import CleaningLog
from tape.devices import Devices, EmulatedDevices, at_portal, on_this_host, standing_alone
from tape.library import Library
from tape.locks import LockFolder
from tape.standalone import StandaloneDevices
from vcbproxy import config as configuration
from vcbproxy.archive.boundary import tape_errors
from vcbproxy.errors import ConfigError


@contextmanager
def opened(
    name: str,
    configured: configuration.Library,
    state: Path,
    *,
    keep_loaded: bool = True,
    heard: Callable[[Heard], None] | None = None,
) -> Iterator[Library]:
    """A library for the length of a ``with``; cartridges left in drives are then brought home.

    Args:
        name: what the configuration calls it.
        configured: what it says of it.
        state: the state directory: locks lie there, and what was learnt of drives.
        keep_loaded: whether cartridges stay in their drives until the drives are wanted for others.
        heard: told what drives complain of; else it is logged.

    The tape's errors become ours, also those of what is done inside.

    Raises:
        Busy: another program has it, where only one can.
        Error: it cannot be opened; or in the end, a cartridge could not be brought home.
    """
    with tape_errors(), ExitStack() as held:
        devices = devices_of(configured, state)
        held.callback(devices.close)
        known = drivemap.load(folder_of(state), devices.robot.serial)
        library = Library(
            devices,
            name=name,
            known_drives=known,
            keep_loaded=keep_loaded,
            puts_away=not isinstance(devices, StandaloneDevices),
            cleaning=cleaning_log(state),
            heard=heard,
            reserve_as=socket.gethostname() if configured.reserve else None,
        )
        yield held.enter_context(library)


def devices_of(configured: configuration.Library, state: Path) -> Devices:
    """Its robot and drives, to be closed by the caller. Errors are the tape's."""
    locks = locks_of(state)
    if configured.folder is not None:
        return EmulatedDevices(configured.folder)
    if configured.portal is not None:
        return at_portal(configured.portal, locks, only=configured.drives)
    if configured.drive is not None:
        return standing_alone(configured.drive, locks)
    assert configured.changer is not None, "the configuration has seen to it"
    by_mtx = configured.robot is configuration.Robot.MTX
    return on_this_host(configured.changer, locks, by_mtx=by_mtx, only=configured.drives)


def folder_of(state: Path) -> Path:
    """Where, in the state directory, all that concerns tape lies."""
    return state / "tape"


def locks_of(state: Path) -> LockFolder:
    """The locks of this host's devices."""
    return LockFolder(folder_of(state))


def cleaning_log(state: Path) -> CleaningLog:
    """Where the uses of cleaning cartridges are counted."""
    return CleaningLog(folder_of(state) / "cleaning.json")


def chosen(tape: configuration.Tape, name: str | None) -> tuple[str, configuration.Library]:
    """The library of that name; the only one, if no name is given.

    One that is not configured is named by where it is: an emulated one's folder, a robot's device file, or
    ``iscsi://HOST/TARGET``.

    Raises:
        ConfigError: there is none of that name, or several to choose from.
    """
    if name is None and len(tape.library) == 1:
        return next(iter(tape.library.items()))
    if name is not None:
        if name in tape.library:
            return name, tape.library[name]
        if name.startswith("iscsi://"):
            return name, configuration.Library(portal=name)
        if name.startswith("/dev/"):
            return name, configuration.Library(changer=name)
        if Path(name).is_dir():
            return name, configuration.Library(folder=Path(name).absolute())
    known = ", ".join(tape.library) or "none: write [tape.library.NAME] into the configuration"
    asked = f"no library {name} is configured" if name is not None else "say which library, with --library"
    raise ConfigError(f"{asked}; there are: {known}")
