"""``vcbproxy tape catalog``: the catalog checked, and made anew from the cartridges."""

from __future__ import annotations

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.tape import named
from vcbproxy.config import Config
from vcbproxy.errors import IntegrityError, UsageError


@click.group(cls=frame.Group)
def catalog() -> None:
    """What is known of cartridges, and of the restore points on them."""


@catalog.command(
    "rebuild",
    cls=frame.Command,
    exit_codes=(4, 11, 12, 14),
    examples=(
        "vcbproxy tape catalog rebuild",
        "vcbproxy tape catalog rebuild TAP001L8 TAP002L8",
        "vcbproxy tape catalog rebuild --complete          no cartridge is missing",
    ),
)
@click.argument("barcodes", metavar="[BARCODE]...", nargs=-1)
@click.option("--recover", is_flag=True, help="Roll back volumes of ours whose last writer did not finish: writes.")
@click.option(
    "--complete", is_flag=True, help="No other cartridges exist: what was seen by then says how long all is kept."
)
@named.library_option
@frame.config_option
@frame.json_option
def rebuild(
    barcodes: tuple[str, ...],
    recover: bool,
    complete: bool,
    library_name: str | None,
    config: Config,
    as_json: bool,
) -> None:
    """Make the catalog anew from cartridges alone: all in the library, or those that are named.

    Each is loaded, and its index read; nothing is written to it, unless with --recover. What the catalog knows of other
    cartridges stays; of these, it says afterwards what they hold.

    Media sets that were not known are kept as if they were written to today, by their longest rule: cartridges of them
    may lie in a vault, with deltas upon what lies here. Once all were seen, --complete ends that.
    """
    from vcbproxy.archive.rebuild import complete as completed
    from vcbproxy.archive.rebuild import rebuild as rebuilt_from

    pools: list[str] = []
    with shelves.library(config, library_name) as (_, library, keeper), tape_errors():
        rebuilt = rebuilt_from(library, keeper, barcodes, recover=recover, wait_s=named.WAIT_S, progress=_say)
        told = [*rebuilt.told, *(f"{barcode}: {problem}" for barcode, problem in rebuilt.problems.items())]
        told += [f"{seen.barcode}: {seen.problem}" for seen in rebuilt.seen if seen.problem]
        if complete and told:
            told.append("so it was not taken for complete")
        elif complete:
            try:
                pools = completed(keeper)
            except UsageError as error:
                told.append(str(error))
    waiting = [] if pools else rebuilt.waiting
    if waiting:
        frame.say(
            f"cartridges of {frame.counted(len(waiting), 'media set')} may lie elsewhere: kept the longer for it; "
            "once all were seen: `vcbproxy tape catalog rebuild --complete`"
        )
    row = {
        "cartridges": [seen.barcode for seen in rebuilt.seen],
        "points": [point.name for point in rebuilt.points],
        "gone": [point.name for point in rebuilt.gone],
        "problems": told,
        "pinned": rebuilt.pinned,
        "waiting": waiting,
        "complete": pools,
    }
    frame.emit(row, as_json=as_json)
    if told:
        raise IntegrityError(f"{frame.counted(len(told), 'problem')}: {'; '.join(told)}")


def _say(barcode: str, number: int, count: int) -> None:
    frame.say(f"{barcode} ({number} of {count})")


@catalog.command("check", cls=frame.Command, exit_codes=(4, 11, 12), examples=("vcbproxy tape catalog check",))
@click.option("--library", "library_names", multiple=True, metavar="NAME", help="Also ask this library for its labels.")
@frame.config_option
@frame.json_option
def check(library_names: tuple[str, ...], config: Config, as_json: bool) -> None:
    """Check whether the catalog hangs together, and agrees with what lies in libraries by their labels."""
    from tape.elements import ElementKind
    from vcbproxy.catalog.check import complaints

    present: dict[str, list[str]] = {}
    inside: set[str] = set()
    for name in library_names:
        with shelves.library(config, name) as (library_name, library, _keeper), tape_errors():
            inventory = library.inventory()
            present[library_name] = inventory.barcodes
            inside |= {one.barcode for one in inventory.elements if one.kind is not ElementKind.MAIL_SLOT}
    with shelves.catalog(config) as known, known.transaction():
        media, sets, points = known.media.listed(), known.sets.listed(), known.points.listed()
        pins = known.marks.pins().values()
        wrong = complaints(media, sets, points, present, inside, pins)
        found = [{"about": one.about, "problem": one.what} for one in wrong]
    frame.say(
        f"{frame.counted(len(media), 'cartridge')}, {frame.counted(len(sets), 'media set')}, "
        f"{frame.counted(len(points), 'restore point')}"
    )
    frame.emit(found, as_json=as_json, columns=("about", "problem"))
    if found:
        raise IntegrityError(
            f"{frame.counted(len(found), 'problem')} in the catalog; see `vcbproxy tape catalog rebuild`"
        )
