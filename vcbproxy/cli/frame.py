"""What every command shares: its help, the options that all have, its output, and where the configuration comes from.

A command's result goes to stdout through ``emit`` (JSON or a table); everything else is said on stderr through ``say``.
Options become small frozen values at once; no click context is handed inward.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from vcbproxy import config as configuration
from vcbproxy.errors import Error

P = ParamSpec("P")
R = TypeVar("R")

CONFIG_VARIABLE = "VCBPROXY_CONFIG"
_WHOLE = 1000  # signs
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse options without anything in them: ``--to "$TARGET"`` must not mean the working directory.

        Raises:
            click.BadParameter: one is empty.
        """
        given = list(args)
        rest = super().parse_args(ctx, args)
        values, _, _ = self.make_parser(ctx).parse_args(given)
        for param in self.params:
            value = values.get(param.name or "")
            if isinstance(param, click.Option) and (value == "" or (isinstance(value, list) and "" in value)):
                raise click.BadParameter("it is empty; was a variable not set?", ctx=ctx, param=param)
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples and exit codes below the options."""
        super().format_epilog(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self._examples))
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), EXIT_CODES[code]) for code in self._exit_codes])


class Group(click.Group):
    """A group whose help lists each command with its first sentence, whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.get_short_help_str(_WHOLE)) for name, found in commands if found])


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
        line = json.dumps(row, ensure_ascii=_ascii(), default=str)
    else:
        line = "  ".join(_shown(row[name]) for name in columns if row[name] not in (None, []))
    with _written_out():
        sys.stdout.write(line + "\n")


@contextmanager
def _written_out() -> Iterator[None]:
    """See what is printed out of our hands; what stands in its way becomes ours, but for a reader that went away."""
    if sys.stdout is None:  # `>&-`
        raise Error("cannot write the result to standard output: it is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Error(f"cannot write the result to standard output: {error.strerror}") from error


def _print(rows: Any, as_json: bool, columns: Sequence[str], columns_if_any: Sequence[str]) -> None:
    if as_json:
        json.dump(rows, sys.stdout, indent=2, ensure_ascii=_ascii(), default=str)
        sys.stdout.write("\n")
    elif isinstance(rows, Mapping):
        _print_table(["", ""], [[str(key), _shown(value)] for key, value in rows.items()], header=False)
    else:
        listed = list(rows)
        names = list(columns) or (list(listed[0]) if listed else [])
        names += [name for name in columns_if_any if any(row.get(name) for row in listed)]
        _print_table(names, [[_shown(row.get(name)) for name in names] for row in listed], header=True)


def _ascii() -> bool:
    """Whether JSON must do without all other signs: the locale is one that has not all of them."""
    return (sys.stdout.encoding or "utf-8").lower() not in ("utf-8", "utf8")


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
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        padded = "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(padded.rstrip() + "\n")


def _width(text: str) -> int:
    """How many columns of a terminal it takes: signs of East Asia two, accents that are composed none."""
    if text.isascii():
        return len(text)
    import unicodedata

    marks = sum(unicodedata.combining(sign) > 0 for sign in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)


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


def on_terminal() -> bool:
    """Whether a person watches stderr, so that bars may move there."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
