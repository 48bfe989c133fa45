"""``vcbproxy repo``: create, check, prune and unlock repositories."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcbproxy.cli import address, frame
from vcbproxy.cli.progress import stages
from vcbproxy.cli.prune import prune
from vcbproxy.clock import SystemClock
from vcbproxy.errors import UsageError

if TYPE_CHECKING:
    from vcbproxy.repository.report import PointLock


@click.group(cls=frame.Group)
def repo() -> None:
    """Create, check, prune and unlock repositories."""


@repo.command(cls=frame.Command, exit_codes=(12,))
@click.option(
    "--window", type=click.IntRange(8, 512), default=64, show_default=True, help="Mean chunk: 8 KiB times this."
)
@click.option(
    "--accept-unsafe", is_flag=True, help="Also in a bucket whose server breaks promises that data rest on; see probe."
)
@address.repository_options
@frame.json_option
def init(window: int, accept_unsafe: bool, repository: address.RepositoryAddress, as_json: bool) -> None:
    """Create a repository; in a bucket after a probe of its server. The chunker's window is fixed for good."""
    from vcbproxy.repository import creation
    from vcbproxy.repository.config import ChunkerSettings

    if repository.in_bucket:
        _require_fit(repository, accept_unsafe)
    else:
        _require_own_place(Path(repository.location))
    made = creation.create(repository.backend(create=True), repository.password(), chunker=ChunkerSettings(window))
    frame.emit(
        {"location": made.location, "id": made.config.repository_id, "window": made.chunker.window}, as_json=as_json
    )


def _require_own_place(directory: Path) -> None:
    """Refuse a directory that holds other things: sooner or later somebody tidies up there.

    What a `repo init` left that was killed is no other thing; creation says what there is to say of it.
    """
    other = next(_other_things(directory), None)
    if other is not None:
        raise UsageError(f"{directory} is not empty ({other}, ...); give a directory of its own")


def _other_things(directory: Path) -> Iterator[str]:
    """What does not belong to a repository that is none yet."""
    from vcbproxy.repository.backend.base import CONFIG, FileKind
    from vcbproxy.repository.backend.directory import is_own_name

    if (directory / CONFIG.path).exists():
        return
    own = {Path(kind.value).parts[0] for kind in FileKind}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name not in own:
            if path.name != "lost+found":
                yield path.name
            continue
        for below, _, names in os.walk(path):
            yield from (str(Path(below, name).relative_to(directory)) for name in names if not is_own_name(name))


def _require_fit(repository: address.RepositoryAddress, accept_unsafe: bool) -> None:
    """Try the bucket's server out, and refuse one that data would not be safe with."""
    from vcbproxy.repository.backend.s3 import probe as probes

    repository.backend(create=True)
    findings = probes.probe(repository.location, repository.s3, SystemClock())
    for finding in findings:
        if finding.verdict is not probes.Verdict.KEPT:
            frame.say(f"{finding.verdict.value}: {finding}")
    if not accept_unsafe:
        probes.require_safe(repository.location, findings)


@repo.command(cls=frame.Command, exit_codes=(10, 12), examples=("vcbproxy repo probe --repo s3:https://host/bucket",))
@address.repository_options
@frame.json_option
def probe(repository: address.RepositoryAddress, as_json: bool) -> None:
    """Try out what a bucket's server does with checksums, conditions, lists and locks; ends with 1 if data are unsafe.

    It writes a few small objects into the bucket and removes them.
    """
    if not repository.in_bucket:
        raise UsageError(f"{repository.location} is a directory; only servers of buckets are probed")
    from vcbproxy.repository.backend.s3 import probe as probes

    findings = probes.probe(repository.location, repository.s3, SystemClock())
    rows = [
        {
            "promise": finding.promise.name.lower(),
            "verdict": finding.verdict.value,
            "meaning": finding.promise.value,
            "detail": finding.detail,
        }
        for finding in findings
    ]
    frame.emit(rows, as_json=as_json, columns=("promise", "verdict", "meaning"), columns_if_any=("detail",))
    probes.require_safe(repository.location, findings)


@repo.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=("vcbproxy repo check", "vcbproxy repo check --read-data-subset 1/4        weekly: 2/4 next time"),
)
@click.option("--read-data", is_flag=True, help="Also read every pack: digest it, open and digest every blob.")
@click.option(
    "--read-data-subset",
    metavar="N/M|X%|SIZE",
    help="Read only part N of M of the packs, or some at random: X % of them, or SIZE.",
)
@click.option("--no-lock", is_flag=True, help="Take no lock: for a read-only repository, or beside a running backup.")
@address.repository_options
@frame.json_option
def check(
    read_data: bool, read_data_subset: str | None, no_lock: bool, repository: address.RepositoryAddress, as_json: bool
) -> None:
    """Check index, packs, trees and restore points; with --read-data every byte. Stock restic's repositories too."""
    from vcbproxy.repository import check as checks
    from vcbproxy.repository.report import Subset

    if read_data and read_data_subset:
        raise UsageError("give --read-data or --read-data-subset, not both")
    subset = Subset.parse(read_data_subset) if read_data_subset else Subset() if read_data else None
    opened = repository.open(cached=False)  # what is stored is to be checked, not a copy of it
    lock = contextlib.nullcontext() if no_lock else opened.locked(exclusive=True)
    with lock, stages(in_bytes={"packs"}) as progress:
        report = checks.check(opened, subset, progress=progress, remember=not no_lock)
    for hint in report.hints:
        frame.say(f"hint: {hint}")
    row = {
        "location": opened.location,
        "result": "DAMAGED" if report.problems else "ok",
        "snapshots": report.snapshots,
        "packs": report.packs,
        "blobs": report.blobs,
        "packs_read": report.packs_read,
        "problems": [{"message": problem.message, "points": list(problem.points)} for problem in report.problems],
        "hints": report.hints,
        "locks": [_lock_row(lock) for lock in report.locks],
    }
    shown = {**row, "problems": len(report.problems), "hints": len(report.hints), "locks": _locks_shown(report.locks)}
    frame.emit(row if as_json else shown, as_json=as_json)
    report.raise_if_damaged(opened.location)


def _lock_row(lock: PointLock) -> dict[str, object]:
    from vcbproxy.repository import times

    return {
        "point": lock.point,
        "locked_until": times.canonical(lock.record_until) if lock.record_until else None,
        "needs_locked_until": times.canonical(lock.needs_until) if lock.needs_until else None,
        "short": lock.short,
    }


def _locks_shown(locks: Sequence[PointLock]) -> str:
    """In one line: how many restore points are locked, and until when."""
    until = [lock.record_until for lock in locks if lock.record_until is not None]
    if not until:
        return "none"
    span = f"the first until {min(until):%Y-%m-%d %H:%M}, the last until {max(until):%Y-%m-%d %H:%M} UTC"
    return f"{len(until)} of {frame.counted(len(locks), 'restore point')}, {span}"


@repo.command(cls=frame.Command, exit_codes=(10, 12))
@click.option("--all", "everything", is_flag=True, help="Remove all locks, also those whose holders may be at work.")
@address.repository_options
@frame.json_option
def unlock(everything: bool, repository: address.RepositoryAddress, as_json: bool) -> None:
    """Remove stale locks: those older than 30 minutes, and those of processes of this host that are gone."""
    from vcbproxy.repository import lockfile

    opened = repository.open()
    removed = lockfile.remove_stale(opened.files, everything=everything, clock=opened.clock, me=opened.identity)
    left = list(lockfile.found(opened.files))
    for kept in left:
        frame.say(f"kept: {kept}; --all removes it too")
    rows = [{"lock": gone.name.stem, "was": str(gone)} for gone in removed]
    if as_json:
        frame.emit(rows, as_json=True)
    else:
        frame.say(f"{frame.counted(len(removed), 'lock')} removed, {len(left)} left")
        if rows:
            frame.emit(rows, as_json=False)


repo.add_command(prune)
