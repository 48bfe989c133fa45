"""``vcbproxy backup``: virtual machines, off the SAN, into a repository or onto tape."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from vcbproxy.cli import address, archiving, backupplan, backupreport, frame
from vcbproxy.config import Compression, Config, Mode, Quiesce
from vcbproxy.errors import Cancelled, Error, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.choices import Choices, Surroundings
    from jobs.outcome import Report, VmResult
    from jobs.ownership import JobRun, Registry
    from jobs.target import Target
    from jobs.tracking import Tracking
    from vcbproxy.manager.session import Session
    from vcbproxy.repository.target import RepositoryTarget
    from vcbproxy.source.storage import Storage


@click.command(
    cls=frame.Command,
    exit_codes=(3, 4, 10, 11, 12, 14),
    examples=(
        "vcbproxy backup web01 db01",
        "vcbproxy backup --all --dry-run        what would be read, from which LUN",
        "vcbproxy backup 'folder:/DC0/prod/**' 'not:name:*-test'",
        "vcbproxy backup --all --enable-cbt     the next backups read only what changes",
        "vcbproxy backup --all --mode full      read all, as once in a while one should",
        "vcbproxy backup --all --to tape:daily      straight from the SAN onto tape",
        "vcbproxy backup --all --json > /var/log/vcbproxy-last.json",
    ),
)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Back up every VM that the manager has.")
@click.option(
    "--mode",
    type=click.Choice([value.value for value in Mode]),
    help="What to read: all of each disk, only what changed, or (auto) what changed where that is known.",
)
@click.option(
    "--enable-cbt/--no-enable-cbt",
    default=None,
    help="Let hosts track changes of VMs whose changes are not tracked yet.",
)
@click.option(
    "--audit",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of the unchanged chunks to read and compare all the same: 0.001, 1 for all.",
)
@click.option("--quiesce", type=click.Choice([value.value for value in Quiesce]), help="Ask the guest to come to rest.")
@click.option("--partial", is_flag=True, help="Back up a VM's readable disks when others cannot be read (exit code 3).")
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that digest and compress.")
@click.option(
    "--compression",
    type=click.Choice([value.value for value in Compression]),
    help="How small to make what is stored: less time, or less space.",
)
@click.option("--to", "target", metavar="tape:POOL", help="Onto cartridges of this pool, not into the repository.")
@click.option("--drives", type=click.IntRange(1, 64), default=1, show_default=True, help="With --to: drives at once.")
@click.option("--dry-run", is_flag=True, help="Only say what would be read, and from where.")
@address.optional_repository_options
@frame.json_option
def backup(
    selectors: tuple[str, ...],
    everything: bool,
    mode: str | None,
    enable_cbt: bool | None,
    audit: float | None,
    quiesce: str | None,
    partial: bool,
    workers: int | None,
    compression: str | None,
    target: str | None,
    drives: int,
    dry_run: bool,
    repository: address.RepositoryAddress | None,
    config: Config,
    as_json: bool,
) -> None:
    """Back up virtual machines straight off the SAN.

    Each VM is frozen by a snapshot, its disks are read from the LUNs, and the snapshot is removed, whatever happens.
    A selector is a name, moref, UUID or address of one VM, or means a set: name:web*, folder:/DC0/prod/**, tag:gold,
    powerstate:on, datastore:san*, any:; not: before it takes away. `vcbproxy vm list` shows what selectors mean.
    Without any, those under [backup] vms count.

    Where an earlier restore point is there and the VM's changes are tracked, only what changed is read; a sample of the
    rest is read, too, and compared. On a terminal each step and each disk is shown; elsewhere only what went wrong is
    said on stderr.
    """
    wanted = _wanted(selectors, everything, config)
    standing = not selectors and not everything
    if dry_run:
        backupplan.show(wanted, config, as_json, standing=standing)
        return
    given = _Given(
        quiesce=Quiesce(quiesce) if quiesce else config.backup.quiesce,
        partial=partial,
        workers=workers or config.backup.workers,
        compression=Compression(compression) if compression else config.backup.compression,
        tracking=_tracking(mode, enable_cbt, audit, config),
        standing=standing,
    )
    done: list[VmResult] = []
    try:
        if target is not None:
            report = _run_to_tape(wanted, given, archiving.pool_of(target), drives, config, done.append)
        else:
            report = _run(wanted, given, address.required(repository), config, done.append)
    except (Error, Cancelled):
        if done:  # that is safe, and whoever reads the result wants to know of it
            backupreport.show(done, as_json)
        raise
    backupreport.show(report.results, as_json)
    report.raise_unless_ok()


@dataclass(frozen=True, slots=True)
class _Given:
    """What the options say, and else the configuration; ``standing``: which VMs is the configuration's to say."""

    quiesce: Quiesce
    partial: bool
    workers: int
    compression: Compression
    tracking: Tracking
    standing: bool


def _tracking(mode: str | None, enable: bool | None, audit: float | None, config: Config) -> Tracking:
    from jobs.tracking import Tracking

    known = config.backup
    return Tracking(
        mode=Mode(mode) if mode else known.mode,
        enable=known.enable_cbt if enable is None else enable,
        on_lost=known.on_cbt_lost,
        audit_fraction=known.audit_fraction if audit is None else audit,
        audit_chunks_min=known.audit_chunks_min,
        allocated_only=known.allocated_only,
    )


def _wanted(selectors: tuple[str, ...], everything: bool, config: Config) -> tuple[str, ...]:
    """The selectors that count; none for all VMs."""
    from vcbproxy.manager.selector import Selector

    if everything:
        if not all(Selector.parse(text).excludes for text in selectors):
            raise UsageError("give VMs or --all, not both; beside --all only not:... makes sense")
        return ("any:", *selectors) if selectors else ()
    if not (selectors or config.backup.vms):
        raise UsageError("no VM given: name some, back up all with --all, or write [backup] vms in the configuration")
    return selectors or config.backup.vms


def _run(
    wanted: tuple[str, ...],
    given: _Given,
    repository: address.RepositoryAddress,
    config: Config,
    finished: Callable[[VmResult], None],
) -> Report:
    # Deriving the key from the password takes a fifth of a second, on purpose, and a lock is looked at twice. Loading
    # our modules and logging in take as long: both at the same time. What the key needs is loaded before, since threads
    # that load modules hinder each other, and it is the key that is waited for.
    from vcbproxy.repository import files  # noqa: F401

    with ExitStack() as held, ThreadPoolExecutor(1, "repository") as aside:
        opening = aside.submit(_opened, repository, given.compression, held)
        from jobs import backup as job
        from jobs.intorepository import IntoRepository
        from vcbproxy.cli import connect

        registry = connect.registry(config)
        with (
            registry.begin() as job_run,
            connect.to_manager(config, wait=not frame.on_terminal()) as session,
            connect.storage(config, session) as storage,
        ):
            around = _surroundings(session, storage, IntoRepository(opening.result()), registry, job_run)
            return job.run(around, wanted, _choices(given, config), finished=finished)


def _run_to_tape(
    wanted: tuple[str, ...],
    given: _Given,
    pool: str,
    drives: int,
    config: Config,
    finished: Callable[[VmResult], None],
) -> Report:
    from jobs import backup as job
    from vcbproxy.cli import connect

    registry = connect.registry(config)
    with (
        registry.begin() as job_run,
        connect.to_manager(config, wait=not frame.on_terminal()) as session,
        connect.storage(config, session) as storage,
        archiving.into(config, pool, drives=drives, compression=given.compression) as target,
    ):
        around = _surroundings(session, storage, target, registry, job_run)
        return job.run(around, wanted, _choices(given, config), finished=finished)


def _opened(repository: address.RepositoryAddress, compression: Compression, held: ExitStack) -> RepositoryTarget:
    """The target, locked until ``held`` is closed."""
    opened = repository.open()  # before the modules below: deriving the key goes on while others are loaded
    from vcbproxy.repository.session import WriteOptions
    from vcbproxy.repository.target import RepositoryTarget

    target = RepositoryTarget(opened, WriteOptions(compression=compression))
    held.enter_context(target.locked())
    return target


def _choices(given: _Given, config: Config) -> Choices:
    from jobs.choices import Choices
    from vcbproxy.manager.snapshot import Limits

    limits = Limits(
        create_s=config.backup.quiesce_timeout_s,
        busy_s=config.backup.busy_timeout_s,
        remove_s=config.backup.removal_timeout_s,
    )
    return Choices(
        quiesce=given.quiesce,
        partial=given.partial,
        workers=given.workers,
        limits=limits,
        keep_going=given.standing,
        tracking=given.tracking,
    )


def _surroundings(
    session: Session, storage: Storage, target: Target, registry: Registry, job_run: JobRun
) -> Surroundings:
    from jobs.choices import Surroundings
    from vcbproxy.cli.progress import Terminal
    from vcbproxy.clock import SystemClock

    return Surroundings(
        session=session,
        storage=storage,
        target=target,
        job_run=job_run,
        registry=registry,
        clock=SystemClock(),
        watcher=Terminal(),
    )
