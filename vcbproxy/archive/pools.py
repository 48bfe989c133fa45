"""Pools of the configuration, opened: with their library, their catalog and their rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

from tape.library import Library
from vcbproxy import config as configuration
from vcbproxy.archive import libraries, stock
from vcbproxy.archive.condition import noting
from vcbproxy.archive.hand import Hand
from vcbproxy.archive.keeper import DriveSession, Keeper
from vcbproxy.archive.pool import PoolShelf
from vcbproxy.catalog.allocation import Terms
from vcbproxy.catalog.catalog import Catalog
from vcbproxy.catalog.length import Length
from vcbproxy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OpenPool:
    """A pool, ready to be written to and read from.

    Attributes:
        shelf: its cartridges, for one job run.
        library: in which they are.
        catalog: in which it is written down what lies on them.
        keeper: of both.
    """

    shelf: PoolShelf
    library: Library
    catalog: Catalog
    keeper: Keeper


def chosen(tape: configuration.Tape, name: str) -> configuration.Pool:
    """The pool of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return tape.pool[name]
    except KeyError:
        known = ", ".join(tape.pool) or "none: write [tape.pool.NAME] into the configuration"
        raise ConfigError(f"no pool {name} is configured; there are: {known}") from None


def terms_of(name: str, pool: configuration.Pool, zone: tzinfo) -> Terms:
    """A pool's rules; ``zone`` is whose midnights part the days."""
    return Terms(
        name,
        pool.barcodes,
        pool.allocation,
        pool.weekday,
        Length.parse(pool.appendable_for),
        Length.parse(pool.retention),
        zone,
    )


def retention_of(tape: configuration.Tape) -> Mapping[str, Length]:
    """How long each pool's cartridges are kept, by the present rules."""
    return {name: Length.parse(pool.retention) for name, pool in tape.pool.items()}


@contextmanager
def opened(
    tape: configuration.Tape,
    name: str,
    catalog: Catalog,
    state: Path,
    hand: Hand,
    zone: tzinfo,
    *,
    drive_session: DriveSession = lambda drive: nullcontext(),
    wait_s: float = 0.0,
) -> Iterator[OpenPool]:
    """A pool for the length of a ``with``; cartridges left in drives are then brought home.

    Args:
        tape: what is configured.
        name: the pool's.
        catalog: open.
        state: the state directory.
        hand: who writes.
        zone: whose midnights part the days.
        drive_session: what a drive needs while it has a cartridge.
        wait_s: how long to wait for a drive.

    Raises:
        ConfigError: there is no such pool.
        Busy: another program has the library, where only one can.
        Error: it cannot be opened.
    """
    pool = chosen(tape, name)
    library_name = tape.library_of(name)
    keeper = Keeper(catalog, library_name, retention_of(tape), hand)
    with libraries.opened(library_name, tape.library[library_name], state, heard=noting(catalog)) as library:
        stock.by_labels(library.inventory(), keeper)  # hands may have been in it since the last time
        shelf = PoolShelf(
            terms_of(name, pool, zone),
            library_name,
            library,
            keeper,
            drive_session=drive_session,
            verify=pool.verify is configuration.WriteVerify.READ_BACK,
            wait_s=wait_s,
        )
        yield OpenPool(shelf, library, catalog, keeper)
