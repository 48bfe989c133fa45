"""No restore point outlives the lock of its packs.

A pack is locked when it is written. A restore point made later that uses it again needs it longer. So before a record
is stored, the locks of all packs it relies on are looked at, and renewed where they end too soon:

                     now                    now + least          now + least + slack
    ──────────────────┼───────────────────────────┼──────────────────────────┼─────▶ time
    a new record      ╞═══════════════════════════╡
    its packs at least╞════════════════════════════════▪  (a day more, since the record takes its time to follow)
    when renewed      ╞══════════════════════════════════════════════════════╡

Each pack in use is thus renewed once in a while, not each night. Index files are locked when they are written and not
renewed: they can be made anew from the packs (``restic repair index``), and one that prune has replaced must be let go.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from vcbproxy.clock import Clock
from vcbproxy.repository.backend.base import (
    CONFIG,
    PARAMETERS,
    Backend,
    FileKind,
    FileMissing,
    FileName,
    Retaining,
)
from vcbproxy.repository.kept import KeptTable

MARGIN = timedelta(days=1)


class Immutability:
    """Renews locks; safe to share between threads."""

    def __init__(self, backend: Backend, retaining: Retaining, clock: Clock, table: Path | None) -> None:
        self._backend = backend
        self._retaining = retaining
        self._clock = clock
        self._table = KeptTable(table)
        self._stored: dict[FileName, datetime] = {}
        self._mutex = threading.Lock()

    def stored(self, pack_id: bytes) -> None:
        """Take note of a pack that has just been stored, and was locked thereby."""
        keeping = self._retaining.keeping
        until = self._clock.now() + keeping.least + keeping.slack - MARGIN  # it may have taken hours to store
        with self._mutex:
            self._stored[FileName(FileKind.PACK, pack_id.hex())] = until

    def cover(self, pack_ids: Iterable[bytes]) -> int:
        """See that packs, and what opens them, are locked as long as a record made now; gives how many it renewed.

        Raises:
            TargetError: a lock could not be read or renewed; then there must be no record.
        """
        names = [FileName(FileKind.PACK, pack_id.hex()) for pack_id in pack_ids]
        names += [stored.name for stored in self._backend.list(FileKind.KEY)]
        with self._mutex:
            self._table.note(self._stored)
            self._stored.clear()
            keeping = self._retaining.keeping
            needed = self._clock.now() + keeping.least + MARGIN
            until = needed - MARGIN + keeping.slack
            known = self._table.look_up(names)
            doubtful = [name for name in names if name not in known or known[name] < needed]
            renewed: dict[FileName, datetime] = {}
            with ThreadPoolExecutor(self._backend.traits.connections, "lock-renewer") as pool:
                for name, at in zip(doubtful, pool.map(lambda n: self._renew(n, needed, until), doubtful), strict=True):
                    renewed[name] = at
            for single in (CONFIG, PARAMETERS):
                self._renew_if_there(single, needed, until)
            self._table.note(renewed)
        return sum(at == until for at in renewed.values())

    def _renew(self, name: FileName, needed: datetime, until: datetime) -> datetime:
        kept = self._retaining.kept_until(name)
        if kept is not None and kept >= needed:
            return kept
        self._retaining.keep_until(name, until)
        return until

    def _renew_if_there(self, name: FileName, needed: datetime, until: datetime) -> None:
        try:
            self._renew(name, needed, until)
        except FileMissing:
            if name is CONFIG:
                raise
