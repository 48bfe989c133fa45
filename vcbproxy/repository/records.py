"""Snapshot records changed and removed: tags put on and taken off, restore points forgotten.

    tag       store the new record, durable ─▶ remove the old one(s)       a crash between leaves both: one point
    forget    remove every record of the point                             the packs stay until prune

As stock restic does it, under its exclusive lock. The new record says everything that the old one said, fields unknown
to us included, and keeps the first record's id as ``original``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime

from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.repository import codec, snapshot
from vcbproxy.repository.backend.base import FileKind, FileLocked, FileMissing, FileName
from vcbproxy.repository.commit import committed
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.reach import Reach
from vcbproxy.repository.repository import Repository


def retag(
    repository: Repository,
    held: HeldLock,
    point: PointSummary,
    *,
    add: Collection[str] = (),
    remove: Collection[str] = (),
) -> str:
    """Change a restore point's tags; returns the id of its record.

    Where the old record cannot be removed yet (Object Lock) both stay, as after ``mark``; then no tag can be taken off.

    Args:
        repository: where it is.
        held: an exclusive lock.
        point: as it was listed under that lock.
        add: tags it is to have.
        remove: tags it is to lose.

    Raises:
        UsageError: it was removed meanwhile.
        IntegrityError: its record is damaged.
        FileLocked: it keeps the tags that it was to lose, since its record is locked.
        TargetError: nothing was changed, or an old record could not be removed: doing it again mends that.
    """
    loses = bool(set(remove) & set(point.tags))
    if loses:
        _require_unlocked(repository, point)
    tags = [tag for tag in dict.fromkeys((*point.tags, *add)) if tag not in remove]
    kept = point.id
    record, _ = _load(repository, point)
    if set(tags) != set(record.tags):
        kept = _save_with(repository, held, point, tags)
    try:
        forget_records(repository, held, [record for record in point.records if record != kept])
    except FileLocked:
        if loses:
            raise
    return kept


def mark(repository: Repository, held: HeldLock, point: PointSummary, tag: str) -> str:
    """Put a tag on a restore point beside running backups. The old record stays: removing it takes an exclusive lock.

    Both records are one restore point to us, with the tags of both; stock restic shows two snapshots until the next
    ``retag`` or ``forget`` of the point.

    Args:
        repository: where it is.
        held: any lock.
        point: as it was listed.
        tag: the tag.

    Raises:
        UsageError: it was removed meanwhile.
        IntegrityError: its record is damaged.
        TargetError: it could not be stored.
    """
    return point.id if tag in point.tags else _save_with(repository, held, point, [*point.tags, tag])


def forget(
    repository: Repository,
    held: HeldLock,
    points: Sequence[PointSummary],
    forgotten: Callable[[PointSummary], None] = lambda point: None,
) -> None:
    """Remove restore points from the list. What they alone hold stays stored until the next prune.

    Args:
        repository: where they are.
        held: an exclusive lock.
        points: as they were listed under that lock.
        forgotten: told of each once all of its records are gone.

    Raises:
        TargetError: a record could not be removed; those told of are gone, the others are still there.
    """
    for point in points:
        forget_records(repository, held, point.records)
        forgotten(point)


def forget_records(repository: Repository, held: HeldLock, records: Sequence[str]) -> None:
    """Remove snapshot records; one that is gone already is no error.

    Raises:
        TargetError: one could not be removed, or the lock was lost.
    """
    for record in records:
        held.check()
        with suppress(FileMissing):
            repository.backend.remove(FileName(FileKind.SNAPSHOT, record))


def locked_until(repository: Repository, point: PointSummary) -> datetime | None:
    """Until when the storage refuses to remove a restore point's records; None when it does not.

    Raises:
        TargetError: it could not be asked.
    """
    retaining = repository.backend.traits.retaining
    if retaining is None:
        return None
    found: list[datetime] = []
    for record in point.records:
        with suppress(FileMissing):
            until = retaining.kept_until(FileName(FileKind.SNAPSHOT, record))
            found += [until] if until is not None and until > repository.clock.now() else []
    return max(found, default=None)


def _require_unlocked(repository: Repository, point: PointSummary) -> None:
    """Before a record is replaced that must go: otherwise each try would leave one more.

    Raises:
        FileLocked: one of the point's records cannot be removed yet.
    """
    if (until := locked_until(repository, point)) is not None:
        path = FileName(FileKind.SNAPSHOT, point.id).path
        raise FileLocked(location=repository.location, path=path, until=f"{until:%Y-%m-%d %H:%M} UTC")


def _save_with(repository: Repository, held: HeldLock, point: PointSummary, tags: Sequence[str]) -> str:
    record, fields = _load(repository, point)
    fields["tags"] = list(tags)
    fields["original"] = point.original
    if repository.immutability is not None:  # the new record is locked from now on: what it needs must be, too
        repository.indexing.load()
        repository.immutability.cover(Reach(repository).packs_under(record.tree))
    plain = codec.encode(fields)
    return committed(repository.backend, held, lambda: repository.files.save_sealed(FileKind.SNAPSHOT, plain)).stem


def _load(repository: Repository, point: PointSummary) -> tuple[snapshot.Snapshot, dict[str, object]]:
    """The record that is shown, as we read it and with every field it has."""
    name = FileName(FileKind.SNAPSHOT, point.id)
    what = f"{repository.location}: {name.path}"
    try:
        plain = repository.files.load_sealed(name)
    except FileMissing as error:
        raise UsageError(f"{point.name}: its record is gone; somebody removed it meanwhile") from error
    record = snapshot.decode(point.id, plain, what)
    fields = codec.decode(plain, what)
    if not isinstance(fields, dict):
        raise IntegrityError(f"{what} is not a JSON object")
    return record, fields
