"""One prune, from the lock to the last removal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import suspects
from vcbproxy.repository.backend.base import FileName, Stored
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.progress import Progress, no_progress
from vcbproxy.repository.prune import execute, rescue, waiting
from vcbproxy.repository.prune.copies import Kept, choose, whole
from vcbproxy.repository.prune.locked import locked_strays, spare_locked
from vcbproxy.repository.prune.options import PruneOptions
from vcbproxy.repository.prune.plan import Fate, PackFacts, decide
from vcbproxy.repository.prune.survey import Packs, Survey, survey
from vcbproxy.repository.prune.table import hex_of
from vcbproxy.repository.prune.used import Missing, mark_used
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.suspects import Suspect

_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Strays:
    """Packs that no index lists, by what becomes of them."""

    removed: list[Stored] = field(default_factory=list)
    waiting: list[Stored] = field(default_factory=list)
    new: list[Stored] = field(default_factory=list)
    """Those of ``waiting`` that wait only from now on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a prune did, or would do. Sizes are those of whole packs, in bytes, unless told otherwise.

    Attributes:
        snapshots: restore points and foreign snapshots, whose blobs were kept.
        used_blobs: blobs that they need.
        used_bytes: what these take.
        unused_bytes: what else lies in the packs that the index lists.
        packs_kept: packs that stay as they are.
        kept_bytes: what they come to.
        unused_kept_bytes: what in them nobody needs.
        packs_locked: packs among those that would go if the place let them, or their index file (Object Lock).
        locked_bytes: what they come to.
        packs_removed: packs of which nothing is needed.
        removed_bytes: what they come to.
        packs_repacked: packs whose needed blobs are written anew.
        repacked_bytes: what they come to.
        written_bytes: what is written anew of them, before a dry run's or after a prune's end.
        strays_removed: packs that no index lists.
        strays_bytes: what they come to.
        packs_waiting: packs that wait for their removal, those from earlier prunes included, and those of no index that
            are locked.
        waiting_bytes: what they come to.
        rescued: packs that had waited, and are needed after all.
    """

    snapshots: int
    used_blobs: int
    used_bytes: int
    unused_bytes: int
    packs_kept: int
    kept_bytes: int
    unused_kept_bytes: int
    packs_locked: int
    locked_bytes: int
    packs_removed: int
    removed_bytes: int
    packs_repacked: int
    repacked_bytes: int
    written_bytes: int
    strays_removed: int
    strays_bytes: int
    packs_waiting: int
    waiting_bytes: int
    rescued: tuple[str, ...]

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.packs_removed or self.packs_repacked or self.strays_removed or self.rescued)


def prune(
    repository: Repository,
    held: HeldLock,
    options: PruneOptions | None = None,
    *,
    progress: Progress = no_progress,
) -> Outcome:
    """Remove what no snapshot needs.

    Args:
        repository: an open one; what it knew of the index is dropped.
        held: an exclusive lock, taken before.
        options: how.
        progress: told the stage, how much of it is done, and of how much.

    Raises:
        IntegrityError: something that is needed is missing or damaged; nothing was removed.
        TargetError: something could not be read, written or removed, or the lock was lost; what was not removed yet is
            left to the next prune.
    """
    options = options or PruneOptions()
    repository.indexing.drop()
    try:
        return _prune(repository, held, options, progress)
    finally:
        repository.indexing.drop()


def _prune(repository: Repository, held: HeldLock, options: PruneOptions, progress: Progress) -> Outcome:
    snapshots = repository.snapshots()
    now = repository.clock.now()
    waits = waiting.load(repository.files)
    found, rescued = _surveyed(repository, held, snapshots, waits, options, progress)
    suspects.require_readable(repository.files)
    known = list(suspects.load(repository.files))
    kept = choose(found, {(suspect.pack_id, kind, blob) for suspect in known for kind, blob in suspect.blobs})
    _refuse_lost(repository, found, kept, known)
    fates = decide(_facts(found, kept, known), options)
    spared = spare_locked(repository, found, fates, progress)
    strays = _sort_strays(found.strays, waits, options, now)
    locked = locked_strays(repository, [stored.name for stored in strays.removed], progress)
    strays = _put_off(strays, locked)
    written = int(kept.bytes[fates == Fate.REPACK].sum())
    if not options.dry_run:
        plan = execute.Plan(found, kept, fates, strays.removed, strays.new, waits, known)
        written = execute.execute(repository, held, plan, options, progress)
    return _outcome(len(snapshots), found, kept, fates, spared, strays, options, written, rescued)


def _surveyed(
    repository: Repository,
    held: HeldLock,
    snapshots: Sequence[Snapshot],
    waits: Sequence[waiting.Waiting],
    options: PruneOptions,
    progress: Progress,
) -> tuple[Survey, tuple[str, ...]]:
    """The survey with all that is used marked; packs that wait are taken back when they are needed after all.

    Raises:
        IntegrityError: something needed is nowhere.
    """
    taken_back: list[PackBlobs] = []
    while True:
        found = survey(repository, progress, taken_back if options.dry_run else ())
        missing = mark_used(repository, snapshots, found, progress)
        if not missing:
            return found, tuple(pack.pack_id.hex() for pack in taken_back)
        back = rescue.needed(repository, found, waits, missing)
        if not back:
            raise _missing(repository, missing)
        taken_back += back
        if not options.dry_run:
            rescue.take_back(repository, held, back)


def _missing(repository: Repository, missing: Iterable[Missing]) -> IntegrityError:
    return IntegrityError(
        f"{repository.location}: restore points need what is not there: {'; '.join(map(str, missing))}; "
        "nothing was removed; `vcbproxy repo check` names the restore points"
    )


def _refuse_lost(repository: Repository, found: Survey, kept: Kept, known: Sequence[Suspect]) -> None:
    """Refuse to go on when something is needed of which there is no whole copy.

    Raises:
        IntegrityError: there is.
    """
    if not kept.lost_count:
        return
    reasons = {suspect.pack_id: suspect.reason for suspect in known}
    shown = []
    for rows in kept.lost:
        for at in range(len(rows)):
            pack = int(rows["pack"][at])
            why = _fault(found.packs, pack) or reasons.get(found.packs.ids[pack : pack + 1].tobytes(), "damaged")
            shown.append(f"blob {hex_of(rows['id'][at : at + 1])} in pack {found.packs.hex(pack)} ({why})")
    more = f" and {kept.lost_count - _NAMED_MAX} more" if kept.lost_count > _NAMED_MAX else ""
    raise IntegrityError(
        f"{repository.location}: restore points need what is damaged: {'; '.join(shown[:_NAMED_MAX])}{more}; "
        "nothing was removed; back up the VMs that still have it, or forget the points that `vcbproxy repo check` names"
    )


def _fault(packs: Packs, pack: int) -> str:
    real, expected = int(packs.real_bytes[pack]), int(packs.indexed_bytes[pack])
    if real < 0:
        return "the pack is missing"
    return f"the pack has {real} bytes, the index says {expected}" if real != expected else ""


def _facts(found: Survey, kept: Kept, known: Sequence[Suspect]) -> PackFacts:
    damaged = ~whole(found.packs)
    for suspect in known:
        pack = found.packs.number(suspect.pack_id)
        if pack is not None:
            damaged[pack] = True
    packs = found.packs
    return PackFacts(packs.indexed_bytes, packs.blobs, packs.trees, kept.blobs, kept.bytes, damaged)


def _sort_strays(
    strays: Sequence[Stored], waits: Sequence[waiting.Waiting], options: PruneOptions, now: datetime
) -> Strays:
    """Decide which strays go now; a pack that several files name waits for the last of them."""
    until: dict[str, datetime] = {}
    for wait in waits:
        for pack in wait.packs:
            until[pack] = max(until.get(pack, wait.until), wait.until)
    sorted_ = Strays()
    for stored in strays:
        stem = stored.name.stem
        if stem in until and until[stem] > now and options.grace != timedelta(0):
            sorted_.waiting.append(stored)
        elif stem not in until and options.grace:
            sorted_.waiting.append(stored)
            sorted_.new.append(stored)
        else:
            sorted_.removed.append(stored)
    return sorted_


def _put_off(strays: Strays, locked: Collection[FileName]) -> Strays:
    """Those that would go, and are locked against removal, wait."""
    going = [stored for stored in strays.removed if stored.name not in locked]
    waiting_ = [*strays.waiting, *(stored for stored in strays.removed if stored.name in locked)]
    return Strays(going, waiting_, strays.new)


def _outcome(
    snapshots: int,
    found: Survey,
    kept: Kept,
    fates: NDArray[np.uint8],
    spared: NDArray[np.bool_],
    strays: Strays,
    options: PruneOptions,
    written: int,
    rescued: tuple[str, ...],
) -> Outcome:
    packs = found.packs
    real = np.maximum(packs.real_bytes, 0)
    size = {fate: int(real[fates == fate].sum()) for fate in Fate}
    count = {fate: int(np.count_nonzero(fates == fate)) for fate in Fate}
    used = int(kept.bytes.sum())
    later = options.grace or timedelta(0)
    waiting_packs, waiting_bytes = len(strays.waiting), _size(strays.waiting)
    if later:
        waiting_packs += count[Fate.REMOVE] + count[Fate.REPACK]
        waiting_bytes += size[Fate.REMOVE] + size[Fate.REPACK]
    return Outcome(
        snapshots=snapshots,
        used_blobs=int(kept.blobs.sum()),
        used_bytes=used,
        unused_bytes=int(real.sum()) - used,
        packs_kept=count[Fate.KEEP],
        kept_bytes=size[Fate.KEEP],
        unused_kept_bytes=size[Fate.KEEP] - int(kept.bytes[fates == Fate.KEEP].sum()),
        packs_locked=int(np.count_nonzero(spared)),
        locked_bytes=int(real[spared].sum()),
        packs_removed=count[Fate.REMOVE],
        removed_bytes=size[Fate.REMOVE],
        packs_repacked=count[Fate.REPACK],
        repacked_bytes=size[Fate.REPACK],
        written_bytes=written,
        strays_removed=len(strays.removed),
        strays_bytes=_size(strays.removed),
        packs_waiting=waiting_packs,
        waiting_bytes=waiting_bytes,
        rescued=rescued,
    )


def _size(stored: Iterable[Stored]) -> int:
    return sum(one.size_bytes for one in stored)
