"""What a check says: how it came out, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from vcbproxy.errors import (
    ConfigError,
    CredentialsError,
    DeviceError,
    Error,
    IntegrityError,
    LvmError,
    ManagerError,
    VmfsError,
)
from vcbproxy.manager.faults import Trouble, trouble_of

_NAMED_MAX = 5


class Level(Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Result:
    """One check.

    Attributes:
        detail: what was found, in plain words.
        remedy: what to do about it; empty when nothing is wrong.
        exit_code: that of the error behind a failure.
    """

    check: str
    level: Level
    detail: str
    remedy: str = ""
    exit_code: int = 0


def ok(check: str, detail: str) -> Result:
    """All is well."""
    return Result(check, Level.OK, detail)


def warning(check: str, detail: str, remedy: str) -> Result:
    """A backup will do, but something should be seen to."""
    return Result(check, Level.WARNING, detail, remedy)


def failed(check: str, detail: str, remedy: str, exit_code: int = 1) -> Result:
    """A backup would fail of it, wholly or in part."""
    return Result(check, Level.FAILED, detail, remedy, exit_code)


def broken(check: str, error: Error) -> Result:
    """An error of ours as a result: what it says after the first semicolon is what to do, if it says."""
    if isinstance(error, ConfigError):
        return failed(check, str(error), "correct the configuration", error.exit_code)
    detail, _, remedy = str(error).partition("; ")
    return failed(check, detail, remedy or _usual_remedy(error), error.exit_code)


def _usual_remedy(error: Error) -> str:
    match error:
        case CredentialsError():
            return "correct the user name, or the password in the place that the configuration names"
        case ManagerError() if trouble_of(error) is Trouble.CONNECTION:
            return "look at host and port in [manager], at name service and firewalls, and whether the manager is up"
        case LvmError() | VmfsError() | DeviceError():
            return "see which LUN the array shows to this proxy under that name (docs/operating.md 6)"
        case IntegrityError():
            return "change nothing; `vcbproxy repo check` says what is hurt (docs/operating.md 4.3)"
        case _:
            return "see docs/operating.md 6"


def guarded(check: str, results: Callable[[], Iterable[Result]]) -> Iterator[Result]:
    """A group of checks; an error that stops the group is its last result, and hides no other group."""
    try:
        yield from results()
    except Error as error:
        yield broken(check, error)


def named(names: Iterable[str]) -> str:
    """A few of the names, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED_MAX
    return ", ".join(listed[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
