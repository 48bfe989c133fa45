"""``vcbproxy cleanup``: what a killed backup left at the manager."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.errors import Partial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.cleanup import Finding


@click.command(
    cls=frame.Command,
    exit_codes=(3, 12),
    examples=(
        "vcbproxy cleanup --dry-run",
        "vcbproxy cleanup web01",
        "vcbproxy cleanup --foreign proxy02 --min-age 48    a proxy that is no more",
    ),
)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--foreign",
    "foreign_hosts",
    metavar="HOST",
    multiple=True,
    help="Also remove what this other proxy left; may be repeated. Be sure that no backup runs there.",
)
@click.option(
    "--min-age",
    "age_h",
    type=click.FloatRange(min=0),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="... but only snapshots this old.",
)
@frame.config_option
@frame.json_option
def cleanup(
    selectors: tuple[str, ...],
    dry_run: bool,
    foreign_hosts: tuple[str, ...],
    age_h: float,
    config: Config,
    as_json: bool,
) -> None:
    """Remove VM snapshots that a backup left behind, and consolidate the disks.

    Only snapshots with our marker are touched, and only when the backup that made them has ended: a lock in the state
    directory tells. Snapshots of other proxies are listed; whether a backup runs there cannot be known from here.
    Selectors are those of `vcbproxy backup`; without any, all VMs are looked at.
    """
    from jobs.cleanup import Action, Cleanup, Rules
    from vcbproxy.cli import connect
    from vcbproxy.clock import SystemClock
    from vcbproxy.manager import inventory

    registry = connect.registry(config)
    with connect.to_manager(config) as session:
        morefs = frozenset(vm.moref for vm in inventory.chosen(session, selectors)) if selectors else None
        rules = Rules(frozenset(foreign_hosts), timedelta(hours=age_h), morefs)
        work = Cleanup(session, registry, rules, SystemClock())
        if not dry_run:
            work.settle()
        findings = work.survey()
        if not dry_run:
            findings = list(work.carry_out(findings))
    _show(findings, as_json)
    left = [finding for finding in findings if finding.action is Action.FAILED or finding.overdue]
    if left:
        names = ", ".join(dict.fromkeys(finding.vm for finding in left))
        raise Partial(f"something of ours is still on: {names}")


def _show(findings: Sequence[Finding], as_json: bool) -> None:
    if not findings and not as_json:
        frame.say("nothing of ours was left behind")
        return
    columns = ("vm", "snapshot", "created", "action", "reason")
    frame.emit([_row(finding) for finding in findings], as_json=as_json, columns=columns)


def _row(finding: Finding) -> dict[str, Any]:
    snapshot, marker = finding.snapshot, finding.marker
    return {
        "vm": finding.vm,
        "moref": finding.moref,
        "snapshot": None if snapshot is None else snapshot.name,
        "created": None if snapshot is None else snapshot.created.isoformat(timespec="seconds"),
        "job_run": None if marker is None else marker.job_run_id,
        "host": None if marker is None else marker.host,
        "action": finding.action.value,
        "reason": finding.reason,
    }
