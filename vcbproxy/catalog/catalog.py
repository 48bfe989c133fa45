"""The catalog, opened.

with Catalog.open("sqlite:////var/lib/vcbproxy/catalog.db") as catalog:
catalog.points.find("web01@latest")
with catalog.transaction():              both, or neither
catalog.media.put(medium)
catalog.sets.put(media_set)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from vcbproxy.catalog.database import Database
from vcbproxy.catalog.marks import Marks
from vcbproxy.catalog.media import Media, MediaSets
from vcbproxy.catalog.points import Points


class Catalog:
    """What is known of cartridges and of what lies on them. For several threads."""

    def __init__(self, database: Database) -> None:
        """Use ``open``."""
        self._database = database
        self.points = Points(database)
        self.marks = Marks(database)
        self.media = Media(database)
        self.sets = MediaSets(database)

    @classmethod
    def open(cls, url: str, password: str | None = None) -> Self:
        """Open it, made or brought up to this version where need be.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://user@host/database``.
            password: for the latter.

        Raises:
            ConfigError: a URL of no such kind.
            CredentialsError: the login was refused.
            Error: it cannot be opened, or a newer vcbproxy made it.
        """
        return cls(Database.open(url, password))

    @property
    def name(self) -> str:
        """What messages call it; without a password."""
        return self._database.name

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that this thread changes in the block happens, or nothing."""
        with self._database.transaction():
            yield

    def close(self) -> None:
        """Let it go."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
