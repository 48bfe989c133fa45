"""``vcbproxy tape media vault`` and ``return``: cartridges carried out of the house, and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.archive.places import place
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.moments import when
from vcbproxy.cli.tape import named
from vcbproxy.config import Config
from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from vcbproxy.catalog.medium import Medium


@click.command(
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
@named.library_option
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
        wanted = named.all_named(catalog, names)
        places = {medium.barcode: vault_name or _vault_of(config, medium) for medium in wanted}
    slots: dict[str, str] = {}
    if by_robot:
        with shelves.library(config, library_name) as (_, library, _keeper), tape_errors():
            slots = {
                barcode: place(library.export(barcode, wait_s=named.WAIT_S), library.inventory()) for barcode in places
            }
    now = datetime.now(UTC)

    def vaulted(barcode: str, known: Medium | None) -> Medium:
        medium = named.must_be(known, barcode)
        return replace(medium, vault=places[barcode], vaulted=now, due_back=back, library=None, slot=None)

    with shelves.catalog(config) as catalog, catalog.transaction():
        for barcode in places:
            catalog.media.change(barcode, partial(vaulted, barcode))
    result = [
        {"barcode": barcode, "vault": place, "due_back": when(back), "mail_slot": slots.get(barcode)}
        for barcode, place in places.items()
    ]
    frame.emit(result, as_json=as_json, columns=("barcode", "vault"), columns_if_any=("due_back", "mail_slot"))


def _vault_of(config: Config, medium: Medium) -> str:
    pool = config.tape.pool.get(medium.pool or "")
    if pool is None or pool.vault is None:
        raise UsageError(f"{medium.barcode}: say where with --to; its pool has no vault")
    return pool.vault


@click.command(
    "return", cls=frame.Command, exit_codes=(11, 12), examples=("vcbproxy tape media return TAP001L8 TAP002L8",)
)
@click.argument("names", metavar="BARCODE|SET...", nargs=-1, required=True)
@frame.config_option
@frame.json_option
def return_(names: tuple[str, ...], config: Config, as_json: bool) -> None:
    """Note that cartridges are back from a vault. `inventory` does so by itself for what it sees in the library."""
    with shelves.catalog(config) as catalog, catalog.transaction():
        wanted = named.all_named(catalog, names)
        if away := [medium.barcode for medium in wanted if medium.vault is None]:
            raise UsageError(f"not in a vault: {', '.join(away)}")
        for medium in wanted:
            catalog.media.put(medium.fetched())
    result = [{"barcode": medium.barcode, "vault": medium.vault} for medium in wanted]
    frame.emit(result, as_json=as_json, columns=("barcode", "vault"))


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no date; write it like 2027-11-27") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
