"""``vcbproxy tape media``: cartridges, what may be done with them, and where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.tape import named, rows
from vcbproxy.cli.tape.givingup import recycle, release
from vcbproxy.cli.tape.vaulting import return_, vault
from vcbproxy.config import Config
from vcbproxy.errors import Partial, UsageError

if TYPE_CHECKING:
    from vcbproxy.archive.keeper import Keeper
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.expiry import Hold
    from vcbproxy.catalog.medium import Medium
    from vcbproxy.catalog.vaulting import Due


@click.group(cls=frame.Group)
def media() -> None:
    """Cartridges: what may be done with them, how long they are kept, and where they are."""


@media.command(
    "list",
    cls=frame.Command,
    exit_codes=(11, 12),
    examples=("vcbproxy tape media list", "vcbproxy tape media list --due          what is to be carried"),
)
@click.option("--pool", "pool_name", metavar="NAME", help="Only this pool's.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only of this state: scratch, full, ...")
@click.option("--due", "only_due", is_flag=True, help="Only those that are to be carried to a vault, or back.")
@frame.config_option
@frame.json_option
def list_(pool_name: str | None, states: tuple[str, ...], only_due: bool, config: Config, as_json: bool) -> None:
    """List the cartridges that the catalog knows. Nothing is asked of the library."""
    from vcbproxy.catalog.medium import State

    known = {state.value for state in State}
    if wrong := [state for state in states if state not in known]:
        raise UsageError(f"no state {wrong[0]!r}; there are: {', '.join(sorted(known))}")
    with shelves.catalog(config) as catalog:
        listed = [
            rows.medium_row(medium, hold, due)
            for medium, hold, due in _judged(config, catalog)
            if pool_name in (None, medium.pool)
            and (not states or medium.state.value in states)
            and (due is not None or not only_due)
        ]
    columns = ("barcode", "state", "pool", "location", "size", "room", "kept_until")
    frame.emit(listed, as_json=as_json, columns=columns, columns_if_any=("due", "reason"))


@media.command("show", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape media show TAP001L8",))
@click.argument("barcode")
@frame.config_option
@frame.json_option
def show(barcode: str, config: Config, as_json: bool) -> None:
    """All that is known of a cartridge, and which restore points have something on it."""
    with shelves.catalog(config) as catalog:
        named.known(catalog, barcode)
        [(medium, hold, due)] = [judged for judged in _judged(config, catalog) if judged[0].barcode == barcode]
        row = rows.medium_details(medium, hold, due, catalog.points.of_cartridge(barcode))
    frame.emit(row, as_json=as_json)


@media.command(
    "label",
    cls=frame.Command,
    exit_codes=(3, 11, 12, 14),
    examples=("vcbproxy tape media label TAP001L8 TAP002L8", "vcbproxy tape media label --new --dry-run"),
)
@click.argument("barcodes", metavar="[BARCODE]...", nargs=-1)
@click.option("--new", is_flag=True, help="All that are in the library, in some pool's ranges, and have no volume yet.")
@click.option("--anew", is_flag=True, help="Also format empty ones of ours once more.")
@named.library_option
@click.option("--dry-run", is_flag=True, help="Only look at what lies on them.")
@frame.config_option
@frame.json_option
def label(
    barcodes: tuple[str, ...],
    new: bool,
    anew: bool,
    library_name: str | None,
    dry_run: bool,
    config: Config,
    as_json: bool,
) -> None:
    """Format blank cartridges, so that any pool whose ranges have them may take them.

    Not needed: a backup formats what it takes. But LTO-9 cartridges are calibrated on their first load, for up to two
    hours. One that is not blank is left as it is; see `release`.
    """
    if bool(barcodes) == new:
        raise UsageError("name cartridges, or give --new")
    from vcbproxy.archive.stock import by_labels

    done: list[dict[str, Any]] = []
    with shelves.library(config, library_name) as (_, library, keeper):
        wanted = list(barcodes) or _new_ones(config, library.inventory().barcodes, keeper.catalog)
        for barcode in wanted:
            done.append(_labelled(library, keeper, barcode, anew=anew, dry_run=dry_run))
        with tape_errors():
            by_labels(library.inventory(), keeper)  # where those lie that it did not know
    frame.emit(done, as_json=as_json, columns=("barcode", "holds", "done"), columns_if_any=("problem",))
    _hold_all_well(done)


def _new_ones(config: Config, present: list[str], catalog: Catalog) -> list[str]:
    """Those that somebody has only looked at are as new as those that nobody knows."""
    from vcbproxy.catalog.medium import State

    done = {
        medium.barcode
        for medium in catalog.media.listed()
        if medium.state is not State.SCRATCH or medium.volume_uuid is not None
    }
    ranges = [one for pool in config.tape.pool.values() for one in pool.barcodes]
    return sorted(
        barcode for barcode in present if barcode not in done and any(barcode in barcodes for barcodes in ranges)
    )


def _labelled(library: Any, keeper: Keeper, barcode: str, *, anew: bool, dry_run: bool) -> dict[str, Any]:
    from vcbproxy.archive.keeper import Unfit

    with tape_errors(), library.loaded(barcode, wait_s=named.WAIT_S) as drive, keeper.drive_session(drive):
        found, volume = keeper.identify(drive)
        row = {"barcode": barcode, "holds": found.what, "done": False, "problem": None}
        known = keeper.catalog.media.get(barcode)
        reason = keeper.refusal(barcode, found, known, None)
        if reason is not None:
            return {**row, "problem": reason}
        if dry_run:
            return row
        try:
            keeper.label(drive, barcode, found, volume, anew=anew)
        except Unfit as error:  # the catalog changed meanwhile
            return {**row, "problem": str(error)}
        return {**row, "done": True}


@media.command(
    "retire", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape media retire TAP001L8 --reason worn",)
)
@click.argument("barcode")
@click.option("--reason", default="", help="Why, for whoever wonders later; wanted unless with --undo.")
@click.option("--undo", is_flag=True, help="Let it be used again.")
@frame.config_option
@frame.json_option
def retire(barcode: str, reason: str, undo: bool, config: Config, as_json: bool) -> None:
    """Write a cartridge no more. What lies on it can be restored."""
    from vcbproxy.catalog.medium import State

    if not (reason or undo):
        raise UsageError("say why: --reason TEXT")

    def retired(found: Medium | None) -> Medium:
        medium = named.must_be(found, barcode)
        if not undo:
            return replace(medium, state=State.RETIRED, reason=reason)
        if medium.state not in (State.RETIRED, State.DAMAGED):
            raise UsageError(f"{barcode} is {medium.state.value}, not retired")
        state = State.FULL if medium.volume_uuid is not None and medium.pool is not None else State.SCRATCH
        return replace(medium, state=state, reason=reason)

    with shelves.catalog(config) as catalog:
        medium = catalog.media.change(barcode, retired)
    frame.emit({"barcode": barcode, "state": medium.state.value, "reason": medium.reason}, as_json=as_json)


def _judged(config: Config, catalog: Catalog) -> list[tuple[Medium, Hold | None, Due | None]]:
    """Every cartridge, why it is kept, and whether it is to be carried."""
    from vcbproxy.catalog.vaulting import due

    keeper = shelves.keeper(config, catalog, "")
    held, now = keeper.holds(), keeper.hand.now()
    sets = {one.id: one for one in catalog.sets.listed()}
    vaults = {name: pool.vault for name, pool in config.tape.pool.items() if pool.vault is not None}
    return [
        (
            medium,
            held.get(medium.barcode),
            due(medium, sets.get(medium.media_set or ""), held.get(medium.barcode), vaults, now),
        )
        for medium in catalog.media.listed()
    ]


def _hold_all_well(done: list[dict[str, Any]]) -> None:
    wrong = [row["barcode"] for row in done if row["problem"]]
    if wrong:
        raise Partial(f"{len(wrong)} of {frame.counted(len(done), 'cartridge')} left as they are: {', '.join(wrong)}")


for _further in (vault, return_, release, recycle):
    media.add_command(_further)
