"""``vcbproxy tape changer``: what lies where in a library, and cartridges carried from place to place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vcbproxy.archive import places
from vcbproxy.cli import frame
from vcbproxy.cli.shelves import state_directory
from vcbproxy.cli.tape import libraries
from vcbproxy.config import Config
from vcbproxy.errors import Error

if TYPE_CHECKING:
    from tape.elements import Element, Inventory
    from tape.library import Library

_COLUMNS = ("place", "cartridge", "drive", "from")
_IF_ANY = ("cleanings_left", "problem")


@click.group(cls=frame.Group)
def changer() -> None:
    """A library's robot: what lies where, and cartridges carried from place to place.

    Places are called by their kind and number, `slot 3`, `mail 1`, `drive 0`, or by the label of the cartridge that
    lies there. Drives are also called by their serial number, or the beginning of it.
    """


@changer.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape changer status", "vcbproxy tape changer status --library /srv/library --json"),
)
@libraries.library_option
@frame.json_option
def status(library: str | None, config: Config, as_json: bool) -> None:
    """List what lies where, as far as the robot knows. Moves nothing."""
    with libraries.opened(config, library) as used:
        inventory = used.inventory()
    _show(config, inventory, _all(inventory), as_json=as_json)


@changer.command(cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape changer inventory",))
@libraries.library_option
@frame.json_option
def inventory(library: str | None, config: Config, as_json: bool) -> None:
    """Have the robot look at every label anew, which takes minutes, and list what lies where."""
    with libraries.opened(config, library) as used:
        found = used.take_stock()
    _show(config, found, _all(found), as_json=as_json)


@changer.command(
    cls=frame.Command,
    exit_codes=(11, 14),
    examples=("vcbproxy tape changer move TAP001L8 'slot 7'", "vcbproxy tape changer move 'mail 1' 'slot 3'"),
)
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@libraries.wait_option
@libraries.library_option
@frame.json_option
def move(source: str, destination: str, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Carry a cartridge from one place to another. A drive that it lies in is unloaded first."""
    with libraries.opened(config, library) as used:
        before = used.inventory()
        start = libraries.place_named(source, before)
        end = libraries.place_named(destination, before)
        carried = used.move(start, end, wait_s=wait_s)
        after = used.inventory()
    _show(config, after, [carried], as_json=as_json)


@changer.command(
    cls=frame.Command,
    exit_codes=(11, 14),
    examples=("vcbproxy tape changer load TAP001L8 0", "vcbproxy tape changer load TAP001L8 1013000ABC"),
)
@click.argument("barcode")
@click.argument("drive")
@libraries.wait_option
@libraries.library_option
@frame.json_option
def load(barcode: str, drive: str, wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Put a cartridge into a drive, and leave it there. One that lies idle in the drive is brought home first."""
    with libraries.opened(config, library) as used:
        serial = libraries.drive_named(drive, used.inventory())
        used.load(barcode, serial, wait_s=wait_s)
        after = used.inventory()
    _show(config, after, [after.drive(serial)], as_json=as_json)


@changer.command(
    cls=frame.Command,
    exit_codes=(11,),
    examples=("vcbproxy tape changer unload 0", "vcbproxy tape changer unload 1013000ABC 'slot 5'"),
)
@click.argument("drive")
@click.argument("destination", metavar="[TO]", required=False)
@libraries.wait_option
@libraries.library_option
@frame.json_option
def unload(
    drive: str, destination: str | None, wait_s: float, library: str | None, config: Config, as_json: bool
) -> None:
    """Take the cartridge out of a drive, back to the slot that it came from, or to another place."""
    with libraries.opened(config, library) as used:
        before = used.inventory()
        place = libraries.place_named(destination, before) if destination is not None else None
        carried = used.unload(libraries.drive_named(drive, before), place, wait_s=wait_s)
        after = used.inventory()
    _show(config, after, [carried], as_json=as_json)


@changer.command(
    "import", cls=frame.Command, exit_codes=(3, 11), examples=("vcbproxy tape changer import --library main",)
)
@libraries.library_option
@frame.json_option
def import_(library: str | None, config: Config, as_json: bool) -> None:
    """Take in what lies in the mail slots. A cartridge whose label cannot be read stays there."""
    from vcbproxy.errors import Partial

    with libraries.opened(config, library) as used:
        taken = used.import_()
        after = used.inventory()
    _show(config, after, taken, as_json=as_json)
    left = [places.place(one, after) for one in _mail(after) if one.full]
    if left:
        raise Partial(f"without a label that can be read, and left where it is: {', '.join(left)}; put a label on it")
    if not taken:
        frame.say("nothing lay in the mail slots")


@changer.command(
    cls=frame.Command,
    exit_codes=(3, 11, 14),
    examples=("vcbproxy tape changer export TAP001L8 TAP002L8",),
)
@click.argument("barcodes", nargs=-1, required=True)
@libraries.wait_option
@libraries.library_option
@frame.json_option
def export(barcodes: tuple[str, ...], wait_s: float, library: str | None, config: Config, as_json: bool) -> None:
    """Put cartridges into the mail slots, for a person to take out.

    Ends with 3 when the mail slots are full before all are there: take those out, and run it again for the others.
    """
    from vcbproxy.errors import Partial

    done: list[Element] = []
    with libraries.opened(config, library) as used:
        for barcode in barcodes:  # all of them, before the first one is moved
            used.inventory().where(barcode)
        failed: Error | None = None
        for barcode in barcodes:
            try:
                done.append(_exported(used, barcode, wait_s))
            except Error as error:
                failed = error
                break
        after = used.inventory()
    _show(config, after, done, as_json=as_json)
    if failed is not None and done:
        raise Partial(f"{len(done)} of {len(barcodes)} cartridges exported: {failed}") from failed
    if failed is not None:
        raise failed


@changer.command(
    "map",
    cls=frame.Command,
    exit_codes=(11, 14),
    examples=("vcbproxy tape changer map --with TAP040L8",),
)
@click.option("--with", "barcode", required=True, metavar="BARCODE", help="Any cartridge; it is not read or written.")
@libraries.library_option
@frame.json_option
def map_(barcode: str, library: str | None, config: Config, as_json: bool) -> None:
    """Find out which drive of the robot is which, where the robot does not tell their serial numbers.

    The cartridge is put into each drive once, and the drive that has it is noted in the state directory. Do it again
    whenever a drive is exchanged. All drives must be empty.
    """
    from tape import drivemap
    from tape.library import Library
    from vcbproxy.archive import libraries as configured
    from vcbproxy.archive.boundary import tape_errors

    called, place = configured.chosen(config.tape, library)
    where = state_directory(config)
    with tape_errors():
        devices = configured.devices_of(place, where)
        try:
            known = drivemap.learn(devices, barcode)
            drivemap.save(configured.folder_of(where), devices.robot.serial, known)
            found = Library(devices, name=called, known_drives=known).inventory()
        finally:
            devices.close()
    from tape.elements import ElementKind

    _show(config, found, found.of_kind(ElementKind.DRIVE), as_json=as_json)


def _exported(used: Library, barcode: str, wait_s: float) -> Element:
    from vcbproxy.archive.boundary import tape_errors

    with tape_errors():
        return used.export(barcode, wait_s=wait_s)


def _all(inventory: Inventory) -> list[Element]:
    """Drives first; the robot's hand only when something is in it."""
    from tape.elements import ElementKind

    hand = [element for element in inventory.of_kind(ElementKind.ROBOT) if element.full]
    kinds = (ElementKind.DRIVE, ElementKind.SLOT, ElementKind.MAIL_SLOT)
    return hand + [element for kind in kinds for element in inventory.of_kind(kind)]


def _mail(inventory: Inventory) -> list[Element]:
    from tape.elements import ElementKind

    return inventory.of_kind(ElementKind.MAIL_SLOT)


def _show(config: Config, inventory: Inventory, elements: list[Element], *, as_json: bool) -> None:
    from vcbproxy.archive.boundary import tape_errors
    from vcbproxy.archive.libraries import cleaning_log

    log = cleaning_log(state_directory(config))
    with tape_errors():
        rows = [libraries.row(element, inventory, log) for element in elements]
    frame.emit(rows, as_json=as_json, columns=_COLUMNS, columns_if_any=_IF_ANY)
