"""``vcbproxy tape media``: cartridges, what may be done with them, and where they are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.archive.places import place
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.tape import rows
from vcbproxy.config import Config
from vcbproxy.errors import Partial, UsageError

if TYPE_CHECKING:
    from vcbproxy.archive.keeper import Keeper
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.expiry import Hold
    from vcbproxy.catalog.medium import Medium
    from vcbproxy.catalog.vaulting import Due

_WAIT_S = 600.0
_LIBRARY = click.option("--library", "library_name", metavar="NAME", help="Which library; the only one configured.")


@click.group()
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
        _known(catalog, barcode)
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
@click.option("--new", is_flag=True, help="All that are in the library, in some pool's ranges, and not known yet.")
@click.option("--anew", is_flag=True, help="Also format empty ones of ours once more.")
@_LIBRARY
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
    done: list[dict[str, Any]] = []
    with shelves.library(config, library_name) as (_, library, keeper):
        wanted = list(barcodes) or _new_ones(config, library.inventory().barcodes, keeper.catalog)
        for barcode in wanted:
            done.append(_labelled(library, keeper, barcode, anew=anew, dry_run=dry_run))
    frame.emit(done, as_json=as_json, columns=("barcode", "holds", "done"), columns_if_any=("problem",))
    _hold_all_well(done)


def _new_ones(config: Config, present: list[str], catalog: Catalog) -> list[str]:
    known = {medium.barcode for medium in catalog.media.listed()}
    ranges = [one for pool in config.tape.pool.values() for one in pool.barcodes]
    return sorted(
        barcode for barcode in present if barcode not in known and any(barcode in barcodes for barcodes in ranges)
    )


def _labelled(library: Any, keeper: Keeper, barcode: str, *, anew: bool, dry_run: bool) -> dict[str, Any]:
    from vcbproxy.archive.keeper import Unfit
    from vcbproxy.archive.overwriting import refusal

    with tape_errors(), library.loaded(barcode, wait_s=_WAIT_S) as drive:
        found, volume = keeper.identify(drive)
        row = {"barcode": barcode, "holds": found.what, "done": False, "problem": None}
        known = keeper.catalog.media.get(barcode)
        reason = refusal(barcode, found, known, keeper.holds().get(barcode), None, keeper.hand.now())
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
@click.option("--reason", required=True, help="Why, for whoever wonders later.")
@click.option("--undo", is_flag=True, help="Let it be used again.")
@frame.config_option
@frame.json_option
def retire(barcode: str, reason: str, undo: bool, config: Config, as_json: bool) -> None:
    """Write a cartridge no more. What lies on it can be restored."""
    from vcbproxy.catalog.medium import State

    def retired(known: Medium | None) -> Medium:
        medium = _must_be(known, barcode)
        if not undo:
            return replace(medium, state=State.RETIRED, reason=reason)
        if medium.state not in (State.RETIRED, State.DAMAGED):
            raise UsageError(f"{barcode} is {medium.state.value}, not retired")
        state = State.FULL if medium.volume_uuid is not None and medium.pool is not None else State.SCRATCH
        return replace(medium, state=state, reason=reason)

    with shelves.catalog(config) as catalog:
        medium = catalog.media.change(barcode, retired)
    frame.emit({"barcode": barcode, "state": medium.state.value, "reason": medium.reason}, as_json=as_json)


@media.command(
    "vault",
    cls=frame.Command,
    exit_codes=(11, 12, 14),
    examples=(
        "vcbproxy tape media vault TAP001L8 --to 'salt mine' --export",
        "vcbproxy tape media vault offsite-20261127T010000-1f0c --due-back 2027-11-27",
    ),
)
@click.argument("names", metavar="BARCODE|SET...", nargs=-1, required=True)
@click.option("--to", "vault_name", metavar="LOCATION", help="Where to; the pool's vault.")
@click.option("--due-back", metavar="DATE", help="When it should be fetched; as soon as nothing on it is kept.")
@click.option("--export", "by_robot", is_flag=True, help="Have the robot put it into a mail slot.")
@_LIBRARY
@frame.config_option
@frame.json_option
def vault(
    names: tuple[str, ...],
    vault_name: str | None,
    due_back: str | None,
    by_robot: bool,
    library_name: str | None,
    config: Config,
    as_json: bool,
) -> None:
    """Note that cartridges, or all of a media set, were taken to a vault."""
    back = _date(due_back)
    with shelves.catalog(config) as catalog:
        wanted = _named(catalog, names)
        places = {medium.barcode: vault_name or _vault_of(config, medium) for medium in wanted}
    slots: dict[str, str] = {}
    if by_robot:
        with shelves.library(config, library_name) as (_, library, _keeper), tape_errors():
            slots = {barcode: place(library.export(barcode, wait_s=_WAIT_S), library.inventory()) for barcode in places}
    now = datetime.now(UTC)

    def vaulted(known: Medium | None, barcode: str) -> Medium:
        medium = _must_be(known, barcode)
        return replace(medium, vault=places[barcode], vaulted=now, due_back=back, library=None, slot=None)

    with shelves.catalog(config) as catalog, catalog.transaction():
        for barcode in places:
            catalog.media.change(barcode, lambda known, barcode=barcode: vaulted(known, barcode))  # type: ignore[misc]
    result = [
        {"barcode": barcode, "vault": place, "due_back": rows.when(back), "mail_slot": slots.get(barcode)}
        for barcode, place in places.items()
    ]
    frame.emit(result, as_json=as_json, columns=("barcode", "vault"), columns_if_any=("due_back", "mail_slot"))


def _vault_of(config: Config, medium: Medium) -> str:
    pool = config.tape.pool.get(medium.pool or "")
    if pool is None or pool.vault is None:
        raise UsageError(f"{medium.barcode}: say where with --to; its pool has no vault")
    return pool.vault


@media.command(
    "return", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape media return TAP001L8 TAP002L8",)
)
@click.argument("names", metavar="BARCODE|SET...", nargs=-1, required=True)
@frame.config_option
@frame.json_option
def return_(names: tuple[str, ...], config: Config, as_json: bool) -> None:
    """Note that cartridges are back from a vault. `inventory` does so by itself for what it sees in the library."""
    with shelves.catalog(config) as catalog, catalog.transaction():
        wanted = _named(catalog, names)
        if away := [medium.barcode for medium in wanted if medium.vault is None]:
            raise UsageError(f"not in a vault: {', '.join(away)}")
        for medium in wanted:
            catalog.media.put(medium.fetched())
    result = [{"barcode": medium.barcode, "vault": medium.vault} for medium in wanted]
    frame.emit(result, as_json=as_json, columns=("barcode", "vault"))


@media.command(
    "release",
    cls=frame.Command,
    exit_codes=(11, 12, 14),
    examples=(
        "vcbproxy tape media release TAP001L8                 what lies on it, and what would be lost",
        "vcbproxy tape media release TAP001L8 --overwrite 5f0e12ab-…@7",
    ),
)
@click.argument("barcode")
@click.option("--overwrite", "fingerprint", metavar="FINGERPRINT", help="Exactly this may be overwritten.")
@click.option("--dry-run", is_flag=True, help="With --overwrite: only say what would be lost.")
@_LIBRARY
@frame.config_option
@frame.json_option
def release(
    barcode: str, fingerprint: str | None, dry_run: bool, library_name: str | None, config: Config, as_json: bool
) -> None:
    """Give up what lies on a cartridge before its time, or what is not ours: in two steps.

    The first looks at the cartridge, and says what it holds and what its FINGERPRINT is. The second allows exactly that
    to be overwritten: once anybody wrote to it, it is another. Restore points on it, and those that build upon them,
    leave the catalog. Nothing is written to the cartridge before a pool takes it.
    """
    from vcbproxy.archive.releasing import release as released

    with shelves.library(config, library_name) as (_, library, keeper), tape_errors():
        with library.loaded(barcode, wait_s=_WAIT_S) as drive:
            found, _volume = keeper.identify(drive)
        outcome = released(keeper, barcode, found, None if dry_run else fingerprint)
    row = {
        "barcode": barcode,
        "holds": found.what,
        "fingerprint": found.fingerprint,
        "kept_until": rows.when(outcome.hold.until) if outcome.hold else None,
        "because": outcome.hold.because if outcome.hold else None,
        "lost": [point.name for point in outcome.lost],
        "released": outcome.released,
    }
    frame.emit(row, as_json=as_json)
    if fingerprint is not None and fingerprint != found.fingerprint:
        raise UsageError(f"cartridge {barcode} holds {found.fingerprint}, not {fingerprint}: nothing was released")


@media.command(
    "recycle",
    cls=frame.Command,
    exit_codes=(11, 12),
    examples=("vcbproxy tape media recycle --dry-run", "vcbproxy tape media recycle --pool daily"),
)
@click.option("--pool", "pool_name", metavar="NAME", help="Only this pool's.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@frame.config_option
@frame.json_option
def recycle(pool_name: str | None, dry_run: bool, config: Config, as_json: bool) -> None:
    """Give cartridges on which nothing is kept any more to all pools whose ranges have them.

    A pool takes its own expired ones by itself, the oldest first. The cartridge is asked once more before anything is
    written to it; until then it can be put into a new catalog.
    """
    from vcbproxy.archive.releasing import recycle as recycled

    with shelves.catalog(config) as catalog:
        keeper = shelves.keeper(config, catalog, "")
        outcome = recycled(keeper, pool_name, dry_run=dry_run)
    result = [
        {
            "barcode": medium.barcode,
            "pool": medium.pool,
            "media_set": medium.media_set,
            "last_written": rows.when(medium.last_written),
            "location": medium.location,
            "points": [point.name for point in points],
        }
        for medium, points in outcome
    ]
    frame.emit(result, as_json=as_json, columns=("barcode", "pool", "last_written", "location", "points"))
    frame.say(f"{frame.counted(len(result), 'cartridge')} {'would be' if dry_run else ''} free".replace("  ", " "))


# ---------------------------------------------------------------------- what commands share


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


def _known(catalog: Catalog, barcode: str) -> Medium:
    return _must_be(catalog.media.get(barcode), barcode)


def _must_be(known: Medium | None, barcode: str) -> Medium:
    if known is None:
        raise UsageError(f"the catalog knows no cartridge {barcode}; see `vcbproxy tape inventory`")
    return known


def _named(catalog: Catalog, names: tuple[str, ...]) -> list[Medium]:
    """Cartridges by their labels, or by that of their media set; each once."""
    found: dict[str, Medium] = {}
    every = catalog.media.listed()
    for name in names:
        of_set = [medium for medium in every if medium.media_set == name]
        for medium in of_set or [_known(catalog, name)]:
            found[medium.barcode] = medium
    return list(found.values())


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date; write it like 2027-11-27") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _hold_all_well(done: list[dict[str, Any]]) -> None:
    wrong = [row["barcode"] for row in done if row["problem"]]
    if wrong:
        raise Partial(f"{len(wrong)} of {frame.counted(len(done), 'cartridge')} left as they are: {', '.join(wrong)}")
