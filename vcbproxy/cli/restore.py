"""``vcbproxy restore``: a restore point's disks as raw files, from the repository or from tape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import address, archiving, frame
from vcbproxy.config import Config
from vcbproxy.errors import UsageError
from vcbproxy.units import human, parse_size

if TYPE_CHECKING:
    from jobs.restore import RestoredDisk
    from vcbproxy.cli.tapereading import Wanted


@click.command(
    cls=frame.Command,
    exit_codes=(3, 4, 10, 11, 12, 14),
    examples=(
        "vcbproxy restore web01@latest --to /srv/restored/web01",
        "vcbproxy restore 4ac8c401 --disk scsi0-1 --output /srv/data.raw",
        "vcbproxy restore web01@latest --from tape --dry-run    which cartridges?",
        "vcbproxy restore web01@latest db01@latest --from tape:daily --to /srv --wait",
    ),
)
@click.argument("points", metavar="POINT...", nargs=-1, required=True)
@click.option("--from", "source", metavar="tape[:POOL]", help="From cartridges, not from the repository.")
@click.option("--disk", "disks", multiple=True, metavar="KEY", help="Only this disk (scsi0-0); may be repeated.")
@click.option("--to", "directory", type=click.Path(path_type=Path), help="Directory for all that is restored.")
@click.option("--output", type=click.Path(path_type=Path), help="File for one disk.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist, once the new ones are whole.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Threads.")
@click.option("--no-lock", is_flag=True, help="Take no lock: for a repository on read-only media.")
@click.option("--wait", is_flag=True, help="Of tape: wait for cartridges that are not in the library (else 14).")
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help="Of tape: file with the age identity that reads encrypted images; else the pool's own.",
)
@click.option("--salvage", is_flag=True, help="Of tape: of damaged disks, write what can be read to KEY.raw.damaged.")
@click.option(
    "--range",
    "part",
    metavar="OFFSET:LENGTH",
    help="Of tape, with --disk and --output: only these bytes of the disk (4096:1M), found by the seek table.",
)
@click.option("--dry-run", is_flag=True, help="Of tape: only say which cartridges are needed, and where they are.")
@address.optional_repository_options
@frame.json_option
def restore(
    points: tuple[str, ...],
    source: str | None,
    disks: tuple[str, ...],
    directory: Path | None,
    output: Path | None,
    overwrite: bool,
    workers: int,
    no_lock: bool,
    wait: bool,
    identity: Path | None,
    salvage: bool,
    part: str | None,
    dry_run: bool,
    repository: address.RepositoryAddress | None,
    config: Config,
    as_json: bool,
) -> None:
    """Bring a restore point back: its disks as sparse raw files, and the VM's configuration files.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), or the beginning of an id from `points list`.
    Every chunk is checked on its way; a disk gets its name only once it is whole.

    From tape several restore points come in one go, each in a directory of its own: each cartridge is loaded once, or
    twice where chains cross.
    """
    if not dry_run and (directory is None) == (output is None):
        raise UsageError("say where to: --to DIRECTORY, or --output FILE for one disk")
    if str(output) == "-":
        raise UsageError("--output takes a file, which is whole or not there; into a pipe streams `restic dump`")
    if source is not None:
        from vcbproxy.cli import tapereading

        wanted = tapereading.Wanted(
            points, archiving.source_of(source), disks, directory, output, overwrite, workers, wait, identity, salvage
        )
        _from_tape(config, wanted, as_json, part, dry_run=dry_run)
        return
    of_tape = {"--dry-run": dry_run, "--wait": wait, "--salvage": salvage, "--range": part, "--identity": identity}
    for option in (name for name, given in of_tape.items() if given):
        raise UsageError(f"{option} is of tape: it goes with --from tape")
    if len(points) != 1:
        raise UsageError("from the repository one restore point comes at a time; several in one go with --from tape")
    with archiving.or_on_tape(config, "add --from tape", *points):
        _from_repository(
            points[0], address.required(repository), disks, directory, output, overwrite, workers, no_lock, as_json
        )


def _from_tape(config: Config, wanted: Wanted, as_json: bool, part: str | None, *, dry_run: bool) -> None:
    from vcbproxy.cli import tapereading

    if part is not None:
        if len(wanted.texts) != 1 or len(wanted.disks) != 1 or wanted.output is None or dry_run:
            raise UsageError("--range takes one restore point, one --disk and --output FILE")
        read = tapereading.read_range(config, wanted, *_range(part))
        _show(read.disks, as_json)
        read.raise_unless_whole()
        return
    if dry_run:
        columns = ("barcode", "where", "points")
        frame.emit(tapereading.needed(config, wanted), as_json=as_json, columns=columns)
        return
    if wanted.output is not None and len(wanted.texts) > 1:
        raise UsageError("--output takes one disk of one restore point; --to DIRECTORY takes several")
    restored = tapereading.restore(config, wanted)
    _show(restored.disks, as_json)
    restored.raise_unless_whole()


def _from_repository(
    point: str,
    repository: address.RepositoryAddress,
    disks: tuple[str, ...],
    directory: Path | None,
    output: Path | None,
    overwrite: bool,
    workers: int,
    no_lock: bool,
    as_json: bool,
) -> None:
    from jobs import restore as job
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.pointname import doubt
    from vcbproxy.repository.target import RepositoryTarget

    target = RepositoryTarget(repository.open(), lock=not no_lock)
    with target.open(point) as opened:
        if opened.summary.suspect:
            frame.say(doubt(target.points(), opened.summary))
        if directory is not None:
            restored = job.to_directory(opened, disks, directory, Terminal(), overwrite=overwrite, workers=workers)
        else:
            assert output is not None, "the command has seen to it"
            chosen = job.choose(opened, disks)
            if len(chosen) != 1:
                raise UsageError(f"--output takes one disk; choose with --disk among {', '.join(chosen)}")
            one = job.to_file(opened, chosen[0], output, Terminal(), overwrite=overwrite, workers=workers)
            restored = [one]
    _show(restored, as_json)
    job.require_whole(opened, disks)


def _range(text: str) -> tuple[int, int]:
    """Offset and length of ``OFFSET:LENGTH``.

    Raises:
        UsageError: it is something else.
    """
    offset, _, length = text.partition(":")
    try:
        return parse_size(offset), parse_size(length)
    except ValueError:
        raise UsageError(f"{text!r}: a range is OFFSET:LENGTH in bytes, or as in 1G:64K") from None


def _show(restored: Sequence[RestoredDisk], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "disk": disk.key,
            "file": str(disk.path),
            "size": human(disk.size_bytes),
            "size_bytes": disk.size_bytes,
            "bytes_zero": disk.bytes_zero,
        }
        for disk in restored
    ]
    frame.emit(rows, as_json=as_json, columns=("disk", "size", "file"))
