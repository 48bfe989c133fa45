"""``vcbproxy forget``: take restore points off the list, by rule or by name, and say why each stays or goes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from vcbproxy.cli import address, archiving, frame
from vcbproxy.config import Config, Prune, Retention
from vcbproxy.errors import Cancelled, ConfigError, Error, TargetError, UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

    from jobs.forget import Decision, Outcome
    from jobs.retention import Rule, Verdict
    from vcbproxy.repository.lock import HeldLock
    from vcbproxy.repository.repository import Repository

P = ParamSpec("P")
R = TypeVar("R")

_GOES_WITH_ITS_SET = (
    "what is on tape goes with its media set, in its time (`vcbproxy points show --on tape`); before, only a whole "
    "cartridge is given up, by `vcbproxy tape media release`"
)
_COUNTS = {
    "last": "the newest N",
    "hourly": "the newest of each hour, for N hours that have one",
    "daily": "the newest of each day, for N days",
    "weekly": "the newest of each ISO week, for N weeks",
    "monthly": "the newest of each month, for N months",
    "yearly": "the newest of each year, for N years",
}
_LENGTHS = {
    "within": "all of this time before the newest: 1y6m30d12h",
    "within_hourly": "the newest of each hour of this time",
    "within_daily": "the newest of each day of this time",
    "within_weekly": "the newest of each ISO week of this time",
    "within_monthly": "the newest of each month of this time",
    "within_yearly": "the newest of each year of this time",
}


def _keep_options(command: Callable[P, R]) -> Callable[..., R]:
    """Add the rules' options; the command gets ``keep``, those that were given by name."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> R:
        given = {name: kwargs.pop(f"keep_{name}") for name in (*_COUNTS, *_LENGTHS)}
        return command(*args, keep={name: value for name, value in given.items() if value is not None}, **kwargs)  # type: ignore[arg-type]

    for name, what in reversed({**_COUNTS, **_LENGTHS}.items()):
        metavar = "N" if name in _COUNTS else "DURATION"
        option = click.option(f"--keep-{name.replace('_', '-')}", metavar=metavar, help=f"Keep {what}.")
        wrapped = option(wrapped)
    return wrapped


@click.command(
    cls=frame.Command,
    exit_codes=(4, 10, 11, 12),
    examples=(
        "vcbproxy forget --dry-run                  by [retention] of the configuration",
        "vcbproxy forget --keep-daily 14 --keep-weekly 8 --keep-within 3d --prune",
        "vcbproxy forget --vm 'test-*' --keep-last 3",
        "vcbproxy forget web01@2026-11-22T01:00:00Z",
        "vcbproxy forget old01@all --even-the-last old01       a VM that is no more",
    ),
)
@click.argument("named", metavar="[POINT]...", nargs=-1)
@_keep_options
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="Only of this VM: name, pattern or instance UUID.")
@click.option("--time-zone", metavar="ZONE", help="Whose midnights part the days: Europe/Berlin.  [this machine's]")
@click.option(
    "--even-the-last", multiple=True, metavar="VM", help="With POINT: also when no good one of this VM is left then."
)
@click.option("--prune", is_flag=True, help="Then remove what no restore point needs, as `vcbproxy repo prune` does.")
@click.option("--dry-run", is_flag=True, help="Only say what would stay and what would go.")
@address.repository_options
@frame.json_option
def forget(
    named: tuple[str, ...],
    keep: dict[str, str],
    vms: tuple[str, ...],
    time_zone: str | None,
    even_the_last: tuple[str, ...],
    prune: bool,
    dry_run: bool,
    repository: address.RepositoryAddress,
    config: Config,
    as_json: bool,
) -> None:
    """Forget restore points by rule, of each VM by itself, or those that are named; and say why.

    Rules on the command line replace those of [retention]. N may be `unlimited`. What is pinned, dated in the future or
    a VM's last good restore point stays. Space comes back with --prune or `vcbproxy repo prune`.

    POINT is web01@latest, web01@2026-11-22 (or down to the second), web01@all, or the beginning of an id.
    """
    from jobs import forget as job
    from vcbproxy.clock import SystemClock

    now = SystemClock().now()
    zone = _zone(time_zone or config.retention.time_zone)
    decide: Decision
    if named:
        if keep or vms:
            raise UsageError("name restore points or give --keep-... and --vm, not both")
        decide = job.by_name(named, even_the_last, now=now)
    else:
        if even_the_last:
            raise UsageError("--even-the-last goes with named restore points: no rule forgets a VM's last good one")
        decide = job.by_rule(_rule(keep, config.retention), vms, now=now, zone=zone)
    opened = repository.open()
    if dry_run:
        with archiving.or_on_tape(config, _GOES_WITH_ITS_SET):
            outcome = job.dry_run(opened, decide)
        _show(outcome, None, zone, dry_run, as_json)
        _insist(outcome, named)
        return
    with opened.locked(exclusive=True) as held:
        with archiving.or_on_tape(config, _GOES_WITH_ITS_SET):
            outcome = job.carry_out(opened, held, decide)
        freed, error = (
            _pruned(opened, held, repository.prune) if prune and outcome.error is None else (None, outcome.error)
        )
    _show(outcome, freed, zone, dry_run, as_json)
    if error is not None:
        raise error
    _insist(outcome, named)


def _insist(outcome: Outcome, named: Sequence[str]) -> None:
    """What was named and stays is a failure, whatever holds it."""
    stays = [f"{verdict.point.name} is {verdict.reasons[0]}" for verdict in outcome.verdicts if verdict.keep]
    if named and stays:
        raise TargetError(f"not forgotten: {'; '.join(stays)}")


def _rule(keep: Mapping[str, str], configured: Retention) -> Rule:
    """The rule on the command line, or else the configured one."""
    from jobs.retention import Duration, Rule

    given: Mapping[str, Any] = keep or {name: getattr(configured, f"keep_{name}") for name in (*_COUNTS, *_LENGTHS)}
    parts: dict[str, Any] = {
        name: _count(name, str(value)) if name in _COUNTS else Duration.parse(value)
        for name, value in given.items()
        if value is not None
    }
    rule = Rule(**parts)
    if rule.empty:
        raise UsageError("no rule says what to keep: give --keep-daily, --keep-within, ..., or configure [retention]")
    return rule


def _count(name: str, text: str) -> int:
    from jobs.retention import UNLIMITED

    if text == "unlimited":
        return UNLIMITED
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f"--keep-{name} {text!r}: give a number or `unlimited`")


def _zone(name: str | None) -> tzinfo:
    from zoneinfo import ZoneInfo

    from vcbproxy.clock import local_zone

    try:
        return ZoneInfo(name) if name else local_zone(os.environ)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigError(
            f"no time zone {name or 'of this machine'!r} ({error}); give --time-zone Europe/Berlin"
        ) from error


def _pruned(
    opened: Repository, held: HeldLock, configured: Prune
) -> tuple[dict[str, Any] | None, Error | Cancelled | None]:
    """Prune; an error waits until what was forgotten is told."""
    from vcbproxy.cli import prune
    from vcbproxy.cli.progress import stages
    from vcbproxy.repository.prune import prune as pruning

    try:
        with stages(in_bytes={"repack"}) as progress:
            outcome = pruning.prune(opened, held, prune.options_of(configured), progress=progress)
    except (Error, Cancelled) as error:
        return None, error
    return prune.row(opened.location, outcome, dry_run=False), None


def _show(outcome: Outcome, freed: dict[str, Any] | None, zone: tzinfo, dry_run: bool, as_json: bool) -> None:
    rows = [_row(verdict, outcome, dry_run) for verdict in outcome.verdicts]
    if as_json:
        frame.emit({"points": rows, "prune": freed}, as_json=True)
        return
    ordered = sorted(rows, key=lambda row: (row["vm"], row["instance_uuid"], row["time"]))
    frame.emit(ordered, as_json=False, columns=("vm", "point", "time", "action", "reasons"), columns_if_any=("policy",))
    going = sum(not verdict.keep for verdict in outcome.verdicts)
    kept = len(rows) - going
    done = "would be" if dry_run else "were"
    frame.say(
        f"{kept} kept, {frame.counted(going, 'restore point')} {done} forgotten; days begin at midnight in {zone}"
    )
    if any(row["reasons"] == ["in the future"] for row in rows):
        frame.say(
            "some are dated in the future: they were counted by no rule; look at the clocks, and at who made them"
        )
    if outcome.hurt:
        number = len(outcome.hurt)
        frame.say(
            f"{number} of them need data that were found damaged, and count as suspect: see `vcbproxy repo check`"
        )
    if freed is not None:
        from vcbproxy.cli import prune

        prune.tell(freed)
    elif going and dry_run:
        frame.say("what a prune would give back shows once they are forgotten: `vcbproxy repo prune --dry-run`")
    elif going:
        frame.say("`vcbproxy repo prune` gives their space back")


def _row(verdict: Verdict, outcome: Outcome, dry_run: bool) -> dict[str, Any]:
    point = verdict.point
    if verdict.keep:
        action = "keep"
    elif dry_run:
        action = "forget"
    else:
        action = "forgotten" if point.id in outcome.forgotten else "FAILED"
    return {
        "vm": point.vm,
        "instance_uuid": point.instance_uuid,
        "point": point.short_id,
        "point_id": point.id,
        "time": point.name.rpartition("@")[2],
        "policy": point.policy or None,
        "action": action,
        "reasons": list(verdict.reasons),
    }
