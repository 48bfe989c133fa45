"""What is locked until when, asked of the server itself; and which restore points outlive the locks of their packs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import points, times
from vcbproxy.repository.backend.base import CONFIG, FileKind, FileMissing, FileName, Retaining
from vcbproxy.repository.reach import Reach
from vcbproxy.repository.report import PointLock
from vcbproxy.repository.repository import Repository


def locks_of(
    repository: Repository, retaining: Retaining, progress: Callable[[str, int, int], None]
) -> list[PointLock]:
    """The locks of all restore points, oldest first; points with damaged trees are left out (a check names them).

    Each pack is asked for once. The index must be loaded.

    Raises:
        TargetError: the server could not be asked.
    """
    reach = Reach(repository)
    asked = _Asked(repository, retaining, progress)
    common = [CONFIG, *(stored.name for stored in repository.backend.list(FileKind.KEY))]
    found = []
    for snapshot in repository.snapshots():
        try:
            packs = reach.packs_under(snapshot.tree)
        except IntegrityError:
            continue
        summary = points.of_snapshot(snapshot)
        name = summary.name if summary else f"{snapshot.hostname}@{times.canonical(snapshot.time)}"
        record = asked.until([FileName(FileKind.SNAPSHOT, snapshot.snapshot_id)])[0]
        needs = asked.until([*common, *(FileName(FileKind.PACK, pack_id.hex()) for pack_id in packs)])
        shortest = min((until for until in needs if until is not None), default=None)
        short = sum(until is None or until < record for until in needs) if record is not None else 0
        found.append(PointLock(name, record, None if None in needs else shortest, short))
    return found


class _Asked:
    """What the server said, each file asked for once, several at a time."""

    def __init__(self, repository: Repository, retaining: Retaining, progress: Callable[[str, int, int], None]) -> None:
        self._retaining = retaining
        self._progress = progress
        self._connections = repository.backend.traits.connections
        self._known: dict[FileName, datetime | None] = {}

    def until(self, names: Iterable[FileName]) -> list[datetime | None]:
        wanted = list(names)
        fresh = [name for name in dict.fromkeys(wanted) if name not in self._known]
        with ThreadPoolExecutor(self._connections, "lock-reader") as pool:
            for number, (name, until) in enumerate(zip(fresh, pool.map(self._ask, fresh), strict=True), 1):
                self._known[name] = until
                self._progress("locks", number, len(fresh))
        return [self._known[name] for name in wanted]

    def _ask(self, name: FileName) -> datetime | None:
        try:
            return self._retaining.kept_until(name)
        except FileMissing:
            return None  # the check itself names it
