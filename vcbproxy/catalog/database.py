"""The database: transactions that several threads and processes may begin at once, and its errors as ours.

Writers take turns, on both databases: SQLite by BEGIN IMMEDIATE, PostgreSQL by a lock that ends with the transaction. A
transaction takes milliseconds; nothing is carried or written on tape meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from vcbproxy.catalog import schema
from vcbproxy.errors import Busy, ConfigError, CredentialsError, Error

_PATIENCE_S = 60
_TURN = 0x76636270726F7879  # of PostgreSQL's advisory locks; "vcbproxy"
_LOGIN_REFUSED = ("28P01", "28000")


class Database:
    """One database, opened. May be used by several threads, each in transactions of its own."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Use ``open``."""
        self.name = name
        self._engine = engine
        self._here = threading.local()

    @classmethod
    def open(cls, url: str, password: str | None = None) -> Database:
        """Open it, and bring its schema up to ours.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://user@host/database``.
            password: for the latter.

        Raises:
            ConfigError: a URL of no such kind.
            CredentialsError: the login was refused.
            Error: it cannot be opened, or a newer vcbproxy made its schema.
        """
        parsed = _parsed(url, password)
        name = parsed.render_as_string(hide_password=True).replace("+pg8000", "")
        engine = _sqlite(parsed, name) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
        made = cls(engine, name)
        try:
            with made.transaction() as session:
                schema.bring_up(session.connection(), name)
        except BaseException:
            engine.dispose()
            raise
        return made

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction, or the part of the one that this thread is in: all of it happens, or nothing.

        Raises:
            Busy: others would not let us for a minute.
            Error: it cannot be read or written.
        """
        outer: Session | None = getattr(self._here, "session", None)
        if outer is not None:
            yield outer
            return
        with self._as_ours(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            self._here.session = session
            try:
                session.connection()
                yield session
            finally:
                del self._here.session

    @contextmanager
    def _as_ours(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _ours(error, self.name) from error

    def close(self) -> None:
        """Let it go."""
        self._engine.dispose()


def _parsed(url: str, password: str | None) -> URL:
    try:
        parsed = make_url(url)
    except SQLAlchemyError as error:
        raise ConfigError(f"{url!r} names no catalog: {error}") from error
    if parsed.drivername == "sqlite" and parsed.database:
        return parsed
    if parsed.drivername == "postgresql":
        changed = parsed.set(drivername="postgresql+pg8000")
        return changed.set(password=password) if password is not None else changed
    raise ConfigError(f"{url!r} names no catalog: write sqlite:////FILE or postgresql://user@host/database")


def _sqlite(url: URL, name: str) -> Engine:
    assert url.database is not None, "held above"
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"cannot make the catalog {name}: {error.strerror}") from error
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": _PATIENCE_S})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, so that CREATE TABLE is part of one
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, pool_size=2, connect_args={"timeout": _PATIENCE_S})

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE_S}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})

    return engine


def _ours(error: SQLAlchemyError, name: str) -> Error:
    """The same in our words: what matters is whether to wait, to log in otherwise, or to repair."""
    reason = str(error).split("\n", 1)[0]
    code = ""
    if isinstance(error, DBAPIError) and error.orig is not None:
        reason = str(error.orig)
        if error.orig.args and isinstance(error.orig.args[0], dict):  # as pg8000 has it
            code = str(error.orig.args[0].get("C", ""))
            reason = str(error.orig.args[0].get("M", reason))
    if code in _LOGIN_REFUSED:
        return CredentialsError(f"the catalog {name} refused the login: {reason}")
    if code == "55P03" or (isinstance(error, OperationalError) and "locked" in reason):
        return Busy(f"the catalog {name} is in use for longer than {_PATIENCE_S} s; see who holds it")
    return Error(f"the catalog {name} cannot be used: {reason}")
