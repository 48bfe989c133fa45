"""Restores: a restore point's disks as raw files, sparse, every chunk checked on its way, and its configuration files.

    TARGET/vm.json  TARGET/web01.vmx  TARGET/scsi0-0.raw  …

Whatever would stand in the way of the last file is looked for before the first is written. A file gets its name once
all of it is on stable storage; what fails leaves no half file behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.watcher import Watcher
from vcbproxy.errors import Partial, UsageError
from vcbproxy.pipeline import output
from vcbproxy.pipeline import restore as pipeline
from vcbproxy.repository.manifest import FILE_NAME
from vcbproxy.repository.reader import PointReader


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """One disk that is back."""

    key: str
    path: Path
    size_bytes: int
    bytes_zero: int


def choose(point: PointReader, keys: Sequence[str]) -> list[str]:
    """The disks asked for; all when none is named.

    Raises:
        UsageError: the restore point has no such disk.
    """
    available = [disk.key for disk in point.disks]
    for key in keys:
        if key not in available:
            raise UsageError(f"{point.summary.name} has no disk {key!r}; it has {', '.join(available) or 'none'}")
    return list(dict.fromkeys(keys)) or available


def to_directory(
    point: PointReader, keys: Sequence[str], directory: Path, watcher: Watcher, *, overwrite: bool, workers: int
) -> list[RestoredDisk]:
    """Restore disks and configuration files into a directory.

    Raises:
        UsageError: no such disk, or a file is in the way.
        IntegrityError: stored data are damaged; the file is not created.
        Error: it cannot be written.
    """
    chosen = choose(point, keys)
    images = {disk.key: directory / f"{disk.name}.raw" for disk in point.disks if disk.key in chosen}
    files = {directory / file.name: file.key for file in point.contents.files}
    manifest = directory / FILE_NAME
    make_directory(directory)
    for path in (*images.values(), *files, manifest):
        require_free(path, overwrite=overwrite)
    disks = [to_file(point, key, path, watcher, overwrite=overwrite, workers=workers) for key, path in images.items()]
    for path, key in files.items():
        write_small(path, point.file(key), overwrite=overwrite)
    write_small(manifest, point.vm_json(), overwrite=overwrite)
    watcher.step(f"{directory} also holds {', '.join(path.name for path in (*files, manifest))}")
    return disks


def require_whole(point: PointReader, keys: Sequence[str]) -> None:
    """Refuse to call a VM restored when disks of it are not in its restore point; not when disks were asked for by key.

    Raises:
        Partial: some are not, or the restore point is suspect.
    """
    if point.summary.suspect:
        raise Partial(suspect(point.summary.name))
    failed = [] if keys else point.manifest.get("disks_failed", [])
    if failed:
        reasons = "; ".join(f"{disk['key']}: {disk['reason']}" for disk in failed)
        raise Partial(f"restored, but {point.summary.name} is not the whole VM, these disks are not in it: {reasons}")


def suspect(name: str) -> str:
    """What is said of a restore point that came back and is not to be relied upon."""
    return (
        f"restored, but {name} is suspect: an audit found that changes of its VM were not all told when it was made: "
        "some of it may be older data; prefer a restore point that is not suspect"
    )


def to_file(
    point: PointReader, key: str, path: Path, watcher: Watcher, *, overwrite: bool, workers: int
) -> RestoredDisk:
    """Restore one disk to one raw file.

    Raises:
        UsageError: the file exists.
        IntegrityError: stored data are damaged; the file is not created.
        Error: it cannot be written.
    """
    require_free(path, overwrite=overwrite)
    ids, lengths = point.disk_content(key)
    size_bytes = int(lengths.sum(dtype="u8"))
    with watcher.disk(f"{point.summary.vm} {key}", size_bytes) as advance:
        done = pipeline.restore_disk(
            point,
            ids,
            lengths,
            path,
            workers=workers,
            overwrite=overwrite,
            progress=lambda seen: advance(seen.bytes_done),
        )
    return RestoredDisk(key, path, size_bytes, done.bytes_zero)


def require_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where no file can be put, before hours are spent on what belongs there.

    Raises:
        UsageError: something is in the way, or there is no such directory.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; give the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}; create it first")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a plain file; restore to a file, and write it there from that")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path} exists; --overwrite replaces it, once the new one is whole")


def make_directory(directory: Path) -> None:
    """A directory, if it is not there yet.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"cannot restore into {directory}: it is not a directory") from error
    except OSError as error:
        raise UsageError(f"cannot create {directory}: {error.strerror}; create it, or give another") from error


def write_small(path: Path, data: bytes, *, overwrite: bool) -> None:
    """A small file, durable when this returns.

    Raises:
        UsageError: there is one, and it may not be overwritten.
        Error: it cannot be written.
    """
    with output.new_file(path, len(data), overwrite=overwrite) as out:
        out.write_at(0, memoryview(data))
        out.commit()
