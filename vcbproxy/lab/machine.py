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

from vcbproxy.errors import Busy
from vcbproxy.lab import chain as chains
from vcbproxy.lab import descriptor, tracking
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.state import DiskState, SnapshotState, VmState
from vcbproxy.lab.store import Store


class UnknownSnapshot(KeyError):
    """The VM has no such snapshot."""


class Machine:
    """One VM."""

    def __init__(
        self, state: VmState, home: Store, disks: dict[str, Chain], new_tracking_id: Callable[[], str]
    ) -> None:
        self.state = state
        self._home = home
        self._chains = disks
        self._new_tracking_id = new_tracking_id
        self._operation = threading.Lock()
        self.still = threading.RLock()

    @contextlib.contextmanager
    def operation(self, task: str) -> Iterator[None]:
        """Have the VM for one task.

        Raises:
            Busy: another one has it.
        """
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
        return self._chains[node]

    def guest_write(self, node: str, offset: int, data: bytes) -> None:
        """The guest writes."""
        with self.still:
            chain = self._chains[node]
            chain.write(offset, data)
            tracking.record(chain.disk, offset, len(data))

    def guest_zero(self, node: str, offset: int, length: int) -> None:
        """The guest writes zeroes, to whole 4 KiB pages."""
        with self.still:
            chain = self._chains[node]
            chain.zero(offset, length)
            tracking.record(chain.disk, offset, length)

    def guest_read(self, node: str, offset: int, length: int) -> bytes:
        """What the guest would read now."""
        with self.still:
            return self._chains[node].read(offset, length)

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
            snapshot = SnapshotState(
                moref, number, name, description, created, quiesced, self.state.powered_on, frozen, change_ids
            )
            self.state.snapshots.append(snapshot)
            self._home.create_file(self._state_path(snapshot), data=b"\xd2\xbe\xd2\xbe" + bytes(1020))
            self.write_files()
        return snapshot

    def thaw(self, moref: str, *, consolidate: bool = True) -> None:
        """Remove a snapshot; with ``consolidate`` what it froze is merged. The caller holds ``operation``.

        Raises:
            UnknownSnapshot: there is none of that name.
        """
        with self.still:
            snapshot = self.snapshot(moref)
            self.state.snapshots.remove(snapshot)
            self._home.delete(self._state_path(snapshot))
            try:
                for disk in self.state.frozen_disks if consolidate else ():
                    self._merge(disk, self._chains[disk.node].level_of(snapshot.frozen[disk.node]))
            finally:
                # What could not be merged is left to ``consolidate``; what could is already where the guest writes.
                self.write_files()

    def consolidate(self) -> None:
        """Merge all links that nobody needs. The caller holds ``operation``."""
        with self.still:
            try:
                for disk in self.state.frozen_disks:
                    while (level := self._needless(disk)) is not None:
                        self._merge(disk, level)
            finally:
                self.write_files()

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

    def set_power(self, *, on: bool) -> None:
        """Power on or off; a VM that is off writes nothing."""
        with self.still:
            self.state.powered_on = on

    def write_files(self) -> None:
        """Write the .vmx and .vmsd as they should be now."""
        for suffix, pairs in (("vmx", self._vmx()), ("vmsd", self._vmsd())):
            chains.replace(self._home, self._path(suffix), descriptor.settings(pairs).encode())

    def write_first_files(self) -> None:
        """Write what a VM has from its first day."""
        name = self.state.name
        self._home.create_file(self._path("nvram"), data=b"MRVN" + bytes(8192 - 4))
        self._home.create_file(self._path("vmxf"), data=descriptor.vmxf(name).encode())
        self._home.create_file(f"{self.state.folder}/vmware.log", data=f"vmx: Log for {name}\n".encode())
        self.write_files()

    def _start_tracking(self) -> None:
        for disk in self.state.frozen_disks if self.state.change_tracking else ():
            if not disk.tracking_id:
                disk.tracking_id, disk.epoch = self._new_tracking_id(), 1

    def _grow(self) -> None:
        grown: list[DiskState] = []
        try:
            for disk in self.state.frozen_disks:
                self._chains[disk.node].grow(self._delta_path(disk))
                grown.append(disk)
        except Exception:
            # No room, most likely: a host gives up the whole snapshot.
            for disk in grown:
                self._chains[disk.node].merge_down(len(disk.links) - 2)
            raise

    def _merge(self, disk: DiskState, level: int) -> None:
        gone = self._chains[disk.node].merge_down(level)
        for snapshot in self.state.snapshots:
            if snapshot.frozen[disk.node] == gone.path:
                snapshot.frozen[disk.node] = disk.links[level].path

    def _needless(self, disk: DiskState) -> int | None:
        needed = {snapshot.frozen[disk.node] for snapshot in self.state.snapshots}
        levels = range(len(disk.links) - 1)
        return next((level for level in levels if disk.links[level].path not in needed), None)

    def _path(self, suffix: str) -> str:
        return f"{self.state.folder}/{self.state.name}.{suffix}"

    def _delta_path(self, disk: DiskState) -> str:
        base = disk.links[0].path.removesuffix(".vmdk")
        return f"{base}-{self.state.deltas_made:06d}.vmdk"

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
        pairs = {"snapshot.current": str(self.state.snapshots[-1].number)}
        pairs["snapshot.numSnapshots"] = str(len(self.state.snapshots))
        for index, snapshot in enumerate(self.state.snapshots):
            key = f"snapshot{index}"
            pairs[f"{key}.uid"] = str(snapshot.number)
            pairs[f"{key}.filename"] = posixpath.basename(self._state_path(snapshot))
            pairs[f"{key}.displayName"] = snapshot.name
            pairs[f"{key}.description"] = snapshot.description
            for at, disk in enumerate(self.state.frozen_disks):
                pairs[f"{key}.disk{at}.fileName"] = posixpath.basename(snapshot.frozen[disk.node])
                pairs[f"{key}.disk{at}.node"] = disk.node.replace("-", ":")
        return pairs
