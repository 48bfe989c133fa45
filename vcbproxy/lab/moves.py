"""What happens to VMs by others' hands while they are backed up: their hosts', DRS's, HA's, an administrator's.

    vmotion, ha_restart      another host: locks change hands, nothing else
    storage_vmotion          the files really move, what they left is overwritten at once, change tracking begins anew
    revert                   the guest goes on from a snapshot; ours is then on a branch of its own
    resize, add and remove   a disk
    attach, replug           a disk that was removed, or to another place of its controllers

All of them are finished when the call returns, and every manager that watches the datacenter shows them.
"""

from __future__ import annotations

import posixpath
from typing import Protocol

from vcbproxy.errors import UsageError
from vcbproxy.lab import build
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.spec import DiskSpec
from vcbproxy.lab.state import DiskState, Link, State
from vcbproxy.lab.store import Store
from vcbproxy.lab.vmfs import Allocation, LabVolume
from vcbproxy.units import MiB

HOSTS = ("esx1.lab", "esx2.lab")
_STEP_BYTES = 4 * MiB


class Site(build.Site, Protocol):
    """What a move needs of the datacenter."""

    @property
    def state(self) -> State:
        """What is true so far."""

    def chain(self, disk: DiskState, *, path: str = "") -> Chain:
        """A disk's chain; with a path a new one is made."""

    def changed(self, machine: Machine) -> None:
        """Save a changed VM, and let everybody see it."""


class Moves:
    """A hand that is not ours."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def vmotion(self, vm: str, host: str = HOSTS[1]) -> None:
        """Let another host run it; it opens the disks anew, so all locks change hands."""
        machine = self._site.machine(vm)
        with machine.operation("migrate"), machine.still:
            machine.state.host = host
            machine.lock_files(anew=True)
        self._site.changed(machine)

    def lose_host(self, vm: str) -> None:
        """Its host does not answer any more; the guest stands still, tasks on the VM fail."""
        machine = self._site.machine(vm)
        with machine.still:
            machine.state.connected = False
        self._site.changed(machine)

    def ha_restart(self, vm: str, host: str = HOSTS[1]) -> None:
        """HA starts it on another host: after a power cut, as far as the guest can tell."""
        machine = self._site.machine(vm)
        with machine.still:
            machine.state.connected, machine.state.host = True, host
            machine.lock_files(anew=True)
        self._site.changed(machine)

    def revert(self, vm: str, snapshot: str) -> None:
        """Go back to a snapshot, by its name or reference.

        Raises:
            UsageError: it has none of that name, or was reverted before.
        """
        machine = self._site.machine(vm)
        morefs = [known.moref for known in machine.state.snapshots if snapshot in (known.moref, known.name)]
        if not morefs:
            raise UsageError(f"{vm} has no snapshot {snapshot!r}")
        with machine.operation("revert"):
            machine.revert(morefs[-1])
        self._site.changed(machine)

    def resize(self, vm: str, node: str, size_bytes: int) -> None:
        """Grow or shrink a disk.

        Raises:
            UsageError: it has snapshots; hosts refuse that too.
        """
        machine = self._site.machine(vm)
        with machine.operation("resize a disk"), machine.still:
            disk = machine.state.disk(node)
            if len(disk.links) > 1:
                raise UsageError(f"{vm}: the disk {node} has snapshots")
            if disk.raw is not None:
                raise UsageError(f"{vm}: the disk {node} is a whole LUN")
            machine.chain(node).resize(size_bytes)
        self._site.changed(machine)

    def add_disk(self, vm: str, node: str, spec: DiskSpec) -> None:
        """Give a VM another disk."""
        machine = self._site.machine(vm)
        if spec.mapping:
            raise UsageError("a raw device mapping belongs into the specification: its LUN is made with the lab")
        with machine.operation("add a disk"), machine.still:
            disk = build.new_disk(self._site, machine.state, spec, node)
            machine.state.disks.append(disk)
            machine.chains[node] = self._site.chain(disk)
            machine.write_files()
            machine.lock_files()
        self._site.changed(machine)

    def remove_disk(self, vm: str, node: str) -> DiskState:
        """Take a disk from a VM; its files stay, as do the snapshots that froze it. It can be attached again."""
        machine = self._site.machine(vm)
        with machine.operation("remove a disk"), machine.still:
            disk = machine.state.disk(node)
            machine.state.disks.remove(disk)
            if machine.state.needed(node):
                machine.state.taken_away.append(disk)
            machine.write_files()
        self._site.changed(machine)
        return disk

    def attach_disk(self, vm: str, disk: DiskState, node: str) -> None:
        """Give a VM a disk that was removed, its files and what is tracked of it as they were."""
        machine = self._site.machine(vm)
        with machine.operation("attach a disk"), machine.still:
            disk.node, disk.device_key = node, build.device_key(node)
            machine.state.disks.append(disk)
            machine.chains[node] = self._site.chain(disk)
            machine.write_files()
            machine.lock_files()
        self._site.changed(machine)

    def replug(self, vm: str, node: str, to: str) -> None:
        """Let a disk hang at another place.

        Raises:
            UsageError: the VM has snapshots; they name it by its place.
        """
        if self._site.machine(vm).state.snapshots:
            raise UsageError(f"{vm} has snapshots: they froze a disk at {node}")
        self.attach_disk(vm, self.remove_disk(vm, node), to)

    def storage_vmotion(self, vm: str, datastore: str) -> None:
        """Move all its files to another datastore. What they lay on holds other bytes when this returns."""
        machine = self._site.machine(vm)
        if any(link.shared for disk in machine.state.disks for link in disk.links):
            raise UsageError(f"{vm} is a linked clone: the lab moves only whole disks")
        if any(disk.raw is not None for disk in machine.state.disks):
            raise UsageError(f"{vm} has a raw device mapping: the lab moves only files")
        with machine.operation("relocate"), machine.still:
            to = self._site.store(datastore)
            if not to.exists(machine.state.folder):
                to.mkdir(machine.state.folder)
            for disk in machine.state.disks:
                _move_disk(disk, self._site.store(disk.datastore), to)
                disk.datastore = datastore
                machine.chains[disk.node] = self._site.chain(disk)
            _move_rest(machine.state.folder, machine.home, to)
            machine.home = to
            machine.state.datastore = datastore
            machine.reset_tracking()
            machine.write_files()
            machine.lock_files()
        self._site.changed(machine)


def _move_disk(disk: DiskState, old: Store, to: Store) -> None:
    for link in (*disk.links, *disk.aside):
        for path in _files(link):
            if not to.exists(posixpath.dirname(path)):
                to.mkdir(posixpath.dirname(path))
            _copy(old, to, path, disk.allocation if path == disk.links[0].extent_path else Allocation.THIN)
    size_bytes = 0
    for link in (*disk.links, *disk.aside):
        for path in _files(link):
            size_bytes += old.size(path)
            old.delete(path)
    if isinstance(old, LabVolume) and not old.exists("/another-file"):
        # Zeroed thick blocks lie on stale bytes, which the lab's volumes write out: whoever reads on reads those.
        old.create_file("/another-file", size_bytes, allocation=Allocation.ZEROEDTHICK)


def _files(link: Link) -> list[str]:
    return [path for path in (link.path, link.extent_path, link.track_path) if path]


def _move_rest(folder: str, old: Store, to: Store) -> None:
    """What else lies in the VM's folder; directories stay."""
    for name in old.list(folder):
        path = f"{folder}/{name}"
        if not to.exists(path):
            _copy(old, to, path, Allocation.THIN)
        old.delete(path)


def _copy(old: Store, to: Store, path: str, allocation: Allocation) -> None:
    size_bytes = old.size(path)
    to.create_file(path, size_bytes, allocation=allocation)
    for start, length in old.data_ranges(path):
        for offset in range(start, start + length, _STEP_BYTES):
            to.write(path, offset, old.read(path, offset, min(_STEP_BYTES, start + length - offset)))
