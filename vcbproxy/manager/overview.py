"""What the manager tells of the whole inventory at once: its time, and the VMs on which something of ours was left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyVmomi import vim

from vcbproxy.manager import convert, properties
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session

_PATHS = ("name", "snapshot", "runtime.consolidationNeeded")


@dataclass(frozen=True, slots=True)
class MarkedSnapshot:
    """A snapshot with our marker, of whatever job run."""

    name: str
    created: datetime
    marker: Marker


@dataclass(frozen=True, slots=True)
class Leftover:
    """A VM that has snapshots with our marker, or disks that need consolidation (because of whomever).

    Attributes:
        snapshots: those with our marker, oldest first.
        untold: why the manager does not tell of its snapshots; there may be some.
    """

    moref: str
    name: str
    snapshots: tuple[MarkedSnapshot, ...] = ()
    consolidation_needed: bool = False
    untold: str | None = None


def current_time(session: Session) -> datetime:
    """The time of day by the manager's clock."""
    return convert.utc(session.read(lambda wire: wire.instance.CurrentTime()))


def leftovers(session: Session) -> list[Leftover]:
    """All VMs on which there is something to look at, by name; one call a page for the whole inventory."""
    rows = session.read(lambda wire: properties.of_all(wire, vim.VirtualMachine, _PATHS))
    found = [_leftover(row) for row in rows]
    there = [vm for vm in found if vm.snapshots or vm.consolidation_needed or vm.untold]
    return sorted(there, key=lambda vm: (vm.name, vm.moref))


def _leftover(row: properties.Row) -> Leftover:
    marked = []
    for tree in properties.snapshot_trees(row.get("snapshot")):
        marker = Marker.read(tree.description)
        if marker is not None:
            marked.append(MarkedSnapshot(tree.name, convert.utc(tree.createTime), marker))
    return Leftover(
        moref=row.moref,
        name=convert.unescaped(row.get("name") or row.moref),  # not to be told is no reason to stop a backup of others
        snapshots=tuple(sorted(marked, key=lambda snapshot: snapshot.created)),
        consolidation_needed=bool(row.get("runtime.consolidationNeeded")),
        untold=row.missing.get("snapshot"),
    )


def managing_vcenters(session: Session) -> list[str]:
    """The addresses of vCenters that manage the hosts we see: for an ESXi host, whether it is in one's hands."""
    path = "summary.managementServerIp"
    rows = session.read(lambda wire: properties.of_all(wire, vim.HostSystem, [path]))
    return sorted({str(row.get(path)) for row in rows if row.get(path)})


def committed_bytes(session: Session) -> dict[str, int]:
    """How much each VM takes on its datastores, by moref; VMs of which that is not told are not in it."""
    path = "summary.storage.committed"
    rows = session.read(lambda wire: properties.of_all(wire, vim.VirtualMachine, [path]))
    return {row.moref: int(row.get(path)) for row in rows if row.get(path) is not None}
