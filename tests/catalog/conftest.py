"""Each test of a catalog runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import postgresql
from vcbproxy.catalog.catalog import Catalog


@dataclass(frozen=True)
class Place:
    """Where a catalog is, and how to log in there."""

    url: str
    password: str | None = None

    @property
    def login(self) -> dict[str, Any]:
        """For an engine of one's own."""
        return {"connect_args": {"password": self.password}} if self.password else {}

    def open(self) -> Catalog:
        return Catalog.open(self.url, self.password)


KINDS = ("sqlite", pytest.param("postgresql", marks=[pytest.mark.real, pytest.mark.xdist_group("postgresql")]))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/state/catalog.db")
    server: postgresql.Server = request.getfixturevalue("postgres")
    return Place(server.create(f"catalog_{uuid4().hex}"), postgresql.PASSWORD)


@pytest.fixture
def catalog(place: Place) -> Iterator[Catalog]:
    with place.open() as opened:
        yield opened
