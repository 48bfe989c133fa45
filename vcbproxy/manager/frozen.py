"""Whether what a snapshot froze is still frozen: the live VM compared with it, after a copy.

    snapshot ours, there? ──no──▶ Thawed       nothing of the VM may be kept, nothing more be read
    its disk: same files? ──no──▶ Changed      Storage vMotion, a parent merged: read again, from where it is now
    the running disk grew out of them, same size? ──no──▶ Diverged    a revert, a resize, a disk taken away

VMotion, DRS and HA move the VM to another host and none of these. A datastore that was only renamed is the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyVmomi import vim

from vcbproxy.errors import Changed, Diverged, Thawed
from vcbproxy.manager import convert, properties, rawlun
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.wire import moref_of

_Place = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Now:
    """What the manager says of the snapshot's disks and of the running VM's, by disk key."""

    vm: str
    frozen: dict[str, Disk]
    live: dict[str, Disk]

    def check(self, disk: Disk) -> None:
        """Hold one disk, as it was when it was opened, to what is now.

        Raises:
            Changed: the snapshot names other files for it: reading ``frozen[disk.key]`` from its start may succeed.
            Diverged: the running VM's disk is no descendant of it any more.
        """
        named = self.frozen.get(disk.key)
        if named is None or named.capacity_bytes != disk.capacity_bytes:
            raise Diverged(file=f"{self.vm} {disk.key}", reason="the snapshot does not name it any more")
        if not _same_files(named, disk):
            now = " on ".join(map(str, (named.path, *named.parents)))
            raise Changed(file=str(disk.path), reason=f"it was moved or merged; it is now {now}")
        if disk.raw_lun is not None and (named.raw_lun is None or named.raw_lun.id != disk.raw_lun.id):
            reason = f"its mapping leads to another LUN now, {named.raw_lun and named.raw_lun.name}"
            raise Changed(file=str(disk.path), reason=reason)
        live = self.live.get(disk.key)
        if live is None:
            raise Diverged(file=f"{self.vm} {disk.key}", reason="the disk was taken from the VM")
        if live.capacity_bytes != disk.capacity_bytes:
            reason = f"the disk was resized from {disk.capacity_bytes} to {live.capacity_bytes} bytes"
            raise Diverged(file=f"{self.vm} {disk.key}", reason=reason)
        if disk.path not in live.parents and _places(disk)[0] not in _places(live)[1:]:
            reason = f"{live.path}, on which it runs now, is no child of {disk.path}: was it reverted?"
            raise Diverged(file=f"{self.vm} {disk.key}", reason=reason)

    def added(self) -> list[Disk]:
        """Disks that the VM got after the snapshot."""
        return [disk for key, disk in self.live.items() if key not in self.frozen]


def look(session: Session, vm: Vm, snapshot: VmSnapshot, marker: Marker) -> Now:
    """Look at the snapshot and its VM now.

    Raises:
        Thawed: the snapshot is not there, or not ours.
        ManagerError: the manager does not tell.
    """
    machine = session.read(
        lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), ["config", "snapshot"])
    )
    trees = {moref_of(tree.snapshot): tree for tree in properties.snapshot_trees(machine.get("snapshot"))}
    tree = trees.get(snapshot.moref)
    if tree is None or Marker.read(tree.description) != marker:
        raise Thawed(file=vm.name, reason="somebody removed the snapshot that held it still")
    config = session.read(
        lambda wire: properties.of_one(wire, wire.object(vim.vm.Snapshot, snapshot.moref), ["config"])
    )
    return Now(
        vm=vm.name,
        frozen={disk.key: disk for disk in rawlun.disks(session, vm.moref, config.need("config"))},
        live={disk.key: disk for disk in convert.disks(machine.need("config"))},
    )


def _same_files(one: Disk, other: Disk) -> bool:
    by_name = (one.datastore, one.path, one.parents) == (other.datastore, other.path, other.parents)
    return by_name or _places(one) == _places(other)


def _places(disk: Disk) -> list[_Place]:
    """Its file and those below it; by the datastore's reference where it is the disk's own, since names change."""
    own = disk.path.datastore
    return [
        (disk.datastore if disk.datastore and path.datastore == own else path.datastore, path.path)
        for path in (disk.path, *disk.parents)
    ]
