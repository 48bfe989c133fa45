"""Doing what was decided, in an order in which a crash leaves only duplicates and strays.

    strays go ─▶ new packs ─▶ their index ─▶ index files without what goes ─▶ old index files go ─▶ old packs go
    or, with a grace:                                    ... noted as waiting ─▶ old index files go

Whatever is written is durable before anything goes that it replaces. The lock is looked at before every removal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import TargetError
from vcbproxy.repository import suspects
from vcbproxy.repository.backend.base import FileKind, FileLocked, FileMissing, FileName, Stored
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune import reindex, repack, waiting
from vcbproxy.repository.prune.copies import Kept
from vcbproxy.repository.prune.options import PruneOptions
from vcbproxy.repository.prune.plan import Fate
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.prune.waiting import Waiting
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.suspects import Suspect


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        found: the survey.
        kept: which copies stay.
        fates: what becomes of each pack of the index.
        strays: packs in no index that go now.
        new_waiting: packs in no index that wait from now on.
        waits: what waits already.
        suspects: packs that were found damaged.
    """

    found: Survey
    kept: Kept
    fates: NDArray[np.uint8]
    strays: list[Stored]
    new_waiting: list[Stored]
    waits: list[Waiting]
    suspects: list[Suspect]


def execute(repository: Repository, held: HeldLock, plan: Plan, options: PruneOptions, progress: Progress) -> int:
    """Do it; returns how many bytes of blobs were written anew.

    Raises:
        IntegrityError: a blob that had to be written anew is damaged; no pack of the index was removed.
        TargetError: something could not be written or removed, or the lock was lost.
    """
    held.confirm()
    remove(repository, held, [stored.name for stored in plan.strays], "strays", progress, passed_over=(FileLocked,))
    written = repack.repack(
        repository,
        held,
        plan.found,
        plan.kept,
        plan.fates,
        pack_bytes=options.pack_bytes,
        workers=options.workers,
        progress=progress,
    )
    old = reindex.outdated(plan.found, plan.fates)
    reindex.rewrite(repository, held, plan.found, plan.fates, old, progress)
    going = [plan.found.packs.name(pack) for pack in np.flatnonzero(plan.fates != Fate.KEEP).tolist()]
    going = [name for name, size in zip(going, _sizes(plan), strict=True) if size >= 0]
    grace = options.grace or timedelta(0)
    if grace and (going or plan.new_waiting):
        held.check()
        now = repository.clock.now()
        stems = [name.stem for name in going] + [stored.name.stem for stored in plan.new_waiting]
        waiting.save(repository.files, stems, now, now + grace)
    remove(repository, held, [FileName(FileKind.INDEX, stem) for stem in old], "old index", progress)
    if not grace:
        remove(repository, held, going, "old packs", progress)
    _tidy(repository, held, plan)
    return written


def remove(
    repository: Repository,
    held: HeldLock,
    names: Sequence[FileName],
    stage: str,
    progress: Progress,
    *,
    passed_over: tuple[type[TargetError], ...] = (),
) -> None:
    """Remove files, several at a time; the lock is looked at before each, its file at first and now and then.

    Args:
        repository: where.
        held: our lock.
        names: which files; those that are gone already are passed over.
        stage: what ``progress`` is told.
        progress: told how far it is.
        passed_over: failures that leave the file to a later prune.

    Raises:
        TargetError: one could not be removed, or the lock was lost.
    """

    def one(name: FileName) -> None:
        held.check()
        with contextlib.suppress(FileMissing, *passed_over):
            repository.backend.remove(name)

    with ThreadPoolExecutor(repository.backend.traits.connections, "remover") as pool:
        for start in range(0, len(names), _CONFIRM_EVERY):
            held.confirm()
            for _ in pool.map(one, names[start : start + _CONFIRM_EVERY]):
                pass
            progress(stage, min(len(names), start + _CONFIRM_EVERY), len(names))


def _sizes(plan: Plan) -> list[int]:
    sizes: list[int] = plan.found.packs.real_bytes[plan.fates != Fate.KEEP].tolist()
    return sizes


def _tidy(repository: Repository, held: HeldLock, plan: Plan) -> None:
    """Remove side files that speak of nothing any more, and what killed writers left behind."""
    if (sweeping := repository.backend.traits.sweeping) is not None:
        sweeping.sweep(repository.clock.now() - _LEFT_BEHIND)
    there = (
        {stored.name.stem for stored in repository.backend.list(FileKind.PACK)}
        if plan.waits or plan.suspects
        else set()
    )
    indexed = (
        {plan.found.packs.hex(pack) for pack in np.flatnonzero(plan.fates == Fate.KEEP).tolist()}
        if plan.waits
        else set()
    )
    done = [wait.name for wait in plan.waits if there.isdisjoint(set(wait.packs) - indexed)]
    for name in done:
        held.check()
        with contextlib.suppress(FileMissing):
            repository.backend.remove(name)
    for suspect in plan.suspects:
        if suspect.pack_id.hex() not in there:
            held.check()
            suspects.lift(repository.files, suspect)


_LEFT_BEHIND = timedelta(days=1)  # no writer is at one file so long
_CONFIRM_EVERY = 256
