"""Verification: restore points re-read as a restore would, every chunk digested again, each chunk once.

In come restore points; out comes one finding a point. What is damaged is named; the other points are still looked at.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.watcher import Watcher
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.pipeline import restore as pipeline
from vcbproxy.pipeline.content import Lengths
from vcbproxy.repository.backend.base import Unavailable
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import ID_BYTES
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.target import RepositoryTarget

# A pack that the storage cannot give (a bad sector, say) would stop a restore as surely as one with a flipped bit.
_DAMAGE = (IntegrityError, TargetError)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one restore point.

    Attributes:
        bytes_read: of its disks, digested now; chunks shared with a point verified before it are not read again.
        errors: what is wrong; empty when it restores.
    """

    point: PointSummary
    disks: tuple[str, ...] = ()
    size_bytes: int = 0
    bytes_read: int = 0
    errors: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it restores."""
        return not self.errors


class _Proven:
    """Which chunks are proven whole already: sorted ids, 32 bytes each."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, f"V{ID_BYTES}")

    def without(self, ids: Ids, lengths: Lengths) -> tuple[Ids, Lengths]:
        """Those that are not proven yet, each once, in the disk's order."""
        keys = np.ascontiguousarray(ids).view(f"V{ID_BYTES}").ravel()
        _, first = np.unique(keys, return_index=True)
        rows = np.sort(first)
        rows = rows[~np.isin(keys[rows], self._keys)]
        return ids[rows], lengths[rows]

    def add(self, ids: Ids) -> None:
        """These are proven now."""
        keys = np.ascontiguousarray(ids).view(f"V{ID_BYTES}").ravel()
        self._keys = np.union1d(self._keys, keys)


def run(
    target: RepositoryTarget,
    points: Sequence[PointSummary],
    watcher: Watcher,
    *,
    workers: int,
    findings: list[Finding],
) -> None:
    """Verify restore points, oldest first.

    Args:
        target: where they are; locked, or read without a lock.
        points: these.
        watcher: told how far it is.
        workers: threads.
        findings: filled as it goes on, so that it is known what was proved, whatever ends it.

    Raises:
        TargetError: the storage is away, or lets us not read: that tells nothing of what is stored.
    """
    proven = _Proven()
    for point in points:
        findings.append(_one(target, point, proven, watcher, workers))


def _one(target: RepositoryTarget, point: PointSummary, proven: _Proven, watcher: Watcher, workers: int) -> Finding:
    errors: list[str] = []
    size_bytes = bytes_read = 0
    if point.suspect:
        watcher.said(
            f"{point.name} is suspect: what is stored may be whole, and yet not be what the VM had (see an alarm)"
        )
    try:
        with target.open(point) as reader:
            reader.verify()
            for disk in reader.disks:
                size_bytes += disk.size_bytes
                try:
                    bytes_read += _disk(reader, disk.key, proven, watcher, workers)
                except _DAMAGE as error:
                    _refuse_outage(error)
                    errors.append(f"{disk.key}: {error}")
            disks = tuple(disk.key for disk in reader.disks)
            if not disks:
                errors.append("it holds no disk")
    except _DAMAGE as error:
        _refuse_outage(error)
        return Finding(point, size_bytes=size_bytes, bytes_read=bytes_read, errors=(*errors, str(error)))
    return Finding(point, disks, size_bytes, bytes_read, tuple(errors))


def _refuse_outage(error: IntegrityError | TargetError) -> None:
    """Raise what says nothing of the stored bytes."""
    if isinstance(error, Unavailable) or error.facts.get("errno") in _NOT_ALLOWED:
        raise error


def _disk(reader: PointReader, key: str, proven: _Proven, watcher: Watcher, workers: int) -> int:
    ids, lengths = proven.without(*reader.disk_content(key))
    size_bytes = int(lengths.sum(dtype="u8"))
    with watcher.disk(f"{reader.summary.vm} {key}", size_bytes) as advance:
        pipeline.verify_disk(reader, ids, lengths, workers=workers, progress=lambda seen: advance(seen.bytes_done))
    proven.add(ids)
    return size_bytes
