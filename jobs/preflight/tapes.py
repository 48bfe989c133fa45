"""Tape libraries: whether the robot answers, the drives are seen from here, and there is something to clean with.

Nothing is moved, and no drive is spoken to: somebody may be writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from jobs.preflight.result import Result, guarded, named, ok, warning
from tape import cleaning
from tape.cleaninglog import CleaningLog
from tape.elements import Element, ElementKind, Inventory
from tape.library import Library
from vcbproxy import config as configuration
from vcbproxy.archive import libraries
from vcbproxy.archive.boundary import tape_errors


def looked_at(configured: Mapping[str, configuration.Library], state: Path) -> Iterator[Result]:
    """Each library by itself.

    Args:
        configured: by name.
        state: the state directory.
    """
    for name, library in configured.items():
        check = f"tape library {name}"
        yield from guarded(check, partial(_library, check, library, state))


def _library(check: str, configured: configuration.Library, state: Path) -> Iterator[Result]:
    with libraries.opened(check, configured, state) as library:
        inventory = library.inventory()
        yield ok(check, _counted(inventory))
        yield from _drives(check, library, inventory)
        if configured.drive is None and inventory.of_kind(ElementKind.SLOT):
            with tape_errors():
                yield from _cleaning(check, inventory, libraries.cleaning_log(state))


def _counted(inventory: Inventory) -> str:
    def full(kind: ElementKind) -> str:
        elements = inventory.of_kind(kind)
        return f"{sum(element.full for element in elements)} of {len(elements)}"

    drives, slots, mail = (full(kind) for kind in (ElementKind.DRIVE, ElementKind.SLOT, ElementKind.MAIL_SLOT))
    return f"cartridges in {slots} slots, {drives} drives, {mail} mail slots"


def _drives(check: str, library: Library, inventory: Inventory) -> Iterator[Result]:
    """Whether each drive that the robot has can be used from here."""
    drives = inventory.of_kind(ElementKind.DRIVE)
    unknown = [element for element in drives if not element.drive_serial]
    unseen = [element for element in drives if element.drive_serial and element.drive_serial not in library.reachable]
    if unknown:
        detail = f"the robot does not tell which drives these are: {_named(unknown)}"
        yield warning(check, detail, "`vcbproxy tape changer map --with BARCODE`, while they are empty")
    if unseen:
        detail = f"drives that this machine does not see, or may not use: {_named(unseen)}"
        yield warning(check, detail, "look at cables and zoning; `vcbproxy tape drive list`")


def _cleaning(check: str, inventory: Inventory, log: CleaningLog) -> Iterator[Result]:
    """Whether a drive that asks for it can be cleaned."""
    there = cleaning.cartridges(inventory)
    if not any(log.of(barcode).left for barcode in there):
        detail = f"no cleaning cartridge that still cleans: {named(there) or 'there is none at all'}"
        yield warning(check, detail, "put in one whose label begins with CLN: a drive that wants to be cleaned stops")
    asking = [one.drive_serial for one in inventory.of_kind(ElementKind.DRIVE) if log.asked(one.drive_serial)]
    if asking:
        yield warning(check, f"drives that want to be cleaned: {named(asking)}", "`vcbproxy tape drive clean DRIVE`")


def _named(elements: list[Element]) -> str:
    return named(element.drive_serial or str(element) for element in elements)
