"""The catalog, libraries and pools of the configuration, for whatever command needs them. All imports are late."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from vcbproxy.clock import SystemClock, local_zone
from vcbproxy.config import Config

if TYPE_CHECKING:
    from tape.library import Library
    from tape.sequential import SequentialDrive
    from vcbproxy.archive.hand import Hand
    from vcbproxy.archive.keeper import DriveSession, Keeper
    from vcbproxy.archive.pools import OpenPool
    from vcbproxy.catalog.catalog import Catalog

_WAIT_S = 600.0  # for a drive that somebody else uses


def state_directory(config: Config) -> Path:
    """Where this proxy keeps what it must remember."""
    from jobs.ownership import default_directory

    return config.state.directory or default_directory()


@contextmanager
def catalog(config: Config) -> Iterator[Catalog]:
    """The catalog, for the length of a ``with``; made if there is none.

    Raises:
        CredentialsError: the login was refused.
        Error: it cannot be opened, or a newer vcbproxy made it.
    """
    from vcbproxy.catalog.catalog import Catalog

    url = config.catalog.url or f"sqlite:///{(state_directory(config) / 'catalog.db').absolute()}"
    password = config.catalog.password("the catalog") if config.catalog.given else None
    with Catalog.open(url, password) as opened:
        yield opened


@contextmanager
def pool(config: Config, name: str, *, drive_session: DriveSession | None = None) -> Iterator[OpenPool]:
    """A pool with its library and catalog, for the length of a ``with``.

    Raises:
        ConfigError: there is no such pool.
        Busy: another program has the library, where only one can.
        Error: it cannot be opened.
    """
    from contextlib import nullcontext

    from vcbproxy.archive import pools

    session = drive_session or (lambda drive: nullcontext())
    with (
        catalog(config) as known,
        pools.opened(
            config.tape, name, known, state_directory(config), hand(config), zone(config),
            drive_session=session, wait_s=_WAIT_S,
        ) as opened,
    ):  # fmt: skip
        yield opened


@contextmanager
def library(config: Config, name: str | None) -> Iterator[tuple[str, Library, Keeper]]:
    """A library by its name (the only one without), with its catalog's keeper, for the length of a ``with``.

    Raises:
        ConfigError: there is none of that name, or several to choose from.
        Busy: another program has it, where only one can.
        Error: it cannot be opened.
    """
    from vcbproxy.archive import libraries
    from vcbproxy.archive.condition import noting

    library_name, configured = libraries.chosen(config.tape, name)
    with (
        catalog(config) as known,
        libraries.opened(library_name, configured, state_directory(config), heard=noting(known)) as opened,
    ):
        yield library_name, opened, keeper(config, known, library_name)


def zone(config: Config) -> tzinfo:
    """Whose midnights part the days."""
    named = config.retention.time_zone
    return ZoneInfo(named) if named is not None else local_zone(os.environ)


def keeper(config: Config, known: Catalog, library_name: str) -> Keeper:
    """Who keeps the catalog and the cartridges of a library in step."""
    from vcbproxy.archive.keeper import Keeper
    from vcbproxy.archive.pools import retention_of

    return Keeper(known, library_name, retention_of(config.tape), hand(config), drive_session=by_memory(config))


def by_memory(config: Config) -> DriveSession:
    """What a drive needs to read the cartridge in it: the key of the pool that the cartridge's memory names.

    The memory can be read without it. The key is fetched when the first such cartridge comes.
    """
    keys: dict[str, DriveSession] = {}

    @contextmanager
    def session(drive: SequentialDrive) -> Iterator[None]:
        from tape import memory
        from vcbproxy.cli.protection import protection_of

        told = memory.read(drive, 0, memory.Id.MEDIA_POOL)
        name = told.text if told is not None else ""
        if name not in config.tape.pool:
            yield
            return
        if name not in keys:
            keys[name] = protection_of(name, config.tape.pool[name]).drive_session
        with keys[name](drive):
            yield

    return session


def hand(config: Config) -> Hand:
    """Who writes: this program, on this host."""
    from vcbproxy.archive.hand import Hand
    from vcbproxy.cli.maker import maker

    return Hand(maker(), SystemClock().now, state_directory(config) / "tape" / "journal")
