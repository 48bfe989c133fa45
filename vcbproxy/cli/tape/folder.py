"""How commands get at a library in a folder: alone, or by whoever serves it just now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.errors import Busy, Error, UsageError

if TYPE_CHECKING:
    from tape.emulator.library import VirtualLibrary

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@contextmanager
def opened(folder: Path, **how: Any) -> Iterator[VirtualLibrary]:
    """The library, for this program alone.

    Args:
        folder: where it is.
        how: see ``VirtualLibrary.open``.

    Raises:
        Busy: another program has it.
        UsageError: there is none.
    """
    from tape.emulator.library import VirtualLibrary
    from tape.errors import InUse, TapeError
    from tape.locks import LockFolder

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no library; make one with `vcbproxy tape library create`")
    try:
        with LockFolder(folder).held("library"):
            with wrong_is_usage():
                library = VirtualLibrary.open(folder, **how)
            yield library
    except InUse as error:
        raise Busy(str(error)) from error
    except TapeError as error:
        raise Error(str(error)) from error


def asked(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """What a process that serves the folder answers; None when none does."""
    from tape.emulator import door as doors

    try:
        return {"done": True, **doors.ask(folder, request)}
    except doors.Shut:
        return None
    except doors.Refused as error:
        raise UsageError(str(error)) from error


def by_hand(folder: Path, act: Callable[[VirtualLibrary], dict[str, Any]]) -> dict[str, Any]:
    """Do it ourselves, where nobody serves the folder."""
    with opened(folder) as library:
        return act(library)


@contextmanager
def wrong_is_usage() -> Iterator[None]:
    """What cannot be is the operator's to change; what the disk does is not."""
    try:
        yield
    except (ValueError, FileExistsError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise Error(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
