"""From a pool's name on the command line to cartridges that can be written and read. All imports are late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vcbproxy.archive.appetite import LEVELS
from vcbproxy.cli import frame
from vcbproxy.cli.protection import Protection, protection_of
from vcbproxy.config import Compression, Config
from vcbproxy.errors import Error, RepositoryMissing, UsageError

if TYPE_CHECKING:
    from jobs.intoarchive import IntoArchive
    from vcbproxy.archive.pools import OpenPool
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.records import ArchivedPoint

_PREFIX = "tape"
_LEVELS = {Compression.OFF: -100, Compression.FASTEST: LEVELS[0], Compression.AUTO: None, Compression.MAX: 12}


def pool_of(text: str) -> str:
    """The pool in ``tape:POOL``.

    Raises:
        UsageError: it is something else.
    """
    kind, _, pool = text.partition(":")
    if kind != _PREFIX or not pool:
        raise UsageError(f"{text!r}: a target is tape:POOL; without --to, backups go into the repository")
    return pool


def source_of(text: str, option: str = "--from") -> str | None:
    """The pool in ``tape:POOL``; None for ``tape``, which means any.

    Raises:
        UsageError: it is something else.
    """
    kind, _, pool = text.partition(":")
    if kind != _PREFIX:
        raise UsageError(f"{text!r}: {option} takes tape or tape:POOL; without, it is the repository")
    return pool or None


@contextmanager
def into(config: Config, pool: str, *, drives: int, compression: Compression) -> Iterator[IntoArchive]:
    """A pool as a target of backups.

    Raises:
        ConfigError: there is no such pool.
        CredentialsError: its key cannot be read.
        Busy: another program has the library.
    """
    from jobs.intoarchive import ArchiveOptions, IntoArchive
    from vcbproxy.archive.remembered import Remembered
    from vcbproxy.cli import shelves

    with opened(config, pool) as (found, protection):
        options = ArchiveOptions(
            lanes=drives, level=_LEVELS[compression], encryption=protection.told, recipients=protection.recipients
        )
        remembered = Remembered(shelves.state_directory(config) / "tape" / "points")
        media = found.catalog.media

        def doubtful() -> list[str]:
            return [medium.barcode for medium in media.listed() if medium.doubtful]

        yield IntoArchive(found.shelf, found.catalog.points, remembered, options, doubtful=doubtful)


@contextmanager
def opened(config: Config, pool: str) -> Iterator[tuple[OpenPool, Protection]]:
    """A pool, its drives given the key where it has one.

    Raises:
        ConfigError: there is no such pool.
        CredentialsError: its key cannot be read.
        Busy: another program has the library.
    """
    from vcbproxy.archive import pools
    from vcbproxy.cli import shelves

    protection = protection_of(pool, pools.chosen(config.tape, pool))
    with shelves.pool(config, pool, drive_session=protection.drive_session) as found:
        yield found, protection


def found(config: Config, pool: str | None, texts: Sequence[str]) -> list[ArchivedPoint]:
    """Restore points on tape by what the operator calls them; all when nothing is said. Of suspect ones that is told.

    Raises:
        UsageError: there is none of that name, or several.
        ConfigError: there is no such pool.
    """
    from vcbproxy.cli import shelves
    from vcbproxy.pointname import doubt

    with shelves.catalog(config) as catalog:
        points = chosen(config, catalog, pool, texts)
        listed = catalog.points.listed(pool=pool) if any(point.suspect for point in points) else []
    for point in points:
        if point.suspect:
            frame.say(f"{doubt(listed, point)} ({point.suspect_because})")
    return points


def chosen(config: Config, catalog: Catalog, pool: str | None, texts: Sequence[str]) -> list[ArchivedPoint]:
    """The same of a catalog that is open, and silently.

    Raises:
        UsageError: there is none of that name, or several.
        ConfigError: there is no such pool.
    """
    from vcbproxy.archive import pools
    from vcbproxy.catalog.points import find

    if pool is not None:
        pools.chosen(config.tape, pool)
    listed = catalog.points.listed(pool=pool)
    if texts and not listed:
        where = f"in pool {pool}" if pool is not None else "on tape"
        raise UsageError(
            f"no restore point {where} is known; `vcbproxy tape catalog rebuild` finds what cartridges hold"
        )
    points = [find(listed, text) for text in texts] if texts else listed
    return list({point.id: point for point in points}.values())


@contextmanager
def or_on_tape(config: Config, hint: str, *texts: str) -> Iterator[None]:
    """Where the repository has no such restore point, or is gone, and cartridges do, the error says so, and what to do.

    Raises:
        NoSuchPoint: likewise.
        RepositoryMissing: likewise.
    """
    from vcbproxy.pointname import NoSuchPoint

    try:
        yield
    except NoSuchPoint as error:
        there = _on_tape(config, str(error.text))
        if there is None:
            raise
        raise NoSuchPoint(f"{error}; {_told(there)}: {hint}", text=error.text) from error
    except RepositoryMissing as error:
        for there in filter(None, (_on_tape(config, text) for text in texts)):
            error.add_note(f"{_told(there)}: {hint}")
        raise


def _told(there: ArchivedPoint) -> str:
    return f"{there.id[:8]} {there.name} lies on tape ({', '.join(there.barcodes)})"


def _on_tape(config: Config, text: str) -> ArchivedPoint | None:
    from vcbproxy.cli import shelves

    if config.tape.pool:
        with suppress(Error), shelves.catalog(config) as catalog:  # the first error is the one to be told
            return catalog.points.find(text)
    return None
