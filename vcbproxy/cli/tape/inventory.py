"""``vcbproxy tape inventory``: what lies in a library, by its labels or by looking at each cartridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.tape import named
from vcbproxy.config import Config
from vcbproxy.errors import Partial, UsageError

if TYPE_CHECKING:
    from vcbproxy.archive.stock import Seen


@click.command(
    cls=frame.Command,
    exit_codes=(3, 11, 12, 14),
    examples=(
        "vcbproxy tape inventory                          seconds: labels only",
        "vcbproxy tape inventory --full TAP001L8          what is really on it",
    ),
)
@click.argument("barcodes", metavar="[BARCODE]...", nargs=-1)
@click.option("--barcode-only", is_flag=True, help="Go by the labels alone.  [default]")
@click.option("--full", is_flag=True, help="Load each cartridge, and look at what is on it: minutes each.")
@named.library_option
@frame.config_option
@frame.json_option
def inventory(
    barcodes: tuple[str, ...],
    barcode_only: bool,
    full: bool,
    library_name: str | None,
    config: Config,
    as_json: bool,
) -> None:
    """Take stock of a library, and bring the catalog up to where each cartridge is; with --full, to what is on it.

    Nothing is written to any cartridge. What differs from the catalog is a PROBLEM, and the exit code is 3.
    """
    from vcbproxy.archive import stock
    from vcbproxy.archive.rebuild import rebuild

    if barcode_only and full:
        raise UsageError("give --barcode-only or --full, not both")
    if barcodes and not full:
        raise UsageError("labels are all read at once; name cartridges with --full")
    with shelves.library(config, library_name) as (_, library, keeper), tape_errors():
        if full:
            looked = rebuild(library, keeper, barcodes, points_too=False, wait_s=named.WAIT_S, progress=_say)
            seen = [_row(one) for one in looked.seen]
            seen += [_problem(barcode, problem) for barcode, problem in looked.problems.items()]
        else:
            seen = [_row(one) for one in stock.by_labels(library.inventory(), keeper)]
    columns = ("barcode", "place", "state", "pool")
    frame.emit(seen, as_json=as_json, columns=columns, columns_if_any=("holds", "problem"))
    if wrong := [row["barcode"] or row["place"] for row in seen if row["problem"]]:
        raise Partial(f"{frame.counted(len(wrong), 'cartridge')} not as the catalog has it: {', '.join(wrong)}")


def _say(barcode: str, number: int, count: int) -> None:
    frame.say(f"{barcode} ({number} of {count})")


def _row(seen: Seen) -> dict[str, Any]:
    medium = seen.medium
    return {
        "barcode": seen.barcode,
        "place": seen.place or None,
        "state": medium.state.value if medium is not None else "unknown",
        "pool": medium.pool if medium is not None else None,
        "holds": seen.holds or None,
        "problem": seen.problem or None,
    }


def _problem(barcode: str, problem: str) -> dict[str, Any]:
    return {"barcode": barcode, "place": None, "state": "unknown", "pool": None, "holds": None, "problem": problem}
