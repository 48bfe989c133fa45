"""Which repository a command works on: named by its options, the environment or the configuration; and opened.

Only what is named together counts together: how another repository is used is not taken from the configuration's.
"""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from vcbproxy import config as configuration
from vcbproxy.cli import frame
from vcbproxy.clock import SystemClock
from vcbproxy.errors import ConfigError

if TYPE_CHECKING:
    from vcbproxy.repository.backend.base import Backend
    from vcbproxy.repository.repository import Repository

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RepositoryAddress:
    """Where the repository is and where its password is kept."""

    location: str
    secret: configuration.Secret
    s3: configuration.S3 = field(default_factory=configuration.S3)
    traffic: configuration.Traffic = field(default_factory=configuration.Traffic)
    cache: configuration.Cache = field(default_factory=configuration.Cache)
    prune: configuration.Prune = field(default_factory=configuration.Prune)

    @property
    def in_bucket(self) -> bool:
        """Whether it lies in a bucket, not in a directory."""
        return self.location.startswith("s3:")

    def backend(self, *, create: bool = False) -> Backend:
        """The storage below the repository, patient, and no faster than it may be."""
        from vcbproxy.cli import interruption
        from vcbproxy.repository.backend import compose
        from vcbproxy.repository.backend.location import open_backend

        opened = open_backend(self.location, s3=self.s3)
        backend = compose.patient(
            opened, self.traffic, SystemClock(), random.Random(), interruption.wanted, watched=frame.on_terminal()
        )
        if create:
            backend.create()
        return backend

    def password(self) -> str:
        """The repository's password, read now."""
        return self.secret.password(f"the repository {self.location}")

    def open(self, *, cached: bool = True) -> Repository:
        """The repository itself, its index not yet loaded.

        Args:
            cached: with local copies of what is read often, unless the operator or the configuration is against it.
        """
        from vcbproxy.repository.files import unlocked

        files = unlocked(self.backend(), self.password())  # before the larger modules: see `vcbproxy backup`
        from vcbproxy.repository import cachedir
        from vcbproxy.repository.backend import compose
        from vcbproxy.repository.repository import Repository

        root = (self.cache.directory or cachedir.default_root()) if self.cache.enabled else None
        if not cached:
            return Repository.of(files, cache_root=root)
        return Repository.of(
            files, cached=lambda backend, name: compose.cached(backend, name, self.cache), cache_root=root
        )


def repository_options(command: Callable[P, R]) -> Callable[..., R]:
    """Add ``--repo``, ``--password-file``, ``--password-command`` and ``--config``; the command gets ``repository``.

    The first that names a place wins: the options, the environment (VCBPROXY_REPO, VCBPROXY_PASSWORD_FILE,
    VCBPROXY_PASSWORD_COMMAND), the configuration.
    """
    return _with_repository(command, _resolve)


def optional_repository_options(command: Callable[P, R]) -> Callable[..., R]:
    """As ``repository_options``; ``repository`` is None when no place is named: the command may do without."""

    def resolve(
        repo: str | None, password_file: Path | None, password_command: str | None, config: configuration.Config
    ) -> RepositoryAddress | None:
        if not (repo or config.repository):
            return None
        return _resolve(repo, password_file, password_command, config)

    return _with_repository(command, resolve)


def required(repository: RepositoryAddress | None) -> RepositoryAddress:
    """The repository, where a command cannot do without after all.

    Raises:
        ConfigError: none is named.
    """
    return repository or _resolve(None, None, None, configuration.Config())


def _with_repository(
    command: Callable[P, R],
    resolve: Callable[[str | None, Path | None, str | None, configuration.Config], RepositoryAddress | None],
) -> Callable[..., R]:

    @click.option("--repo", envvar="VCBPROXY_REPO", metavar="DIR|s3:URL", help="Repository; $VCBPROXY_REPO.")
    @click.option(
        "--password-file",
        type=click.Path(path_type=Path),
        envvar="VCBPROXY_PASSWORD_FILE",
        help="File with the repository's password; $VCBPROXY_PASSWORD_FILE.",
    )
    @click.option(
        "--password-command",
        envvar="VCBPROXY_PASSWORD_COMMAND",
        metavar="COMMAND",
        help="Command that prints the repository's password; $VCBPROXY_PASSWORD_COMMAND.",
    )
    @click.option("--no-cache", is_flag=True, help="Keep and use no local copies of what is read often.")
    @frame.config_option
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        no_cache: bool,
        repo: str | None,
        password_file: Path | None,
        password_command: str | None,
        config: configuration.Config,
        **kwargs: Any,
    ) -> R:
        address = resolve(repo, password_file, password_command, config)
        if no_cache and address is not None:
            address = replace(address, cache=address.cache.model_copy(update={"enabled": False}))
        kwargs["repository"] = address
        if "config" in wanted:
            kwargs["config"] = config
        return command(*args, **kwargs)

    wanted = inspect.signature(command).parameters
    return wrapped


def _resolve(
    repo: str | None, password_file: Path | None, password_command: str | None, config: configuration.Config
) -> RepositoryAddress:
    known = config.repository
    location = repo or (known.location if known else None)
    if not location:
        raise ConfigError(
            "no repository named: give --repo DIR or s3:URL, set VCBPROXY_REPO, or write [repository] in the "
            "configuration"
        )
    if password_file is not None and password_command is not None:
        raise ConfigError("give --password-file or --password-command, not both")
    if password_file is not None or password_command is not None:
        secret = configuration.Secret(password_file=password_file, password_command=password_command)
    elif known is not None:
        secret = configuration.Secret(
            password_file=known.password_file,
            password_command=known.password_command,
            password_credential=known.password_credential,
        )
    else:
        secret = configuration.Secret()
    if known is None:
        return RepositoryAddress(location, secret)
    # How another repository is used must not be taken from this one; the line to it may be the same.
    same = location == known.location
    s3 = known.s3 if same else configuration.S3()
    prune = known.prune if same else configuration.Prune()
    return RepositoryAddress(location, secret, s3, known.traffic, known.cache, prune)
