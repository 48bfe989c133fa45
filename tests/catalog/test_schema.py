"""How a catalog is made, comes up to a newer version, and refuses what it does not know."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from tests import postgresql
from vcbproxy.catalog import schema
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.database import Database
from vcbproxy.catalog.medium import Medium, State
from vcbproxy.catalog.tables import Table
from vcbproxy.errors import ConfigError, CredentialsError, Error


def test_what_the_migrations_make_is_what_the_tables_say(place):
    database = Database.open(place.url, place.password)
    with database.transaction() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Table.metadata) == []
    database.close()


def test_the_newest_step_is_the_one_that_is_asked_for():
    config = Config()
    config.set_main_option("script_location", "vcbproxy.catalog:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.NEWEST]


def test_an_older_catalog_comes_up_with_all_that_is_in_it(place):
    """Made by the first step alone, as the version that had no other made it."""
    database = create_engine(place.url.replace("postgresql:", "postgresql+pg8000:"), **place.login)
    if place.url.startswith("sqlite"):
        Path(place.url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    with database.begin() as connection:
        schema.migrate(connection, "0001")
        columns = "barcode, state, serial, bytes_written, worm, errors, reason"
        connection.execute(text(f"INSERT INTO medium ({columns}) VALUES ('TAP001L8', 'full', 's', 7, false, 0, 'old')"))
    database.dispose()
    with place.open() as catalog:
        assert catalog.media.get("TAP001L8") == Medium(
            "TAP001L8", State.FULL, serial="s", bytes_written=7, reason="old"
        )
    place.open().close()


def test_a_catalog_of_a_newer_version_is_refused(place):
    place.open().close()
    database = Database.open(place.url, place.password)
    with database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
    database.close()
    with pytest.raises(Error, match="made by a newer vcbproxy"):
        place.open()


def test_a_database_of_somebody_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "theirs.db") as theirs:
        theirs.execute("CREATE TABLE point (x INTEGER)")
    theirs.close()
    with pytest.raises(Error, match="tables of another program"):
        Catalog.open(f"sqlite:///{tmp_path}/theirs.db")


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of that kind\n" * 100)
    with pytest.raises(Error, match="cannot be used: file is not a database"):
        Catalog.open(f"sqlite:///{tmp_path}/notes.txt")


@pytest.mark.parametrize("url", ["catalog.db", "mysql://db/x", "sqlite://", "postgresql+psycopg://db/x"])
def test_other_urls_are_refused(url):
    with pytest.raises(ConfigError, match="names no catalog"):
        Catalog.open(url)


@pytest.mark.real
@pytest.mark.xdist_group("postgresql")
def test_a_wrong_password_is_told_as_one(postgres):
    with pytest.raises(CredentialsError, match="refused the login"):
        Catalog.open(postgres.url("postgres"), "wrong")


@pytest.mark.real
@pytest.mark.xdist_group("postgresql")
def test_no_message_shows_the_password(postgres):
    with pytest.raises(Error) as caught:
        Catalog.open(postgres.url("no_such_database"), postgresql.PASSWORD)
    assert postgresql.PASSWORD not in str(caught.value)
    assert "no_such_database" in str(caught.value)


def test_nothing_is_imported_for_nothing():
    """Neither of both is small: commands that need no catalog must not wait for them, nor a catalog for Alembic."""
    script = (
        "import sys, vcbproxy.cli.main, vcbproxy.catalog.records, vcbproxy.catalog.allocation\n"
        "assert 'sqlalchemy' not in sys.modules\n"
        "import vcbproxy.catalog.catalog\n"
        "assert 'alembic' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
