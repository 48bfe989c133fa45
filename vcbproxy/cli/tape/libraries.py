"""What commands on libraries share: which library, and what its drives and elements are called by people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vcbproxy.archive.places import place
from vcbproxy.cli import frame
from vcbproxy.cli.shelves import state_directory
from vcbproxy.config import Config
from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from tape.cleaninglog import CleaningLog
    from tape.elements import Element, Inventory
    from tape.library import Library

R = TypeVar("R")

_PLACE = re.compile(r"(slot|mail|drive)[ :-]?(\d+)")
wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for a drive that is in use.",
)


def library_option(command: Callable[..., R]) -> Callable[..., R]:
    """Add ``--library`` and ``--config``; the command gets ``library: str | None`` and ``config: Config``."""
    named = click.option(
        "--library",
        metavar="NAME|FOLDER|/dev/sgN|iscsi://HOST/TARGET",
        help="Which library; the only one that is configured, if there is only one.",
    )
    return named(frame.config_option(command))


@contextmanager
def opened(config: Config, name: str | None) -> Iterator[Library]:
    """The library that was named, for the length of a ``with``; the tape's errors become ours."""
    from vcbproxy.archive import libraries

    called, configured = libraries.chosen(config.tape, name)
    with libraries.opened(called, configured, state_directory(config)) as library:
        yield library


# ---------------------------------------------------------------------- drives by their names


def drive_named(name: str, inventory: Inventory) -> str:
    """The serial number of a drive by that, by the beginning of it, or by its number in the library.

    Raises:
        UsageError: there is none, or there are several.
    """
    from tape.elements import ElementKind

    serials = [element.drive_serial for element in inventory.of_kind(ElementKind.DRIVE)]
    if name in serials:
        return name
    number = name.removeprefix("drive").strip(" :-")
    if number.isdigit() and int(number) < len(serials):
        found = serials[int(number)]
        if not found:
            raise UsageError(
                f"the robot does not tell the serial number of drive {number}: see `vcbproxy tape changer map`"
            )
        return found
    matching = [serial for serial in serials if serial.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(f"{number} = {serial or '?'}" for number, serial in enumerate(serials)) or "none"
    raise UsageError(f"{'several drives begin with' if matching else 'no drive'} {name}; there are: {known}")


# ---------------------------------------------------------------------- elements by their names


def place_named(name: str, inventory: Inventory) -> Element:
    """The element called ``slot 3``, ``mail 1`` or ``drive 0``, or the one where a cartridge lies.

    Raises:
        UsageError: there is no such element.
        CartridgeWanted: there is no such cartridge.
    """
    matched = _PLACE.fullmatch(name.lower())
    if matched is None:
        return inventory.where(name)
    for element in inventory.elements:
        if place(element, inventory) == f"{matched[1]} {int(matched[2])}":
            return element
    raise UsageError(f"there is no {matched[1]} {matched[2]}: see `vcbproxy tape changer status`")


def row(element: Element, inventory: Inventory, log: CleaningLog) -> dict[str, Any]:
    """An element as commands print it."""
    from tape.elements import CLEANING_PREFIX, ElementKind

    home = None
    if element.source is not None:
        slots = [*inventory.of_kind(ElementKind.SLOT), *inventory.of_kind(ElementKind.MAIL_SLOT)]
        home = next((place(one, inventory) for one in slots if one.address == element.source), None)
    return {
        "place": place(element, inventory),
        "cartridge": element.barcode or ("without a label" if element.full else None),
        "drive": element.drive_serial or None,
        "from": home,
        "full": element.full,
        "accessible": element.accessible,
        "address": element.address,
        "cleanings_left": log.of(element.barcode).left if element.barcode.startswith(CLEANING_PREFIX) else None,
        "problem": _problem(element),
    }


def _problem(element: Element) -> str | None:
    from tape.scsi.sense import Key, Sense, meaning

    if element.problem is None:
        return None
    asc, ascq = element.problem
    return f"{meaning(Sense(Key.HARDWARE_ERROR, asc, ascq))} ({asc:02X}/{ascq:02X})"
