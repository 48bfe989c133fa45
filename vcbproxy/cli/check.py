"""``vcbproxy check``: the preflight, which names the real cause before a night's backup finds it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from jobs.preflight.result import Level, Result, broken, failed, guarded
from vcbproxy.cli import address, frame
from vcbproxy.config import Config
from vcbproxy.errors import ConfigError, Error

if TYPE_CHECKING:
    from jobs.preflight.survey import Seen
    from vcbproxy.manager.session import Session

_MARKS = {Level.OK: ("✔", "green"), Level.WARNING: ("!", "yellow"), Level.FAILED: ("✘", "red")}


@click.command(cls=frame.Command, exit_codes=(4, 10, 11, 12), examples=("vcbproxy check && vcbproxy backup --all",))
@address.optional_repository_options
@frame.json_option
def check(repository: address.RepositoryAddress | None, config: Config, as_json: bool) -> None:
    """Check that all is there that a backup needs: manager, privileges, LUNs, datastores, tape, repository.

    All checks are made, whatever fails, and nothing is changed. It is about the VMs under [backup] vms; without any,
    about all. The exit code is that of the first failure; warnings have none.
    """
    results = list(_results(config, repository))
    if as_json:
        frame.emit([_row(result) for result in results], as_json=True)
    else:
        _show(results)
    bad = [result for result in results if result.level is Level.FAILED]
    if bad:
        raise Failed(bad)


class Failed(Error):
    """Some check failed; has the exit code of the first."""

    def __init__(self, bad: list[Result]) -> None:
        names = ", ".join(dict.fromkeys(result.check for result in bad))
        super().__init__(f"{frame.counted(len(bad), 'check')} failed: {names}")
        self.exit_code = bad[0].exit_code or 1  # type: ignore[misc]  # this one has its failure's


def _row(result: Result) -> dict[str, str]:
    return {
        "check": result.check,
        "result": result.level.value,
        "detail": result.detail,
        "remedy": result.remedy,
    }


def _show(results: Sequence[Result]) -> None:
    """A line for each check, and one for what to do where something is; marks and colours on a terminal only."""
    watched = sys.stdout.isatty()
    width = max(len(result.check) for result in results)
    for result in results:
        mark, colour = _MARKS[result.level]
        sign = click.style(mark, fg=colour, bold=True) if watched else f"{result.level.value:7}"
        click.echo(f"{sign}  {frame.printable(result.check):{width}}  {frame.printable(result.detail)}")
        if result.remedy:
            indent = 1 if watched else 7
            click.echo(f"{'':{indent}}  {'':{width}}  -> {frame.printable(result.remedy)}")


def _results(config: Config, repository: address.RepositoryAddress | None) -> Iterator[Result]:
    from jobs.preflight import repository as stored
    from jobs.preflight import storage
    from jobs.preflight.survey import Seen
    from vcbproxy.san.opened import OpenLuns

    with ExitStack() as stack:
        session, said = _session(config, stack)
        yield from said
        seen, opened = Seen(), stack.enter_context(OpenLuns(config.san.read_timeout_s))
        if session is not None:
            yield from _at_manager(config, session, seen)
        yield from guarded("LUNs", lambda: storage.luns(config.san, seen.luns(config.san), opened))
        if session is not None:
            at = session
            yield from guarded("datastores", lambda: seen.datastores(at, config.san, opened))
    if config.tape.library:
        from jobs.preflight import tapes
        from vcbproxy.cli.shelves import state_directory

        yield from tapes.looked_at(config.tape.library, state_directory(config))
    try:
        named = address.required(repository)
    except ConfigError as error:
        yield broken("repository", error)
        return
    yield from guarded("repository", lambda: stored.repository(named.open, seen.held_bytes))


def _session(config: Config, stack: ExitStack) -> tuple[Session | None, list[Result]]:
    """A session, or why there is none."""
    from jobs.preflight import manager
    from vcbproxy.cli import connect
    from vcbproxy.clock import SystemClock

    clock = SystemClock()
    try:
        session = stack.enter_context(connect.to_manager(config))
    except Error as error:
        if config.manager is None:
            return None, [failed("manager", str(error), "see docs/configuration.md", error.exit_code)]
        return None, list(manager.unreachable(config.manager, error, clock))
    assert config.manager is not None
    settings = config.manager
    return session, list(guarded("manager", lambda: manager.reached(settings, session, clock)))


def _at_manager(config: Config, session: Session, seen: Seen) -> Iterator[Result]:
    """What the manager tells, each group on its own."""
    from jobs.cleanup import Cleanup, Rules
    from jobs.preflight import machines
    from vcbproxy.cli import connect
    from vcbproxy.clock import SystemClock

    def left() -> Iterator[Result]:
        cleanup = Cleanup(session, connect.registry(config), Rules(), SystemClock())
        return machines.leftovers(session, cleanup)

    groups: tuple[tuple[str, Callable[[], Iterator[Result]]], ...] = (
        ("virtual machines", lambda: seen.look(session, config.backup.vms)),
        ("privileges", lambda: machines.permitted(session, seen.chosen)),
        ("privileges", lambda: machines.trackable(session, seen.vms, config.backup)),
        ("our VM snapshots", left),
    )
    for name, group in groups:
        yield from guarded(name, group)
