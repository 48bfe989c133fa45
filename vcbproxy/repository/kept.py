"""A local table of until when packs are locked, so that the server need not be asked for each of them every night.

One row a pack, in SQLite; 640,000 for 10 TiB. It is a cache: when it is lost or damaged the server is asked again. It
may say too little, never too much: what the server has confirmed is all that comes in.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from vcbproxy.repository.backend.base import FileName

_log = logging.getLogger(__name__)

_BUSY_S = 30
_ASKED_AT_ONCE = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS kept (path TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID"


class KeptTable:
    """Rows of file and time; another process may use the same table."""

    def __init__(self, path: Path | None) -> None:
        """Use a file, or nothing that outlives this object when ``path`` is None."""
        self._path = path
        self._memory: dict[str, int] = {}

    def look_up(self, names: Iterable[FileName]) -> dict[FileName, datetime]:
        """What is known of them."""
        wanted = {name.path: name for name in names}
        known: dict[str, int] = {}
        with self._tolerated(), self._opened() as table:
            if table is not None:
                paths = list(wanted)
                for start in range(0, len(paths), _ASKED_AT_ONCE):
                    some = paths[start : start + _ASKED_AT_ONCE]
                    places = ",".join("?" * len(some))
                    known.update(table.execute(f"SELECT path, until FROM kept WHERE path IN ({places})", some))  # noqa: S608  # only question marks
        known |= {path: self._memory[path] for path in wanted if path in self._memory}
        return {wanted[path]: datetime.fromtimestamp(until, UTC) for path, until in known.items()}

    def note(self, kept: Mapping[FileName, datetime]) -> None:
        """Remember what the server has confirmed."""
        rows = {name.path: int(until.timestamp()) for name, until in kept.items()}
        with self._tolerated(), self._opened() as table:
            if table is not None:
                table.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows.items())
        if self._path is None:
            self._memory.update(rows)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A disk that is full, or a table that others hold for too long, makes all slower, and costs nothing else."""
        try:
            yield
        except sqlite3.Error as error:
            _log.warning("%s: %s; until when files are locked is asked of the server", self._path, error)
            self._path = None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        """The table for one use; one that is damaged is thrown away, one that cannot be used is done without."""
        table = self._connect()
        if table is None:
            yield None
            return
        with contextlib.closing(table), table:
            yield table

    def _connect(self) -> sqlite3.Connection | None:
        if self._path is None:
            return None
        for _ in range(2):
            try:
                table = sqlite3.connect(self._path, timeout=_BUSY_S)
            except sqlite3.Error:
                break
            try:
                table.execute(_SCHEMA)
                if table.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                    return table
            except sqlite3.OperationalError:  # busy, read-only, full: not damaged
                table.close()
                break
            except sqlite3.DatabaseError:
                pass
            table.close()
            self._path.unlink(missing_ok=True)
        self._path = None
        return None
