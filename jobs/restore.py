"""Restores: a restore point's disks as raw files, sparse, every chunk checked on its way, and its configuration files.

    TARGET/vm.json  TARGET/web01.vmx  TARGET/scsi0-0.raw  …

A disk gets its name once all of it is on stable storage; what fails leaves no half file behind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.watcher import Watcher
from vcbproxy.errors import Error, UsageError
from vcbproxy.pipeline import restore as pipeline
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
    _make(directory)
    disks = [
        to_file(point, key, directory / f"{key}.raw", watcher, overwrite=overwrite, workers=workers) for key in chosen
    ]
    for file in point.contents.files:
        _write(directory / file.name, point.file(file.key), overwrite=overwrite)
    manifest = json.dumps(point.manifest, indent=2, ensure_ascii=False).encode() + b"\n"
    _write(directory / "vm.json", manifest, overwrite=overwrite)
    return disks


def to_file(
    point: PointReader, key: str, path: Path, watcher: Watcher, *, overwrite: bool, workers: int
) -> RestoredDisk:
    """Restore one disk to one raw file.

    Raises:
        UsageError: the file exists.
        IntegrityError: stored data are damaged; the file is not created.
        Error: it cannot be written.
    """
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


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot restore into {directory}: {error.strerror}") from error


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    try:
        with path.open("wb" if overwrite else "xb") as out:
            out.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists; --overwrite replaces it") from error
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from error
