"""A virtual machine as its host runs it: guest writes, snapshots, consolidation, and the files that tell of them.

Two locks. ``operation`` lets one task at a time have the VM, as a host does (a second one is Busy). ``still`` is the
stun: held for the moment in which chains change shape, and by every guest write.
"""

from __future__ import annotations

import contextlib
import posixpath
import threading
from collections.abc import Callable, Iterator
from datetime import datetime

from vcbproxy.errors import Busy, UsageError
from vcbproxy.lab import chain as chains
from vcbproxy.lab import descriptor, tracking
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.state import DiskState, SnapshotState, VmState
from vcbproxy.lab.store import Store
from vcbproxy.lab.vmfs import LabVolume

_FREE, _EXCLUSIVE, _READ_ONLY = 0, 1, 2


class UnknownSnapshot(KeyError):
    """The VM has no such snapshot."""


class HostLost(Exception):
    """The VM's host does not answer."""


class Machine:
    """One VM."""

    def __init__(
        self, state: VmState, home: Store, disks: dict[str, Chain], new_tracking_id: Callable[[], str]
    ) -> None:
        self.state = state
        self.home = home
        self.chains = disks
        self._new_tracking_id = new_tracking_id
        self._operation = threading.Lock()
        self.still = threading.RLock()

    @contextlib.contextmanager
    def operation(self, task: str) -> Iterator[None]:
        """Have the VM for one task.

        Raises:
            Busy: another one has it.
            HostLost: its host does not answer.
        """
        if not self.state.connected:
            raise HostLost(f"{self.state.name}: the host {self.state.host} is not connected, so not now: {task}")
        if not self._operation.acquire(blocking=False):
            raise Busy(f"{self.state.name}: another task is in progress, so not now: {task}")
        try:
            yield
        finally:
            self._operation.release()

    def chain(self, node: str) -> Chain:
        """A disk's chain.

        Raises:
            KeyError: no disk at that node.
        """
        return self.chains[node]

    def guest_write(self, node: str, offset: int, data: bytes) -> None:
        """The guest writes."""
        with self.still:
            chain = self.chains[node]
            chain.write(offset, data)
            tracking.record(chain.disk, offset, len(data))

    def guest_zero(self, node: str, offset: int, length: int) -> None:
        """The guest writes zeroes, to whole 4 KiB pages."""
        with self.still:
            chain = self.chains[node]
            chain.zero(offset, length)
            tracking.record(chain.disk, offset, length)

    def guest_read(self, node: str, offset: int, length: int) -> bytes:
        """What the guest would read now."""
        with self.still:
            return self.chains[node].read(offset, length)

    def freeze(
        self, moref: str, number: int, name: str, description: str, created: datetime, *, quiesced: bool
    ) -> SnapshotState:
        """Take a snapshot: every disk gets a new live delta, or none. The caller holds ``operation``."""
        with self.still:
            self.state.deltas_made += 1
            self._start_tracking()
            disks = self.state.frozen_disks
            frozen = {disk.node: disk.live.path for disk in disks}
            self._grow()
            change_ids = {disk.node: tracking.landmark(disk) for disk in disks if disk.tracking_id}
            snapshot = SnapshotState(moref, number, name, description, created, quiesced, self.state.powered_on, frozen)
            snapshot.change_ids, snapshot.parent = change_ids, self.state.current
            self.state.snapshots.append(snapshot)
            self.state.current = moref
            self.home.create_file(self._state_path(snapshot), data=b"\xd2\xbe\xd2\xbe" + bytes(1020))
            if quiesced and self.state.vss:
                self.home.create_file(self._manifest_path(snapshot), data=b"PK\x05\x06" + bytes(18))
            self.write_files()
            self.lock_files()
        return snapshot

    def thaw(self, moref: str, *, consolidate: bool = True) -> None:
        """Remove a snapshot; with ``consolidate`` what it froze is merged. The caller holds ``operation``.

        Raises:
            UnknownSnapshot: there is none of that name.
        """
        with self.still:
            snapshot = self.snapshot(moref)
            self.state.snapshots.remove(snapshot)
            self.home.delete(self._state_path(snapshot))
            if self.home.exists(self._manifest_path(snapshot)):
                self.home.delete(self._manifest_path(snapshot))
            for child in self.state.snapshots:
                child.parent = snapshot.parent if child.parent == moref else child.parent
            if self.state.current == moref:
                self.state.current = snapshot.parent
            try:
                for disk in self.state.frozen_disks if consolidate else ():
                    if disk.node in snapshot.frozen:
                        self._let_go(disk, snapshot.frozen[disk.node])
                kept = {node for other in self.state.snapshots for node in other.frozen}
                self.state.taken_away = [disk for disk in self.state.taken_away if disk.node in kept]
            finally:
                # What could not be merged is left to ``consolidate``; what could is already where the guest writes.
                self.write_files()
                self.lock_files()

    def consolidate(self) -> None:
        """Merge all links that nobody needs. The caller holds ``operation``."""
        with self.still:
            try:
                for disk in self.state.frozen_disks:
                    while (level := disk.needless(self.state.needed(disk.node))) is not None:
                        self._merge(disk, level)
            finally:
                self.write_files()
                self.lock_files()

    def snapshot(self, moref: str) -> SnapshotState:
        """A snapshot by its reference.

        Raises:
            UnknownSnapshot: the VM has no such snapshot.
        """
        for snapshot in self.state.snapshots:
            if snapshot.moref == moref:
                return snapshot
        raise UnknownSnapshot(moref)

    def set_tracking(self, *, on: bool) -> None:
        """Turn changed block tracking on (from the next snapshot) or off (at once; what it knew is lost)."""
        with self.still:
            self.state.change_tracking = on
            if not on:
                for disk in self.state.disks:
                    disk.tracking_id, disk.changes = "", {}
            self.write_files()

    def reset_tracking(self) -> None:
        """Lose what change tracking knew, as after a power cut: change ids of before are worth nothing any more."""
        with self.still:
            for disk in self.state.disks:
                if disk.tracking_id:
                    disk.tracking_id, disk.epoch, disk.changes = self._new_tracking_id(), 1, {}

    def set_power(self, *, on: bool) -> None:
        """Power on or off; a VM that is off writes nothing."""
        with self.still:
            self.state.powered_on, self.state.suspended = on, False
            self.lock_files()

    def lock_files(self, *, anew: bool = False) -> None:
        """Lock the disks' extents as the host does: what the guest writes for itself, what is below it for reading.

        Args:
            anew: also those that are locked so already: another host takes them over, and every token rises.
        """
        for disk in self.state.disks:
            chain = self.chains[disk.node]
            for link in disk.links:
                if isinstance(chain.store, LabVolume) and not link.shared:
                    above = _EXCLUSIVE if link is disk.live else _READ_ONLY
                    mode = above if self.state.powered_on and not self.state.suspended else _FREE
                    if anew or chain.store.node(link.extent_path).lock_mode != mode:
                        chain.store.lock(link.extent_path, mode, host=self.state.host)

    def revert(self, moref: str) -> None:
        """Go back to a snapshot: the guest goes on from what it froze. The caller holds ``operation``.

        Raises:
            UnknownSnapshot: there is none of that name.
            UsageError: a second branch of snapshots would grow; the lab knows one.
        """
        with self.still:
            snapshot = self.snapshot(moref)
            for disk in self.state.frozen_disks:
                if disk.node in snapshot.frozen and disk.aside:
                    raise UsageError(f"{self.state.name} was reverted before; the lab knows one branch of snapshots")
            self.state.deltas_made += 1
            for disk in self.state.frozen_disks:
                if disk.node in snapshot.frozen:
                    chain = self.chains[disk.node]
                    level = chain.level_of(snapshot.frozen[disk.node])
                    chain.branch_off(level, self._delta_path(disk), self.state.needed(disk.node))
                    disk.tracking_id, disk.changes = "", {}  # change tracking begins anew
            self.state.current = moref
            self.write_files()
            self.lock_files()

    def write_files(self) -> None:
        """Write the .vmx and .vmsd as they should be now."""
        for suffix, pairs in (("vmx", self._vmx()), ("vmsd", self._vmsd())):
            chains.replace(self.home, self._path(suffix), descriptor.settings(pairs).encode())

    def write_first_files(self) -> None:
        """Write what a VM has from its first day."""
        name = self.state.name
        self.home.create_file(self._path("nvram"), data=b"MRVN" + bytes(8192 - 4))
        self.home.create_file(self._path("vmxf"), data=descriptor.vmxf(name).encode())
        self.home.create_file(f"{self.state.folder}/vmware.log", data=f"vmx: Log for {name}\n".encode())
        self.write_files()

    def _start_tracking(self) -> None:
        for disk in self.state.frozen_disks if self.state.change_tracking else ():
            if not disk.tracking_id:
                disk.tracking_id, disk.epoch = self._new_tracking_id(), 1

    def _grow(self) -> None:
        grown: list[DiskState] = []
        try:
            for disk in self.state.frozen_disks:
                self.chains[disk.node].grow(self._delta_path(disk))
                grown.append(disk)
        except Exception:
            # No room, most likely: a host gives up the whole snapshot.
            for disk in grown:
                self.chains[disk.node].merge_down(len(disk.links) - 2)
            raise

    def _let_go(self, disk: DiskState, path: str) -> None:
        """Merge the link that a removed snapshot froze, if nobody needs it; one that is aside is deleted."""
        if any(link.path == path for link in disk.aside):
            self.chains[disk.node].prune(self.state.needed(disk.node))
            return
        level = self.chains[disk.node].level_of(path)
        needed = self.state.needed(disk.node) | {disk.aside_from}
        if not disk.links[level].shared and path not in needed:
            self._merge(disk, level)

    def _merge(self, disk: DiskState, level: int) -> None:
        gone = self.chains[disk.node].merge_down(level)
        for snapshot in self.state.snapshots:
            if snapshot.frozen.get(disk.node) == gone.path:
                snapshot.frozen[disk.node] = disk.links[level].path

    def _path(self, suffix: str) -> str:
        return f"{self.state.folder}/{self.state.name}.{suffix}"

    def _delta_path(self, disk: DiskState) -> str:
        base = next((link.path for link in disk.links if not link.shared), f"{self.state.folder}/{disk.node}.vmdk")
        return f"{base.removesuffix('.vmdk')}-{self.state.deltas_made:06d}.vmdk"

    def _manifest_path(self, snapshot: SnapshotState) -> str:
        return f"{self.state.folder}/{self.state.name}-vss_manifests{snapshot.number}.zip"

    def _state_path(self, snapshot: SnapshotState) -> str:
        return f"{self.state.folder}/{self.state.name}-Snapshot{snapshot.number}.vmsn"

    def _vmx(self) -> dict[str, str]:
        name = self.state.name
        pairs = {
            "config.version": "8",
            "virtualHW.version": "13",
            "displayName": name,
            "uuid.bios": self.state.uuid,
            "vc.uuid": self.state.instance_uuid,
            "nvram": f"{name}.nvram",
            "extendedConfigFile": f"{name}.vmxf",
            "ctkEnabled": "TRUE" if self.state.change_tracking else "FALSE",
        }
        for disk in self.state.disks:
            controller, unit = disk.node.split("-")
            # A disk on another datastore is named by its whole path.
            folder, file = posixpath.split(disk.live.path)
            away = disk.datastore != self.state.datastore
            pairs[f"{controller}.present"] = "TRUE"
            pairs[f"{controller}:{unit}.present"] = "TRUE"
            pairs[f"{controller}:{unit}.fileName"] = f"/vmfs/volumes/{disk.datastore}{folder}/{file}" if away else file
        return pairs

    def _vmsd(self) -> dict[str, str]:
        if not self.state.snapshots:
            return {}
        current = next((snapshot for snapshot in self.state.snapshots if snapshot.moref == self.state.current), None)
        pairs = {"snapshot.current": str(current.number if current else self.state.snapshots[-1].number)}
        pairs["snapshot.numSnapshots"] = str(len(self.state.snapshots))
        for index, snapshot in enumerate(self.state.snapshots):
            key = f"snapshot{index}"
            pairs[f"{key}.uid"] = str(snapshot.number)
            pairs[f"{key}.filename"] = posixpath.basename(self._state_path(snapshot))
            pairs[f"{key}.displayName"] = snapshot.name
            pairs[f"{key}.description"] = snapshot.description
            for at, (node, path) in enumerate(snapshot.frozen.items()):
                pairs[f"{key}.disk{at}.fileName"] = posixpath.basename(path)
                pairs[f"{key}.disk{at}.node"] = node.replace("-", ":")
        return pairs
