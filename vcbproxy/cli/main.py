"""The program ``vcbproxy``: finds the command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import logging
import os
import sys
from collections.abc import Sequence

import click

from vcbproxy import errors
from vcbproxy.cli import interruption
from vcbproxy.cli.lazy import LazyGroup

_COMMANDS = {
    "restore": "Bring a restore point's disks back as raw files.",
    "backup": "Back up virtual machines straight off the SAN.",
    "copy": "Copy restore points from the repository onto tape.",
    "verify": "Re-read restore points and prove that they restore.",
    "points": "Restore points in the repository.",
    "forget": "Forget restore points by rule, and say why each stays or goes.",
    "check": "Preflight: is everything there that a backup needs?",
    "cleanup": "Remove VM snapshots that a backup left behind.",
    "vm": "Virtual machines as the manager knows them.",
    "lun": "LUNs this proxy sees, and the volumes on them.",
    "vmfs": "Look into VMFS volumes with no manager at hand.",
    "repo": "Create, check, prune and unlock repositories.",
    "tape": "Libraries, their drives and robots; LTFS volumes, ours or anybody's.",
    "lab": "A datacenter in a folder, to try everything out.",
}


@click.group(
    cls=LazyGroup,
    package="vcbproxy.cli",
    summaries=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="vcbproxy", message="vcbproxy %(version)s")
def program() -> None:
    """LAN-free backup of VMware virtual machines, straight off the SAN.

    Reads the disks of snapshotted VMs from the VMFS on shared LUNs and keeps them in a repository that every stock
    restic can check, mount and restore.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit with the code of what happened."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in asked
    if arguments is None:
        _start_light()
        _spell_out_what_the_locale_lacks()
    logging.basicConfig(level=logging.WARNING, handlers=[_Lines()])
    try:
        with interruption.raised():
            code = program.main(asked, prog_name="vcbproxy", standalone_mode=False)
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except (errors.Error, errors.Cancelled) as error:
        _report(error, error.exit_code, as_json=as_json)
    except click.exceptions.Abort:
        _report(errors.Cancelled(), errors.Cancelled.exit_code, as_json=as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show(sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _report(errors.UsageError(_with_help(error)), error.exit_code, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to tell anyone, and nothing left to flush.
        _let_go_of_stdout()
        sys.exit(1)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _report(errors.Error(f"{what}{error.strerror or error}"), errors.Error.exit_code, as_json=as_json)


def _start_light() -> None:
    """Save what the interpreter and numpy would do for nothing: a quarter of a second of every run of the program."""
    # Numpy's linear algebra, of which we use none, starts a thread per processor that spins for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Importing makes a hundred thousand objects, all of which stay: looking for garbage among them each 700, and once
    # more at the very end, takes longer than `vm list` itself; each 50,000, still 26 ms of every backup.
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)


def _spell_out_what_the_locale_lacks() -> None:
    """A VM's name may have signs that neither ASCII nor Latin-1 knows; that ends no command in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Lines(logging.Handler):
    """What the modules below log goes to stderr, a line each, above any bar; what repeats itself is said once."""

    _last = ""

    def emit(self, record: logging.LogRecord) -> None:
        from vcbproxy.cli.progress import Terminal

        message = record.getMessage()
        if message != self._last:
            self._last = message
            Terminal().said(f"vcbproxy: {message}")


def _with_help(error: click.ClickException) -> str:
    """The complaint as a sentence of ours, and where to look it up."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "vcbproxy"
    return f"{message[:1].lower()}{message[1:]} (see `{path} --help`)"


def _let_go_of_stdout() -> None:
    """Nothing more gets out there; without this the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: errors.Error | errors.Cancelled, code: int, *, as_json: bool) -> None:
    try:
        if sys.stdout is not None:  # `>&-`
            sys.stdout.flush()
    except (OSError, ValueError):  # it may be the very error: Python 3.11.2 then ends with 120, whatever we say
        _let_go_of_stdout()
    from vcbproxy.cli.frame import printable

    notes = getattr(error, "__notes__", [])
    if as_json:
        kind = type(error).__name__
        lines = [json.dumps({"error": kind, "message": str(error), "notes": notes, "exit_code": code})]
    else:
        lines = [printable(" ".join(text.split("\n"))) for text in (f"vcbproxy: {error}", *notes)]
    with contextlib.suppress(OSError):  # nobody may be left to read it; the exit code remains
        click.echo("\n".join(lines), err=True)
    sys.exit(code)
