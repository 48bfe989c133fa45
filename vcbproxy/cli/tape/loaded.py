"""From a name to a drive with a cartridge in it, taken for this program alone.

/dev/sg3                   a drive of this machine, with a library or without
/dev/nst0                  the same through the tape driver, where the generic one is not to be had
0, 1013000ABC, 1013        a drive of a library that is configured
/srv/vtl/TAP001L8          an emulated cartridge: a folder
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vcbproxy.cli.drivekeys import in_file, keyed
from vcbproxy.cli.shelves import state_directory
from vcbproxy.cli.tape import libraries
from vcbproxy.config import Config
from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from tape.sequential import SequentialDrive

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cartridge is, as somebody has named it.

    Attributes:
        name: a device file, a folder, or a drive of a library.
        library: which library; the only one that is configured, if it is not said.
        config: the configuration.
        key_file: of the key that it was encrypted with, by a drive.
    """

    name: str
    library: str | None
    config: Config
    key_file: Path | None = None


def place_argument(command: Callable[..., R]) -> Callable[..., R]:
    """Add ``DRIVE|FOLDER``, ``--key-file``, ``--library`` and ``--config``; the command gets ``place: Place``."""

    @click.argument("name", metavar="DRIVE|FOLDER")
    @click.option(
        "--key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The key that a drive encrypted the cartridge with: 32 bytes, or 64 hex digits.",
    )
    @libraries.library_option
    @functools.wraps(command)
    def wrapped(*args: Any, name: str, library: str | None, config: Config, key_file: Path | None, **kwargs: Any) -> R:
        return command(*args, place=Place(name, library, config, key_file), **kwargs)

    return wrapped


@contextmanager
def loaded(place: Place, *, writes: bool = False) -> Iterator[SequentialDrive]:
    """The drive, its cartridge threaded and held; the tape's errors become ours.

    Args:
        place: which one.
        writes: whether it will be written to: then nobody else may have the library that a folder lies in.

    Raises:
        Busy: another program has it.
        CredentialsError: its cartridge wants a key.
        Error: there is no such drive, or nothing in it.
    """
    whose = "the key of --key-file"
    key = None if place.key_file is None else in_file(place.key_file, whose)
    with _opened(place, writes=writes) as drive:
        drive.load()
        with drive.held(), keyed(drive, key, whose):
            yield drive


def _opened(place: Place, *, writes: bool) -> AbstractContextManager[SequentialDrive]:
    if Path(place.name).is_dir():
        return _folder(Path(place.name), writes=writes)
    if place.name.startswith("/"):
        return alone(place.name, place.config)
    return _of_library(place)


@contextmanager
def _folder(folder: Path, *, writes: bool) -> Iterator[SequentialDrive]:
    from tape.drive import TapeDrive
    from tape.emulator.cartridge import Cartridge
    from tape.emulator.drive import DriveLun
    from tape.emulator.loop import LoopTransport
    from tape.locks import LockFolder
    from vcbproxy.archive.boundary import tape_errors

    if (folder / "library.json").exists():
        raise UsageError(f"{folder} is a library; name a cartridge in it, as in {folder / 'TAP001L8'}")
    if not any(folder.glob("attr_*")) and not (folder / "0_0_R").exists():
        raise UsageError(f"{folder} is no cartridge of an emulated library")
    around = folder.resolve().parent
    shared = writes and (around / "library.json").exists()
    with tape_errors(), LockFolder(around).held("library") if shared else nullcontext():
        lun = DriveLun("FOLDER")
        lun.insert(Cartridge(folder))
        with closing(LoopTransport(lun, str(folder))) as transport:
            yield TapeDrive(transport)


@contextmanager
def alone(path: str, config: Config, wait_s: float = 0.0) -> Iterator[SequentialDrive]:
    """A drive by its device file, locked by its serial number; the tape's errors become ours.

    Raises:
        Busy: another program has it.
        Error: it cannot be opened.
    """
    from tape.devices import drive_at
    from tape.locks import LockFolder
    from tape.scsi.discover import discover
    from vcbproxy.archive.boundary import tape_errors
    from vcbproxy.archive.libraries import folder_of

    path = str(Path(path).resolve())
    found = discover()
    serial = next((device.serial for device in found if path in (str(device.sg), str(device.nst))), "")
    locks = LockFolder(folder_of(state_directory(config)))
    with (
        tape_errors(),
        locks.held(serial or path, wait_s=wait_s),
        closing(drive_at(path, found)) as drive,
    ):
        yield drive


@contextmanager
def _of_library(place: Place) -> Iterator[SequentialDrive]:
    with (
        libraries.opened(place.config, place.library) as used,
        used.drive(libraries.drive_named(place.name, used.inventory())) as drive,
    ):
        yield drive
