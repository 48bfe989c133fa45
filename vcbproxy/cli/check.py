"""``vcbproxy check``: the preflight, which names the real cause before a night's backup finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from jobs import preflight
from jobs.preflight import Level, Result
from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.errors import ConfigError, Error

if TYPE_CHECKING:
    from vcbproxy.manager.session import Session


@click.command(cls=frame.Command, exit_codes=(4, 10, 11, 12), examples=("vcbproxy check && vcbproxy backup --all",))
@frame.config_option
@frame.json_option
def check(config: Config, as_json: bool) -> None:
    """Check that everything is there that a backup needs: manager, LUNs, datastores, repository.

    All checks are made, whatever fails. The exit code is that of the first failure.
    """
    results = list(_results(config))
    frame.emit(
        [{"check": result.check, "result": result.level.value, "detail": result.detail} for result in results],
        as_json=as_json,
        columns=("check", "result", "detail"),
    )
    failed = [result for result in results if result.level is Level.FAILED]
    if failed:
        raise Failed(failed)


class Failed(Error):
    """Some check failed; has the exit code of the first."""

    def __init__(self, failed: list[Result]) -> None:
        super().__init__(
            f"{frame.counted(len(failed), 'check')} failed: {', '.join(result.check for result in failed)}"
        )
        self.exit_code = failed[0].exit_code or 1  # type: ignore[misc]  # this one has its failure's


def _results(config: Config) -> Iterator[Result]:
    from vcbproxy.cli import connect
    from vcbproxy.clock import SystemClock
    from vcbproxy.san import discover

    yield from _guarded("LUNs", lambda: preflight.luns(discover.listed(config.san)))
    with ExitStack() as stack:
        try:
            session = stack.enter_context(connect.to_manager(config))
        except Error as error:
            yield Result("manager", Level.FAILED, str(error), error.exit_code)
        else:
            about = session.about
            yield Result("manager", Level.OK, f"{about.full_name}, API {about.api_version}, at {session}")
            yield from _guarded("clocks", lambda: iter([preflight.clock_skew(session, SystemClock())]))
            yield from _guarded("virtual machines", lambda: preflight.machines(session))
            yield from _guarded("datastores", lambda: _datastores(config, session))
    yield from _repository(config)


def _guarded(check: str, results: Callable[[], Iterator[Result]]) -> Iterator[Result]:
    """One group of checks; an error that stops the group is its last result."""
    try:
        yield from results()
    except Error as error:
        yield Result(check, Level.FAILED, str(error), error.exit_code)


def _datastores(config: Config, session: Session) -> Iterator[Result]:
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory

    names = [datastore.name for datastore in inventory.datastores(session)]
    with connect.storage(config, session) as storage:
        yield from preflight.datastores(storage, names)


def _repository(config: Config) -> Iterator[Result]:
    from vcbproxy.repository.target import RepositoryTarget

    if config.repository is None:
        error = ConfigError("no repository: write [repository] in the configuration")
        yield Result("repository", Level.FAILED, str(error), error.exit_code)
        return
    address = frame.RepositoryAddress(config.repository.location, config.repository)
    yield preflight.repository(lambda: RepositoryTarget(address.open(), lock=False))
