"""``vcbproxy verify``: prove that restore points restore."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import address, archiving, frame
from vcbproxy.config import Config
from vcbproxy.errors import Cancelled, Error, IntegrityError, NothingProtected
from vcbproxy.units import human

if TYPE_CHECKING:
    from jobs.verify import Finding


@click.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12, 14),
    examples=(
        "vcbproxy verify                 every restore point",
        "vcbproxy verify web01@latest",
        "vcbproxy verify --from tape:monthly --wait",
    ),
)
@click.argument("points", metavar="[POINT]...", nargs=-1)
@click.option("--from", "source", metavar="tape[:POOL]", help="Those on cartridges, not those in the repository.")
@click.option("--wait", is_flag=True, help="Of tape: wait for cartridges that are not in the library (else 14).")
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help="Of tape: file with the age identity that reads encrypted images; else the pool's own.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
@click.option("--no-lock", is_flag=True, help="Take no lock: for a repository on read-only media.")
@address.optional_repository_options
@frame.json_option
def verify(
    points: tuple[str, ...],
    source: str | None,
    wait: bool,
    identity: Path | None,
    workers: int,
    no_lock: bool,
    repository: address.RepositoryAddress | None,
    config: Config,
    as_json: bool,
) -> None:
    """Re-read restore points, all of them when none is named, and digest every chunk again.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), or the beginning of an id.

    From tape each cartridge is loaded once if it can be; every image is taken apart, and its disk's digest compared
    with what was read off the LUN.
    """
    if source is not None:
        from vcbproxy.cli import tapereading

        wanted = tapereading.Wanted(points, archiving.source_of(source), workers=workers, wait=wait, identity=identity)
        _show(tapereading.verified(config, wanted), as_json)
        return
    findings: list[Finding] = []
    try:
        with archiving.or_on_tape(config, "add --from tape", *points):
            _in_repository(points, workers, address.required(repository), no_lock=no_lock, findings=findings)
    except (Error, Cancelled):
        if findings:
            _print(_rows(findings), as_json)
        raise
    _show(_rows(findings), as_json)


def _in_repository(
    points: tuple[str, ...],
    workers: int,
    repository: address.RepositoryAddress,
    *,
    no_lock: bool,
    findings: list[Finding],
) -> None:
    from jobs import verify as job
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.repository.target import RepositoryTarget

    opened = repository.open(cached=False)  # what is stored is to be proved, not a copy of it
    target = RepositoryTarget(opened, lock=False)  # one for all: what is listed stays until it is looked at
    with nullcontext() if no_lock else target.locked():
        chosen = [target.find(text) for text in points] or target.points()
        if not chosen:
            raise NothingProtected(f"{repository.location} holds no restore point: nothing could be verified")
        job.run(target, chosen, Terminal(), workers=workers, findings=findings)


def _rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "point": finding.point.short_id,
            "point_id": finding.point.id,
            "name": finding.point.name,
            "result": "ok" if finding.ok else "DAMAGED",
            "disks": list(finding.disks),
            "size": human(finding.size_bytes),
            "size_bytes": finding.size_bytes,
            "read": human(finding.bytes_read),
            "bytes_read": finding.bytes_read,
            "errors": list(finding.errors),
        }
        for finding in findings
    ]


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    columns = ("point", "name", "result", "disks", "size", "read")
    frame.emit(rows, as_json=as_json, columns=columns, columns_if_any=("errors",))


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    _print(rows, as_json)
    damaged = [row["name"] for row in rows if row["errors"]]
    if damaged:
        raise IntegrityError(f"{len(damaged)} of {len(rows)} restore points damaged: {', '.join(damaged)}")
