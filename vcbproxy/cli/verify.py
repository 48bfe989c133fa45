"""``vcbproxy verify``: prove that restore points restore."""

from __future__ import annotations

import click

from vcbproxy.cli import frame
from vcbproxy.errors import IntegrityError, NothingProtected
from vcbproxy.units import human


@click.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=("vcbproxy verify                 every restore point", "vcbproxy verify web01@latest"),
)
@click.argument("points", metavar="[POINT]...", nargs=-1)
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
@frame.repository_options
@frame.json_option
def verify(points: tuple[str, ...], workers: int, repository: frame.RepositoryAddress, as_json: bool) -> None:
    """Re-read restore points, all of them when none is named, and digest every chunk again.

    POINT is web01@latest, web01@2026-11-22T01:00:00Z, or the beginning of an id.
    """
    from jobs import verify as job
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.repository.target import RepositoryTarget

    target = RepositoryTarget(repository.open(cached=False))  # what is stored is to be proved, not a copy of it
    chosen = [target.find(text) for text in points] or target.points()
    if not chosen:
        raise NothingProtected(f"{repository.location} holds no restore point: nothing could be verified")
    findings = job.run(target, chosen, Terminal(), workers=workers)
    frame.emit(
        [
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
        ],
        as_json=as_json,
        columns=("point", "name", "result", "disks", "size", "read"),
        columns_if_any=("errors",),
    )
    damaged = [finding.point.name for finding in findings if not finding.ok]
    if damaged:
        raise IntegrityError(f"{len(damaged)} of {len(findings)} restore points damaged: {', '.join(damaged)}")
