"""What the place refuses to remove yet (Object Lock) stays as it is, in the index too: it can still be used again.

an index file that is locked     keeps every pack that it lists
a pack that is locked            stays; writing anew what is needed of it would only add to it
a stray that is locked           waits
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from vcbproxy.repository.backend.base import FileKind, FileMissing, FileName, Retaining
from vcbproxy.repository.progress import Progress
from vcbproxy.repository.prune import reindex
from vcbproxy.repository.prune.plan import Fate
from vcbproxy.repository.prune.survey import Survey
from vcbproxy.repository.repository import Repository


def spare_locked(
    repository: Repository, found: Survey, fates: NDArray[np.uint8], progress: Progress
) -> NDArray[np.bool_]:
    """Turn the fates of what cannot be removed yet into staying; tells whose they were.

    Raises:
        TargetError: a lock could not be asked for.
    """
    spared = np.zeros(len(fates), np.bool_)
    retaining = repository.backend.traits.retaining
    if retaining is None:
        return spared
    stems = reindex.outdated(found, fates)
    files = _locked(repository, retaining, [FileName(FileKind.INDEX, stem) for stem in stems], progress)
    numbers = [number for number, stem in enumerate(found.index_files) if FileName(FileKind.INDEX, stem) in files]
    spared[found.listing_pack[np.isin(found.listing_file, numbers)]] = True
    spared &= fates != Fate.KEEP
    going = np.flatnonzero((fates != Fate.KEEP) & ~spared)
    packs = _locked(repository, retaining, [found.packs.name(pack) for pack in going.tolist()], progress)
    spared[[pack for pack in going.tolist() if found.packs.name(pack) in packs]] = True
    fates[spared] = Fate.KEEP
    return spared


def locked_strays(repository: Repository, names: Sequence[FileName], progress: Progress) -> set[FileName]:
    """Those among packs that no index lists which cannot be removed yet.

    Raises:
        TargetError: a lock could not be asked for.
    """
    retaining = repository.backend.traits.retaining
    return set() if retaining is None else _locked(repository, retaining, names, progress)


def _locked(
    repository: Repository, retaining: Retaining, names: Sequence[FileName], progress: Progress
) -> set[FileName]:
    now = repository.clock.now()

    def locked(name: FileName) -> bool:
        try:
            until = retaining.kept_until(name)
        except FileMissing:
            return False
        return until is not None and until > now

    found = set()
    with ThreadPoolExecutor(repository.backend.traits.connections, "lock-asker") as pool:
        for done, (name, is_locked) in enumerate(zip(names, pool.map(locked, names), strict=True), 1):
            progress("locks", done, len(names))
            if is_locked:
                found.add(name)
    return found
