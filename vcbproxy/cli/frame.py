"""What every command shares: its options, its output, and where the repository and the configuration come from.

A command's result goes to stdout through ``emit`` (JSON or a table); everything else is said on stderr through ``say``.
Options become small frozen values at once; no click context is handed inward.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from vcbproxy import config as configuration
from vcbproxy.clock import SystemClock
from vcbproxy.errors import ConfigError, Error

if TYPE_CHECKING:
    from vcbproxy.repository.backend.base import Backend
    from vcbproxy.repository.repository import Repository

P = ParamSpec("P")
R = TypeVar("R")

CONFIG_VARIABLE = "VCBPROXY_CONFIG"
EXIT_CODES = {
    0: "ok",
    1: "failed",
    2: "usage or configuration",
    3: "partial: some VM or disk failed or was skipped",
    4: "verification failed, data damaged",
    10: "no repository there",
    11: "busy: a lock is held",
    12: "wrong password or login",
    14: "a cartridge is wanted that is not in the library",
    130: "interrupted",
    143: "terminated",
}


class Command(click.Command):
    """A command whose help ends with examples and its exit codes.

    Args:
        exit_codes: those it can end with beside 0, 1, 2, 130 and 143; everything unknown must be taken as failure.
        examples: whole command lines, of at most 76 characters.
    """

    def __init__(self, *args: Any, exit_codes: Sequence[int] = (), examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exit_codes = sorted({0, 1, 2, 130, 143, *exit_codes})
        self._examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and exit codes below the options."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self._examples))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), EXIT_CODES[code]) for code in self._exit_codes])


def json_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add ``--json``: the command gets ``as_json: bool``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)


def emit(rows: Any, *, as_json: bool, columns: Sequence[str] = (), columns_if_any: Sequence[str] = ()) -> None:
    """Print a result on stdout.

    Args:
        rows: a list of mappings, or one mapping; with JSON exactly this is printed, in one document.
        as_json: JSON, not a table.
        columns: the keys shown in a table, in order; all of the first row when empty.
        columns_if_any: further ones, each shown only when some row has something there.

    Raises:
        Error: stdout cannot be written; a reader that went away stays a BrokenPipeError.
    """
    with _written_out():
        _print(rows, as_json, columns, columns_if_any)


def emit_line(row: Mapping[str, Any], *, as_json: bool, columns: Sequence[str]) -> None:
    """Print one row of a result that has no end, at once: a line of JSON, or the columns that have something.

    Raises:
        Error: stdout cannot be written; a reader that went away stays a BrokenPipeError.
    """
    if as_json:
        line = json.dumps(row, ensure_ascii=False, default=str)
    else:
        line = "  ".join(_shown(row[name]) for name in columns if row[name] not in (None, []))
    with _written_out():
        sys.stdout.write(line + "\n")


@contextmanager
def _written_out() -> Iterator[None]:
    """See what is printed out of our hands; what stands in its way becomes ours, but for a reader that went away."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Error(f"cannot write the result to standard output: {error.strerror}") from error


def _print(rows: Any, as_json: bool, columns: Sequence[str], columns_if_any: Sequence[str]) -> None:
    if as_json:
        json.dump(rows, sys.stdout, indent=2, ensure_ascii=False, default=str)
        sys.stdout.write("\n")
    elif isinstance(rows, Mapping):
        _print_table(["", ""], [[str(key), _shown(value)] for key, value in rows.items()], header=False)
    else:
        listed = list(rows)
        names = list(columns) or (list(listed[0]) if listed else [])
        names += [name for name in columns_if_any if any(row.get(name) for row in listed)]
        _print_table(names, [[_shown(row.get(name)) for name in names] for row in listed], header=True)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value) or "-"
    return printable(str(value))


def printable(text: str) -> str:
    """Names come from managers and volumes: none of them may move the cursor or start a line of its own."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _print_table(names: Sequence[str], cells: Iterable[Sequence[str]], *, header: bool) -> None:
    rows = [[name.upper().replace("_", " ") for name in names], *cells] if header else list(cells)
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(padded.rstrip() + "\n")


def say(message: str) -> None:
    """Tell the person at the terminal; never data."""
    click.echo("\n".join(printable(line) for line in message.split("\n")), err=True)


def counted(number: int, thing: str) -> str:
    """``1 disk``, ``2 disks``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def config_option(command: Callable[P, R]) -> Callable[..., R]:
    """Add ``--config FILE``; the command gets ``config: Config``."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar=CONFIG_VARIABLE,
        help=f"Configuration file; ${CONFIG_VARIABLE}, or {configuration.DEFAULT_PATH}.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, config_path: Path | None, **kwargs: Any) -> R:
        kwargs["config"] = _load_config(config_path)
        return command(*args, **kwargs)

    return wrapped


def _load_config(path: Path | None) -> configuration.Config:
    if path is not None:
        return configuration.load(path)
    if configuration.DEFAULT_PATH.exists():
        return configuration.load(configuration.DEFAULT_PATH)
    return configuration.Config()


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
        from vcbproxy.repository.backend import base, compose

        opened = base.open_backend(self.location, s3=self.s3)
        backend = compose.patient(
            opened, self.traffic, SystemClock(), random.Random(), interruption.wanted, watched=on_terminal()
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
    @config_option
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

    import inspect

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


def on_terminal() -> bool:
    """Whether a person watches stderr, so that bars may move there."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
