"""The VMs to be backed up: seen, with the privileges needed, of a kind that can be read, and nothing left on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.cleanup import Action, Cleanup, Finding
from jobs.eligibility import raw_lun_trouble
from jobs.preflight.result import Result, broken, failed, named, ok, warning
from vcbproxy.config import Backup, Mode
from vcbproxy.errors import ManagerError, NothingProtected, SourceError
from vcbproxy.manager import changes, inventory, overview, privileges, tracking
from vcbproxy.manager.disk import Disk, refusal
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Connection, Vm, VmSummary
from vcbproxy.source.storage import Storage


def visible(session: Session, selectors: Sequence[str]) -> tuple[list[VmSummary], list[Result]]:
    """The VMs that a backup would be of.

    Raises:
        UsageError: a selector under [backup] vms means none.
        ManagerError: the manager cannot be asked.
    """
    try:
        chosen = inventory.chosen(session, selectors)
    except NothingProtected as error:
        remedy = "give the role to this user on the VMs' folders or at the top, to be inherited"
        return [], [failed("virtual machines", str(error), remedy)]
    which = "named under [backup] vms" if selectors else "visible"
    return chosen, [ok("virtual machines", f"{len(chosen)} {which}")]


def permitted(session: Session, vms: Sequence[VmSummary]) -> Iterator[Result]:
    """Our user may do what a backup does to each of them."""
    names = {vm.moref: vm.name for vm in vms}
    if not names:
        return
    try:
        lacking = privileges.missing(session, list(names))
    except ManagerError as error:
        yield warning("privileges", f"cannot be told: {error}", f"see that the user has {', '.join(privileges.BACKUP)}")
        return
    if not lacking:
        yield ok("privileges", f"{', '.join(privileges.BACKUP)} on {len(names)} VMs")
    for privilege, morefs in lacking.items():
        where = "all VMs" if len(morefs) == len(names) else named(names[moref] for moref in morefs)
        remedy = "add it to the user's role, and give the role there (docs/operating.md 3.9)"
        yield failed("privileges", f"{privilege} is missing on {where}", remedy)


def trackable(session: Session, vms: Sequence[Vm], settings: Backup) -> Iterator[Result]:
    """Our user may ask what changed, and switch tracking on where that is wanted; else all is read each time."""
    if settings.mode is Mode.FULL:
        return
    untracked = [vm for vm in vms if not vm.change_tracking]
    asked = vms if settings.enable_cbt else [vm for vm in vms if vm.change_tracking]
    wanted = {changes.PRIVILEGE: asked, tracking.PRIVILEGE: untracked if settings.enable_cbt else []}
    for privilege, affected in wanted.items():
        names = {vm.moref: vm.name for vm in affected}
        for morefs in privileges.missing(session, list(names), [privilege]).values() if names else ():
            told = f"{privilege} is missing on {named(names[moref] for moref in morefs)}: they are read whole each time"
            yield warning("privileges", told, "add it to the user's role (docs/operating.md 3.9)")
    for vm in untracked if settings.enable_cbt else ():
        hindrance = tracking.hindrance(vm)
        if hindrance is not None:
            yield warning(f"VM {vm.name}", f"its changes cannot be tracked: {hindrance}", "it is read whole each time")


def readable(vms: Sequence[Vm], storage: Storage) -> Iterator[Result]:
    """Disks that no LUN would help to read, and raw ones whose LUN is not here: each VM that has one is named."""
    for vm in vms:
        reasons = {disk.key: reason for disk in vm.disks if (reason := _refusal(disk, storage)) is not None}
        if reasons:
            told = "; ".join(f"{key}: {reason}" for key, reason in reasons.items())
            remedy = (
                "a backup fails it" if len(reasons) == len(vm.disks) else "`backup --partial` keeps its other disks"
            )
            yield warning(f"VM {vm.name}", told, remedy)
        for disk in vm.disks:
            trouble = raw_lun_trouble(disk, storage) if disk.key not in reasons else None
            if trouble is not None:
                yield broken(f"VM {vm.name}", SourceError(f"{disk.key}: {trouble}"))


def _refusal(disk: Disk, storage: Storage) -> str | None:
    reason = refusal(disk)
    storage = storage.seen_by([disk])
    for name in dict.fromkeys(path.datastore for path in (disk.path, *disk.parents)):
        try:
            reason = reason or refusal(disk, storage.datastore(name))
        except SourceError:
            reason = reason or f"its datastore {name} is not shown to us: is the role given on the datastores, too?"
    return reason


def connected(vms: Sequence[VmSummary]) -> Iterator[Result]:
    """VMs that the manager itself has lost."""
    lost = [f"{vm.name} ({vm.connection.value})" for vm in vms if vm.connection is not Connection.CONNECTED]
    if lost:
        yield warning(
            "lost VMs", named(lost), "bring their hosts or datastores back; until then they cannot be backed up"
        )


def leftovers(session: Session, cleanup: Cleanup) -> Iterator[Result]:
    """Nothing of ours was left behind, and no VM waits for a consolidation."""
    findings = cleanup.survey()
    told = [f"{finding.vm}: {_what(finding)} ({finding.reason})" for finding in findings]
    to_do = [finding for finding in findings if finding.action is not Action.KEEP or finding.overdue]
    if to_do:
        yield warning("our VM snapshots", named(told), "`vcbproxy cleanup`")
    else:
        yield ok("our VM snapshots", named(told) or "none was left behind")
    waiting = [vm.name for vm in overview.leftovers(session) if vm.consolidation_needed]
    if waiting:
        remedy = "Snapshots > Consolidate in the vSphere client: until then each snapshot makes their chains longer"
        yield warning("consolidation", f"needed by {named(waiting)}", remedy)


def _what(finding: Finding) -> str:
    return "its disks" if finding.snapshot is None else repr(finding.snapshot.name)
