"""``vcbproxy tape library``: a tape library in a folder, made, served over iSCSI, and reached into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy import units
from vcbproxy.cli import frame
from vcbproxy.cli.sizes import Size
from vcbproxy.cli.tape.folder import FOLDER, asked, by_hand, wrong_is_usage
from vcbproxy.cli.tape.serving import serve
from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from tape.emulator.kinds import Kind
    from tape.emulator.library import VirtualLibrary


@click.group(cls=frame.Group)
def library() -> None:
    """A tape library in a folder: drives, a robot, and cartridges that are folders too.

    To try everything out without hardware, to rehearse disasters, and as a library on disk. See docs/tape.md.
    """


library.add_command(serve)


@library.command(
    cls=frame.Command,
    examples=(
        "vcbproxy tape library create /srv/vtl --barcodes TAP001L8-TAP010L8",
        "vcbproxy tape library create /srv/vtl --slots 24 --drives 4 --capacity 2T",
    ),
)
@FOLDER
@click.option("--slots", type=click.IntRange(1, 4096), help="Places for cartridges; 8, or as many as there are.")
@click.option("--drives", type=click.IntRange(1, 64), default=2, show_default=True, help="How many drives.")
@click.option("--mail-slots", type=click.IntRange(0, 64), default=2, show_default=True, help="Import/export places.")
@click.option(
    "--barcodes",
    multiple=True,
    metavar="FIRST-LAST",
    help="Cartridges to begin with, such as TAP001L8-TAP010L8, or one barcode; repeatable. Those that begin with CLN "
    "clean, those that end in LV to LZ can be written once.",
)
@click.option("--capacity", type=Size(), default="3G", show_default=True, help="Of each cartridge, both partitions.")
@click.option("--serial", default="VLIB0001", show_default=True, help="The robot's; those of drives begin with it.")
@frame.json_option
def create(
    folder: Path,
    slots: int | None,
    drives: int,
    mail_slots: int,
    barcodes: Sequence[str],
    capacity: int,
    serial: str,
    as_json: bool,
) -> None:
    """Make a library in FOLDER, its cartridges blank and in the first slots."""
    from tape.emulator.library import VirtualLibrary

    with wrong_is_usage():
        listed = [barcode for text in barcodes for barcode in _expanded(text)]
        made = VirtualLibrary.create(
            folder,
            barcodes=listed,
            slots=slots if slots is not None else max(8, len(listed)),
            drives=drives,
            mail=mail_slots,
            kind=_kind(capacity),
            serial=serial,
            durable=True,
        )
    frame.emit(_rows(made), as_json=as_json, columns=_COLUMNS)
    if not as_json:
        frame.say(f"Use it as it is: [tape.library.NAME] folder = {str(folder.resolve())!r}, in the configuration")
        frame.say(f"Or serve it:     vcbproxy tape library serve {folder}")


@library.command(
    "import", cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library import /srv/vtl TAP011L8",)
)
@FOLDER
@click.argument("barcode")
@click.option("--capacity", type=Size(), default="3G", show_default=True, help="Of a cartridge that is not there yet.")
@frame.json_option
def import_(folder: Path, barcode: str, capacity: int, as_json: bool) -> None:
    """Put a cartridge into a mail slot: a new one, or one whose folder lies in FOLDER. Also while it is served."""
    kind = _kind(capacity)
    with wrong_is_usage():
        request = {"do": "import", "barcode": barcode, "capacity_mib": kind.capacity_mib}
        answer = asked(folder, request) or by_hand(
            folder, lambda library: {"address": library.import_cartridge(barcode, kind)}
        )
    frame.emit({"barcode": barcode, "element": answer["address"]}, as_json=as_json)


@library.command(
    "export", cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library export /srv/vtl TAP001L8",)
)
@FOLDER
@click.argument("barcode")
@frame.json_option
def export(folder: Path, barcode: str, as_json: bool) -> None:
    """Take a cartridge out, by a mail slot; its folder stays in FOLDER, to be copied away. Also while it is served."""

    def take_out(library: VirtualLibrary) -> dict[str, Any]:
        library.take_out(barcode)
        return {"done": True}

    with wrong_is_usage():
        asked(folder, {"do": "export", "barcode": barcode}) or by_hand(folder, take_out)
    frame.emit({"barcode": barcode, "folder": str(folder / barcode)}, as_json=as_json)


@library.command(cls=frame.Command, exit_codes=(11,), examples=("vcbproxy tape library door /srv/vtl open",))
@FOLDER
@click.argument("state", type=click.Choice(["open", "closed"]))
@frame.json_option
def door(folder: Path, state: str, as_json: bool) -> None:
    """Open or close the door of a library that is being served: nothing moves while it is open. For rehearsals."""
    if not asked(folder, {"do": "door", "open": state == "open"}):
        raise UsageError(f"{folder} is not being served: its door matters to nobody")
    frame.emit({"folder": str(folder), "door": state}, as_json=as_json)


@library.command(cls=frame.Command, examples=("vcbproxy tape library show /srv/vtl",))
@FOLDER
@frame.json_option
def show(folder: Path, as_json: bool) -> None:
    """What lies where, as it was after the last move; also while the library is used."""
    from tape.emulator.library import VirtualLibrary

    with wrong_is_usage():
        frame.emit(_rows(VirtualLibrary.open(folder, look_only=True)), as_json=as_json, columns=_COLUMNS)


# ---------------------------------------------------------------------- what there is


def _expanded(text: str) -> Iterator[str]:
    from vcbproxy.config.barcodes import CLEANING_PREFIX, BarcodeRange

    if text.startswith(CLEANING_PREFIX):  # of which a pool may have none
        yield text
    else:
        yield from BarcodeRange.parse(text)


def _kind(capacity_bytes: int) -> Kind:
    from tape.emulator.kinds import Kind

    if capacity_bytes < _CAPACITY_BYTES_MIN:
        raise UsageError(f"a cartridge holds at least {units.human(_CAPACITY_BYTES_MIN)}")
    return Kind(capacity_mib=capacity_bytes // units.MiB)


_CAPACITY_BYTES_MIN = 16 * units.MiB
_COLUMNS = ("element", "type", "drive", "barcode", "source", "capacity", "kind", "write_protected")


def _rows(library: VirtualLibrary) -> list[dict[str, Any]]:
    from tape.emulator.robot import DRIVES, ElementKind

    shelf = library.shelf
    rows = []
    for kind in (ElementKind.DRIVE, ElementKind.SLOT, ElementKind.MAIL):
        for address in shelf.elements(kind):
            barcode = shelf.full.get(address)
            what = library.kind_of(barcode) if barcode is not None else None
            rows.append(
                {
                    "element": address,
                    "type": {"DRIVE": "drive", "SLOT": "slot", "MAIL": "mail slot"}[kind.name],
                    "drive": library.drives[address - DRIVES].serial if kind is ElementKind.DRIVE else None,
                    "barcode": barcode,
                    "source": shelf.sources.get(address),
                    "capacity": units.human(what.capacity_mib * units.MiB) if what is not None else None,
                    "capacity_bytes": what.capacity_mib * units.MiB if what is not None else None,
                    "kind": _sort(barcode, what) if barcode is not None and what is not None else None,
                    "write_protected": what.write_protected if what is not None else None,
                }
            )
    return rows


def _sort(barcode: str, what: Kind) -> str:
    from tape.elements import CLEANING_PREFIX

    if barcode.startswith(CLEANING_PREFIX):
        return "cleaning"
    return "worm" if what.worm else "data"
