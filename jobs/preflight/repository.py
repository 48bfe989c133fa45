"""The repository: there, opened by its password, unlocked, writable, with room for what has no restore point yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jobs.preflight.result import Result, broken, failed, ok, warning
from vcbproxy.errors import Busy, Error
from vcbproxy.repository import lockfile
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.units import GiB, human

_FREE_MIN_BYTES = GiB
_FREE_MIN_SHARE = 0.05
_FILES_MIN = 10_000


def repository(open_it: Callable[[], Repository], held: Mapping[str, int]) -> Iterator[Result]:
    """Open it and look around.

    Args:
        open_it: opens it with its password.
        held: how much each VM to be backed up holds, by instance UUID, in bytes.
    """
    try:
        opened = open_it()
        points = RepositoryTarget(opened, lock=False).points()
    except Error as error:
        yield broken("repository", error)
        return
    yield ok("repository", f"{opened.location}: {len(points)} restore points")
    yield from _locks(opened)
    directory = Path(opened.location)
    if directory.is_dir():
        new = sum(size for vm, size in held.items() if vm not in {point.instance_uuid for point in points})
        yield from _room(directory, new)


def _locks(opened: Repository) -> Iterator[Result]:
    for found in lockfile.found(opened.files):
        stale = found.record is None or found.record.is_stale(opened.clock.now(), opened.identity)
        if stale:
            yield warning("repository lock", f"left behind: {found}", "`vcbproxy repo unlock`")
        elif found.record is not None and found.record.exclusive:
            remedy = "wait until that has ended; a backup would end with code 11 now"
            yield failed("repository lock", str(found), remedy, Busy.exit_code)


def _room(directory: Path, new_bytes: int) -> Iterator[Result]:
    if not os.access(directory, os.W_OK | os.X_OK):
        remedy = f"give it to this user (number {os.geteuid()}), and to the unit as ReadWritePaths="
        yield failed("repository space", f"{directory} is not writable by us", remedy)
        return
    usage = shutil.disk_usage(directory)
    nodes = os.statvfs(directory)
    if nodes.f_files and nodes.f_favail < _FILES_MIN:  # not every file system counts them
        remedy = "remove small files there, or move the repository"
        yield warning("repository space", f"only {nodes.f_favail} more files fit there (`df -i`)", remedy)
    detail = f"{human(usage.free)} of {human(usage.total)} are free"
    if usage.free < min(_FREE_MIN_BYTES, int(usage.total * _FREE_MIN_SHARE)):
        yield warning("repository space", detail, "make room, or move the repository")
    elif new_bytes > usage.free:
        remedy = "deduplication and compression may make it fit; else make room"
        yield warning("repository space", f"{detail}; VMs without a restore point hold {human(new_bytes)}", remedy)
    else:
        yield ok("repository space", detail)
