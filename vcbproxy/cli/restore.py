"""``vcbproxy restore``: a restore point's disks as raw files."""

from __future__ import annotations

from pathlib import Path

import click

from vcbproxy.cli import frame
from vcbproxy.errors import UsageError
from vcbproxy.units import human


@click.command(
    cls=frame.Command,
    exit_codes=(3, 4, 10, 11, 12),
    examples=(
        "vcbproxy restore web01@latest --to /srv/restored/web01",
        "vcbproxy restore 4ac8c401 --disk scsi0-1 --output /srv/data.raw",
    ),
)
@click.argument("point")
@click.option("--disk", "disks", multiple=True, metavar="KEY", help="Only this disk (scsi0-0); may be repeated.")
@click.option("--to", "directory", type=click.Path(path_type=Path), help="Directory for all that is restored.")
@click.option("--output", type=click.Path(path_type=Path), help="File for one disk.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist, once the new ones are whole.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
@click.option("--no-lock", is_flag=True, help="Take no lock: for a repository on read-only media.")
@frame.repository_options
@frame.json_option
def restore(
    point: str,
    disks: tuple[str, ...],
    directory: Path | None,
    output: Path | None,
    overwrite: bool,
    workers: int,
    no_lock: bool,
    repository: frame.RepositoryAddress,
    as_json: bool,
) -> None:
    """Bring a restore point back: its disks as sparse raw files, and the VM's configuration files.

    POINT is web01@latest, web01@2026-11-22T01:00:00Z, or the beginning of an id from `vcbproxy points list`.
    Every chunk is checked on its way; a disk gets its name only once it is whole.
    """
    from jobs import restore as job
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.repository.target import RepositoryTarget

    if (directory is None) == (output is None):
        raise UsageError("say where to: --to DIRECTORY, or --output FILE for one disk")
    target = RepositoryTarget(repository.open(), lock=not no_lock)
    with target.open(point) as opened:
        if directory is not None:
            restored = job.to_directory(opened, disks, directory, Terminal(), overwrite=overwrite, workers=workers)
        else:
            assert output is not None
            chosen = job.choose(opened, disks)
            if len(chosen) != 1:
                raise UsageError(f"--output takes one disk; choose with --disk among {', '.join(chosen)}")
            one = job.to_file(opened, chosen[0], output, Terminal(), overwrite=overwrite, workers=workers)
            restored = [one]
    frame.emit(
        [
            {
                "disk": disk.key,
                "file": str(disk.path),
                "size": human(disk.size_bytes),
                "size_bytes": disk.size_bytes,
                "bytes_zero": disk.bytes_zero,
            }
            for disk in restored
        ],
        as_json=as_json,
        columns=("disk", "size", "file"),
    )
    job.require_whole(opened, disks)
