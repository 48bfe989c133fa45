"""What a preflight asks the manager: its time, and which snapshots of ours exist in the whole inventory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pyVmomi import vim

from vcbproxy.manager import convert, properties
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session


@dataclass(frozen=True, slots=True)
class MarkedSnapshot:
    """A VM that has a snapshot with our marker, of whatever job run."""

    vm: str
    name: str
    created: datetime
    marker: Marker


def current_time(session: Session) -> datetime:
    """The time of day by the manager's clock."""
    return convert.utc(session.read(lambda wire: wire.instance.CurrentTime()))


def marked_snapshots(session: Session) -> list[MarkedSnapshot]:
    """All snapshots with our marker, oldest first; one call a page for the whole inventory."""
    rows = session.read(lambda wire: properties.of_all(wire, vim.VirtualMachine, ("name", "snapshot")))
    found = []
    for row in rows:
        for tree in properties.snapshot_trees(row.get("snapshot")):
            marker = Marker.read(tree.description)
            if marker is not None:
                vm = convert.unescaped(row.need("name"))
                found.append(MarkedSnapshot(vm, tree.name, convert.utc(tree.createTime), marker))
    return sorted(found, key=lambda snapshot: snapshot.created)
