"""From a pool's name on the command line to cartridges that can be written and read. All imports are late."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.archive.appetite import LEVELS
from vcbproxy.cli import frame
from vcbproxy.cli.drivekeys import in_file, keyed, parsed
from vcbproxy.config import Compression, Config
from vcbproxy.errors import CredentialsError, Error, UsageError

if TYPE_CHECKING:
    from jobs.intoarchive import IntoArchive
    from tape.sequential import SequentialDrive
    from vcbproxy.archive.agekeys import Identities, Recipients
    from vcbproxy.archive.pools import OpenPool
    from vcbproxy.catalog.catalog import Catalog
    from vcbproxy.catalog.records import ArchivedPoint
    from vcbproxy.config import Pool

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


@dataclass(frozen=True, slots=True)
class Protection:
    """How a pool's cartridges are kept from strangers.

    Attributes:
        told: what ``vm.json`` says of it; never a key.
        recipients: whom images are encrypted to.
        identity_file: where the other half of that is, on this machine.
        identity_command: or what says it.
        drive_session: what a drive is given while it has a cartridge.
    """

    told: Mapping[str, Any]
    recipients: Recipients | None = None
    identity_file: Path | None = None
    identity_command: list[str] | str | None = None
    drive_session: Callable[[SequentialDrive], AbstractContextManager[None]] = lambda drive: nullcontext()


def protection_of(name: str, pool: Pool) -> Protection:
    """By the configuration.

    Raises:
        CredentialsError: a key cannot be read, or is none.
        ConfigError: what is wanted cannot be done.
    """
    from vcbproxy.config import Encryption

    if pool.encryption is Encryption.HARDWARE:
        return _by_drive(name, pool)
    if pool.encryption is Encryption.AGE:
        from vcbproxy.archive.agekeys import Recipients

        recipients = Recipients.of(pool.recipients)
        told = {"method": "age", "recipients": recipients.names}
        return Protection(told, recipients, pool.identity_file, pool.identity_command)
    return Protection({})


def identities_of(protection: Protection, given: Path | None) -> Identities | None:
    """Who can read encrypted images: by the file that was given, or the pool's own; None: neither is there.

    Raises:
        CredentialsError: the file or the command cannot be read, or holds none.
    """
    from vcbproxy.archive.agekeys import Identities
    from vcbproxy.config.base import output_of

    if given is None and protection.identity_command is not None:
        said = output_of(protection.identity_command, "the identity command")
        return Identities.of(said.encode(), "what the identity command says")
    path = given or protection.identity_file
    if path is None:
        return None
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"cannot read the identity {path}: {error.strerror}") from error
    asked = functools.partial(click.prompt, f"Passphrase of {path}", hide_input=True, err=True)
    return Identities.of(secret, str(path), asked if frame.on_terminal() else None)


def _by_drive(name: str, pool: Pool) -> Protection:
    from vcbproxy.config import Secret

    whose = f"the key of pool {name}"
    if pool.hardware_key_file is None:
        key = parsed(Secret(password_command=pool.hardware_key_command).password(f"pool {name}").encode(), whose)
    else:
        key = in_file(pool.hardware_key_file, whose)
    told = {"method": "hardware", "key": key.identity}
    return Protection(told, drive_session=lambda drive: keyed(drive, key, whose))


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
def or_on_tape(config: Config, hint: str) -> Iterator[None]:
    """Where the repository has no such restore point, and cartridges do, the error says so, and what to do.

    Raises:
        NoSuchPoint: likewise.
    """
    from vcbproxy.pointname import NoSuchPoint

    try:
        yield
    except NoSuchPoint as error:
        there = _on_tape(config, str(error.text))
        if there is None:
            raise
        where = f"{there.id[:8]} {there.name} lies on tape ({', '.join(there.barcodes)})"
        raise NoSuchPoint(f"{error}; {where}: {hint}", text=error.text) from error


def _on_tape(config: Config, text: str) -> ArchivedPoint | None:
    from vcbproxy.cli import shelves

    if config.tape.pool:
        with suppress(Error), shelves.catalog(config) as catalog:  # the first error is the one to be told
            return catalog.points.find(text)
    return None
