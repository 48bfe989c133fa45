"""``vcbproxy copy``: restore points from the repository onto tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vcbproxy.cli import address, archiving, frame
from vcbproxy.config import Compression, Config
from vcbproxy.errors import Cancelled, Error
from vcbproxy.units import human

if TYPE_CHECKING:
    from jobs.tapecopy import Copied


@click.command(
    cls=frame.Command,
    exit_codes=(3, 4, 10, 11, 12, 14),
    examples=(
        "vcbproxy copy web01@latest db01@latest --to tape:monthly",
        "vcbproxy copy 4ac8c401 --to tape:monthly --json",
        "vcbproxy copy web01@latest db01@latest --to tape:monthly --drives 2",
    ),
)
@click.argument("points", metavar="POINT...", nargs=-1, required=True)
@click.option("--to", "target", metavar="tape:POOL", required=True, help="Onto cartridges of this pool.")
@click.option("--drives", type=click.IntRange(1, 64), default=1, show_default=True, help="Drives at once.")
@click.option("--full", is_flag=True, help="Copy all, also where the VM's last copy on tape could be built upon.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads of each kind.")
@click.option(
    "--compression",
    type=click.Choice([value.value for value in Compression]),
    default=Compression.AUTO.value,
    show_default=True,
    help="How small to make it; auto: as small as the drive leaves time for.",
)
@address.repository_options
@frame.json_option
def copy(
    points: tuple[str, ...],
    target: str,
    drives: int,
    full: bool,
    workers: int,
    compression: str,
    repository: address.RepositoryAddress,
    config: Config,
    as_json: bool,
) -> None:
    """Copy restore points from the repository onto tape, as images that stock tools restore.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), or the beginning of an id from `points list`.
    Neither the VM nor the SAN is asked; every chunk is checked on its way. Where the VM's newest restore point in the
    same media set is a copy, too, only what is different is copied. With --drives, VMs are copied side by side, each
    onto a drive of its own; a cartridge that cannot be written is given up, and the restore point copied once more.
    """
    from jobs import tapecopy as job
    from jobs.tapebases import doubt_copies
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.clock import SystemClock
    from vcbproxy.repository.target import RepositoryTarget

    stored = RepositoryTarget(repository.open(), lock=False)  # one lock, below, for all of it
    chosen = list({point.original: point for point in (stored.find(text) for text in points)}.values())
    pool = archiving.pool_of(target)
    done: list[Copied] = []
    try:
        with (
            stored.locked(),
            archiving.into(config, pool, drives=drives, compression=Compression(compression)) as into,
        ):
            doubt_copies(into.ledger, stored.points())
            report = job.run(
                stored, chosen, into, Terminal(), SystemClock(), workers=workers, deltas=not full, results=done
            )
    except (Error, Cancelled):
        if done:
            _show(done, as_json)
        raise
    _show(report.results, as_json)
    report.raise_unless_ok()


def _show(results: Sequence[Copied], as_json: bool) -> None:
    frame.emit(
        [
            {
                "name": result.source.name,
                "source": result.source.short_id,
                "source_id": result.source.id,
                "point": result.committed and result.committed.id[:8],
                "point_id": result.committed and result.committed.id,
                "size": human(result.size_bytes),
                "size_bytes": result.size_bytes,
                "stored": human(result.bytes_stored),
                "bytes_stored": result.bytes_stored,
                "seconds": round(result.seconds, 1),
                "barcodes": list(((result.committed and result.committed.media) or {}).get("barcodes", ())),
                "tape": result.committed and dict(result.committed.media or {}),
                "error": None if result.error is None else str(result.error),
            }
            for result in results
        ],
        as_json=as_json,
        columns=("name", "source", "point", "size", "stored", "seconds", "barcodes"),
        columns_if_any=("error",),
    )
