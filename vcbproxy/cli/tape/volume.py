"""``vcbproxy tape volume``: look into LTFS volumes, ours or anybody's, in a drive or in a folder.

A volume is named by the drive that holds its cartridge (``/dev/sg3``, or a drive of a library), or by the folder of an
emulated cartridge.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import frame
from vcbproxy.cli.maker import maker
from vcbproxy.cli.tape.loaded import Place, loaded, place_argument
from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.units import human

if TYPE_CHECKING:
    from tape.ltfs.index import Directory, File
    from tape.ltfs.volume import LtfsVolume


@click.group(cls=frame.Group)
def volume() -> None:
    """One LTFS volume: what is on it, and whether it is whole."""


@volume.command(
    "ls",
    cls=frame.Command,
    exit_codes=(4, 11, 12),
    examples=(
        "vcbproxy tape volume ls /dev/sg3",
        "vcbproxy tape volume ls 0 --library main",
        "vcbproxy tape volume ls /srv/library/TAP001L8 /web01",
    ),
)
@place_argument
@click.argument("path", default="/")
@frame.json_option
def list_(place: Place, path: str, as_json: bool) -> None:
    """List what the volume's index names, below PATH.

    A volume whose last writer did not finish is shown as it was before, and the exit code is 4.
    """
    with _for_reading(place) as found:
        top = _named(found, path)
        rows = [_row(f"{path.rstrip('/')}{below}", entry) for below, entry in top]
        frame.emit(rows, as_json=as_json, columns=("type", "size", "modified", "path"), columns_if_any=("target",))


@volume.command(
    "cat", cls=frame.Command, exit_codes=(4, 11, 12), examples=("vcbproxy tape volume cat /dev/sg3 /a/RESTORE.txt",)
)
@place_argument
@click.argument("path")
def cat(place: Place, path: str) -> None:
    """Write a file's bytes to standard output.

    Of a volume whose last writer did not finish it is what was committed before, and the exit code is 4.
    """
    from tape.ltfs.readahead import ReadAhead

    with _for_reading(place) as found:
        _hold_file(found, path)
        with ReadAhead(found.open(path)) as pieces:
            for piece in pieces:
                sys.stdout.buffer.write(piece.data)
        sys.stdout.buffer.flush()


@volume.command(
    "check",
    cls=frame.Command,
    exit_codes=(4, 11, 12),
    examples=("vcbproxy tape volume check /dev/sg3", "vcbproxy tape volume check /dev/sg3 --read-data"),
)
@place_argument
@click.option("--read-data", is_flag=True, help="Read every file too, and hold it against the digest that it bears.")
@frame.json_option
def check(place: Place, read_data: bool, as_json: bool) -> None:
    """Prove that the volume is whole: labels, both indexes, and how they hang together. Writes nothing.

    What the cartridge's memory claims is not believed; the tape is searched. Files that cannot be proved, for there is
    more of them than the volume has recorded, count as damaged.
    """
    from tape.ltfs import proof

    with _mounted(place, search=True) as found:
        files = proof.files(found)
        damaged = []
        for path, reason in proof.findings(found) if read_data else ():
            frame.say(f"{path}: {reason}")
            damaged.append(path)
        row = {
            "volume": found.uuid,
            "name": found.index.root.name,
            "generation": found.index.generation,
            "written": _moment(found.index.update_time_ns),
            "by": found.index.creator,
            "files": len(files),
            "size": human(sum(entry.length for _, entry in files)),
            "bytes": sum(entry.length for _, entry in files),
            "full": found.full,
            "index_partition_behind": found.index_partition_behind,
            "files_read": len(files) if read_data else 0,
            "damaged": damaged,
        }
    frame.emit(row, as_json=as_json)
    if damaged:
        raise IntegrityError(f"{len(damaged)} of {len(files)} files damaged: {', '.join(damaged)}")


@volume.command(
    "recover",
    cls=frame.Command,
    exit_codes=(4, 11, 12),
    examples=(
        "vcbproxy tape volume recover /dev/sg3 --dry-run",
        "vcbproxy tape volume recover /dev/sg3 --journal /var/lib/vcbproxy/tape/journals",
    ),
)
@place_argument
@click.option("--dry-run", is_flag=True, help="Only say whether anything must be done.")
@click.option(
    "--journal",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of journals that the writer kept: files that were complete are read, and listed again.",
)
@frame.json_option
def recover(place: Place, dry_run: bool, journal: Path | None, as_json: bool) -> None:
    """Roll a volume back to its last committed state, when its last writer did not finish.

    Nothing on the tape is written over; what lies behind the last index stays there, and no file shows it, but for
    those that the journal names and that are there with the digest that it names. Exit code 4: some are not.
    """
    from tape.errors import FormatError
    from tape.ltfs.journal import Journal
    from tape.ltfs.mount import mount
    from tape.ltfs.recover import recover as roll_back

    with loaded(place, writes=not dry_run) as drive:
        if dry_run:
            try:
                mounted = mount(drive, search=True)
            except FormatError as error:
                frame.emit({"consistent": False, "reason": str(error)}, as_json=as_json)
                return
            reason = "the index partition is behind" if mounted.index_is_behind else ""
            frame.emit({"consistent": True, "reason": reason}, as_json=as_json)
            return
        done = roll_back(drive, maker(), time.time_ns, None if journal is None else Journal(journal))
    row = {
        "generation": done.generation,
        "orphan_blocks": done.orphan_blocks,
        "written": done.written,
        "found": list(done.found),
        "lost": [path for path, _ in done.lost],
    }
    frame.emit(row, as_json=as_json)
    for path, reason in done.lost:
        frame.say(f"{path}: {reason}")
    if done.lost:
        raise IntegrityError(f"{len(done.lost)} files that the journal names are not whole on the tape")


# ---------------------------------------------------------------------- from a name to a volume


@contextmanager
def _for_reading(place: Place) -> Iterator[LtfsVolume]:
    """Its last committed state; when it is not consistent, that is said in the end."""
    from tape.errors import FormatError
    from tape.ltfs.recover import for_reading

    why: list[FormatError] = []
    with loaded(place) as drive:
        yield for_reading(drive, maker(), time.time_ns, older=why.append)
    for error in why:
        raise IntegrityError(f"this is an older state: {error}")


@contextmanager
def _mounted(place: Place, *, search: bool = False) -> Iterator[LtfsVolume]:
    from tape.ltfs.volume import LtfsVolume

    with loaded(place) as drive:
        yield LtfsVolume.mount(drive, maker(), time.time_ns, search=search)


def _named(found: LtfsVolume, path: str) -> list[tuple[str, File | Directory]]:
    from tape.ltfs.index import Directory

    entry = found.index.find(path)
    if entry is None:
        raise UsageError(f"no {path} on volume {found.uuid}")
    return list(entry.walk()) if isinstance(entry, Directory) else [("", entry)]


def _hold_file(found: LtfsVolume, path: str) -> None:
    """That there is no such file is no damage.

    Raises:
        UsageError: there is none, or it is something else.
    """
    from tape.ltfs.index import Directory

    entry = found.index.find(path)
    if entry is None:
        raise UsageError(f"no {path} on volume {found.uuid}")
    if isinstance(entry, Directory):
        raise UsageError(f"{path} is a directory: `tape volume ls` lists it")
    if entry.symlink is not None:
        raise UsageError(f"{path} is a symbolic link to {entry.symlink}: ask for that")


def _row(path: str, entry: File | Directory) -> dict[str, Any]:
    from tape.ltfs.index import File

    is_file = isinstance(entry, File)
    target = entry.symlink if isinstance(entry, File) else None
    length = entry.length if isinstance(entry, File) else None
    return {
        "path": path,
        "type": "symlink" if target is not None else "file" if is_file else "directory",
        "size": human(length) if length is not None else None,
        "size_bytes": length,
        "modified": _moment(entry.times.modified),
        "read_only": entry.read_only,
        "target": target,
        "sha256": entry.xattrs.get("ltfs.hash.sha256sum", b"").decode("ascii", "replace") or None,
    }


def _moment(moment_ns: int) -> str:
    return datetime.fromtimestamp(moment_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
