"""``vcbproxy backup --dry-run``: each disk that would be read, from which LUN, and what stands in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.errors import UsageError
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.manager.vm import Vm
    from vcbproxy.source.storage import Storage


def show(wanted: tuple[str, ...], config: Config, as_json: bool, *, standing: bool) -> None:
    """Print what would be read, and from where; nothing is changed.

    Args:
        wanted: selectors; none for all VMs.
        config: whose manager is asked.
        as_json: JSON, not a table.
        standing: which VMs is the configuration's to say: one that is not there is a row, and no error.

    Raises:
        Partial: some VM or disk cannot be backed up.
        UsageError: a selector that was given means nothing.
    """
    from jobs import backup as job
    from vcbproxy.cli import connect
    from vcbproxy.errors import Partial, SourceError
    from vcbproxy.manager import inventory
    from vcbproxy.manager.choice import refuse

    rows: list[dict[str, Any]] = []

    def unmet(selector: str, error: UsageError) -> None:
        rows.append(_unplanned(selector, str(error)))

    with connect.to_manager(config) as session, connect.storage(config, session) as storage:
        for chosen in inventory.chosen(session, wanted, unmet=unmet if standing else refuse):
            try:
                rows += _planned(job.described(session, chosen), storage)
            except SourceError as error:
                rows.append(_unplanned(chosen.name, str(error)))
    columns = ("vm", "disk", "size", "path", "luns", "readable")
    frame.emit(rows, as_json=as_json, columns=columns, columns_if_any=("reason",))
    lost = [row for row in rows if row["disk"] is None]
    unreadable = [row for row in rows if row["disk"] is not None and not row["readable"]]
    if lost:
        raise Partial(f"cannot be backed up: {', '.join(row['vm'] for row in lost)}")
    if unreadable:
        raise Partial(f"{len(unreadable)} of {len(rows)} disks cannot be read off the SAN by this proxy")


def _planned(vm: Vm, storage: Storage) -> list[dict[str, Any]]:
    from jobs.eligibility import refusals

    refused = refusals(vm.disks, storage)
    return [
        {
            "vm": vm.name,
            "disk": disk.key,
            "size": human(disk.capacity_bytes),
            "size_bytes": disk.capacity_bytes,
            "path": str(disk.path),
            "luns": [lun.name for lun in storage.seen_by([disk]).place(disk.path.datastore).luns],
            "readable": disk.key not in refused,
            "reason": refused.get(disk.key),
        }
        for disk in vm.disks
    ]


def _unplanned(vm: str, reason: str) -> dict[str, Any]:
    """A VM that is meant, and cannot be backed up: it is shown, since a backup would fail it."""
    unknown: dict[str, Any] = dict.fromkeys(("disk", "size", "size_bytes", "path"))
    return {"vm": vm, **unknown, "luns": [], "readable": False, "reason": reason}
