"""``vcbproxy tape media release`` and ``recycle``: what lies on cartridges, given up."""

from __future__ import annotations

import click

from vcbproxy.archive.boundary import tape_errors
from vcbproxy.cli import frame, shelves
from vcbproxy.cli.moments import when
from vcbproxy.cli.tape import named
from vcbproxy.config import Config
from vcbproxy.errors import UsageError


@click.command(
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
@named.library_option
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
        with library.loaded(barcode, wait_s=named.WAIT_S) as drive, keeper.drive_session(drive):
            found, _volume = keeper.identify(drive)
        outcome = released(keeper, barcode, found, None if dry_run else fingerprint)
    row = {
        "barcode": barcode,
        "holds": found.what,
        "fingerprint": found.fingerprint,
        "kept_until": when(outcome.hold.until) if outcome.hold else None,
        "because": outcome.hold.because if outcome.hold else None,
        "lost": [point.name for point in outcome.lost],
        "released": outcome.released,
    }
    frame.emit(row, as_json=as_json)
    if fingerprint is not None and fingerprint != found.fingerprint:
        raise UsageError(f"cartridge {barcode} holds {found.fingerprint}, not {fingerprint}: nothing was released")


@click.command(
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
            "last_written": when(medium.last_written),
            "location": medium.location,
            "points": [point.name for point in points],
        }
        for medium, points in outcome
    ]
    frame.emit(result, as_json=as_json, columns=("barcode", "pool", "last_written", "location", "points"))
    frame.say(f"{frame.counted(len(result), 'cartridge')} {'would be' if dry_run else ''} free".replace("  ", " "))
