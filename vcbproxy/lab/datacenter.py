"""A datacenter in a folder: LUN images with VMFS volumes on them, the VMs' files, and the host that changes them.

    DIR/lab.json             the specification it was made from
        tls/                 ca.pem, server.pem, server.key
        luns/*.img           the LUNs; a backup program reads these
        nfs/<datastore>/     NFS exports
        state/               datacenter.json and a record a volume: what the simulated hosts know
        truth/               what disks held when snapshots were taken
        vcbproxy.toml        a client's configuration, with its password files

One process at a time has a datacenter open. What it knows reaches ``state/`` after every task and when it is closed; a
datacenter whose process was killed between the two cannot be trusted, and is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import Busy, ConfigError, UsageError
from vcbproxy.lab import build, certificate, client, content, state, truth
from vcbproxy.lab import spec as specification
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.moves import Moves
from vcbproxy.lab.spec import LabSpec
from vcbproxy.lab.state import DiskState, SnapshotState, State, TruthRecord
from vcbproxy.lab.store import FolderStore, Store
from vcbproxy.lab.vmfs import LabVolume


class Datacenter:
    """All that the simulated hosts have, open for changing."""

    def __init__(self, directory: Path, known: State, stores: dict[str, Store], lock: int, clock: Clock) -> None:
        """Not for callers: use ``create`` or ``open``."""
        self.directory = directory
        self.state = known
        self._stores = stores
        self._raw = FolderStore(directory)
        self._lock = lock
        self._clock = clock
        self._mutex = threading.RLock()
        self._machines = {vm.moref: self._new_machine(vm) for vm in known.vms}
        self._watchers: list[Callable[[str], None]] = []
        self.moves = Moves(self)
        """What happens to VMs by others' hands: VMotion, reverts, disks that come and go."""

    @classmethod
    def create(cls, directory: Path, spec: LabSpec, clock: Clock | None = None) -> Self:
        """Build one in a new or empty folder.

        Raises:
            UsageError: there is something in the folder.
        """
        clock = clock or SystemClock()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty; give a new folder, or delete this one")
        for name in ("state", "truth"):
            (directory / name).mkdir()
        lock = _locked(directory)
        try:
            (directory / "lab.json").write_text(specification.to_json(spec) + "\n", "utf-8")
            certificate.write(directory / "tls", clock.now())
            client.write(directory, spec)
            known = State(spec, content.identifier(spec.seed, "vcenter").hex())
            datacenter = cls(directory, known, {}, lock, clock)
        except BaseException:
            os.close(lock)
            raise
        try:
            datacenter._build(spec)
        except BaseException:
            datacenter._release()
            raise
        return datacenter

    @classmethod
    def open(cls, directory: Path, clock: Clock | None = None) -> Self:
        """Go on with one that was closed.

        Raises:
            ConfigError: there is none, or its process was killed.
            Busy: another process has it.
        """
        if not (directory / "state" / "datacenter.json").exists():
            raise ConfigError(f"no lab in {directory}; make one with `vcbproxy lab create {directory}`")
        lock = _locked(directory)
        stores: dict[str, Store] = {}
        try:
            known = peek(directory)
            _refuse_unclean(directory, known)
            for datastore in known.datastores:
                record = directory / "state" / f"{datastore.name}.json"
                folder = directory / "nfs" / datastore.name
                stores[datastore.name] = LabVolume.load(record) if datastore.version else FolderStore(folder)
            datacenter = cls(directory, known, stores, lock, clock or SystemClock())
            datacenter.save(clean=False)
        except BaseException:
            _close_stores(stores)
            os.close(lock)
            raise
        return datacenter

    def _build(self, spec: LabSpec) -> None:
        for number, datastore in enumerate(spec.datastores):
            store, known = build.new_volume(self.directory, datastore, spec.seed, number)
            self._stores[datastore.name] = store
            self.state.datastores.append(known)
        for number, vm in enumerate(spec.vms):
            built = build.new_vm(self, vm, number)
            self.state.vms.append(built)
            machine = self._machines[built.moref] = self._new_machine(built)
            machine.write_first_files()
            machine.lock_files()
            for at, snapshot in enumerate(vm.snapshots):
                self._freeze(machine, snapshot.name, snapshot.description, quiesced=False)
                build.write_after_snapshot(machine, snapshot.writes, spec.seed, at)
        self.save(clean=False)

    @property
    def machines(self) -> Sequence[Machine]:
        """All VMs."""
        return tuple(self._machines.values())

    def machine(self, name: str) -> Machine:
        """A VM by its name or its reference.

        Raises:
            UsageError: there is none, or more than one.
        """
        if name in self._machines:
            return self._machines[name]
        named = [machine for machine in self._machines.values() if machine.state.name == name]
        if len(named) > 1:
            raise UsageError(f"several VMs are called {name!r}; say {', '.join(vm.state.moref for vm in named)}")
        if not named:
            known = ", ".join(machine.state.name for machine in self._machines.values())
            raise UsageError(f"the lab has no VM {name!r}; it has {known}")
        return named[0]

    def store(self, datastore: str) -> Store:
        """A datastore's files."""
        return self._stores[datastore]

    def luns(self, datastore: str | None = None) -> list[Path]:
        """The LUN images, of one datastore or of all."""
        wanted = [known for known in self.state.datastores if datastore in (None, known.name)]
        return [self.directory / lun.path for known in wanted for lun in known.luns]

    def raw_lun(self, vm: str, node: str) -> Path:
        """The image of the LUN that a disk is.

        Raises:
            KeyError: no such disk, or it is none.
        """
        raw = self.machine(vm).state.disk(node).raw
        if raw is None:
            raise KeyError(f"{vm} {node} is no raw device mapping")
        return self.directory / raw.path

    def take_snapshot(self, vm: str, name: str, description: str = "", *, quiesced: bool = False) -> SnapshotState:
        """Take a snapshot, and record the truth of what it froze.

        Raises:
            Busy: the VM has another task.
        """
        machine = self.machine(vm)
        with machine.operation("create a snapshot"):
            snapshot = self._freeze(machine, name, description, quiesced=quiesced)
            self.save(clean=False)
        return snapshot

    def remove_snapshot(self, vm: str, moref: str, *, children: bool = False, consolidate: bool = True) -> None:
        """Remove a snapshot, and with ``children`` all later ones; merge what it froze.

        Raises:
            Busy: the VM has another task.
            UnknownSnapshot: it has no such snapshot.
        """
        machine = self.machine(vm)
        with machine.operation("remove a snapshot"):
            snapshots = machine.state.snapshots
            at = snapshots.index(machine.snapshot(moref))
            for later in reversed(snapshots[at:] if children else snapshots[at : at + 1]):
                machine.thaw(later.moref, consolidate=consolidate)
            self.save(clean=False)

    def consolidate(self, vm: str) -> None:
        """Merge links that no snapshot needs.

        Raises:
            Busy: the VM has another task.
        """
        machine = self.machine(vm)
        with machine.operation("consolidate"):
            machine.consolidate()
            self.save(clean=False)

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Let somebody know, by the VM's reference, of every change that is not made through him."""
        self._watchers.append(watcher)

    def changed(self, machine: Machine) -> None:
        """A VM was changed by other than a task of a manager's: save it, and say so."""
        self.save(clean=False)
        for watcher in self._watchers:
            watcher(machine.state.moref)

    def truths(self, vm: str | None = None) -> list[TruthRecord]:
        """What was recorded of snapshots, oldest first."""
        moref = None if vm is None else self.machine(vm).state.moref
        return [record for record in self.state.truths if moref in (None, record.vm_moref)]

    def close(self) -> None:
        """Save all, close the images, let others have the folder; a second time does nothing."""
        if self._lock >= 0:
            try:
                self.save(clean=True)
            finally:
                self._release()

    def chain(self, disk: DiskState, *, path: str = "") -> Chain:
        """A disk's chain; with a path its base is made there."""
        datastore = next(known for known in self.state.datastores if known.name == disk.datastore)
        store, kind = self._stores[disk.datastore], build.delta_kind(datastore.version)
        if path:
            return Chain.create(store, disk, kind, self._new_cid, path, self._raw)
        return Chain(store, disk, kind, self._new_cid, self._elsewhere, self._raw)

    def _elsewhere(self, name: str) -> tuple[Store, str]:
        return self._stores[name], next(known.uuid or name for known in self.state.datastores if known.name == name)

    def _new_machine(self, vm: state.VmState) -> Machine:
        chains = {disk.node: self.chain(disk) for disk in vm.disks}
        return Machine(vm, self._stores[vm.datastore], chains, self._new_tracking_id)

    def _freeze(self, machine: Machine, name: str, description: str, *, quiesced: bool) -> SnapshotState:
        number = self._next_number()
        snapshot = machine.freeze(f"snapshot-{number}", number, name, description, self._clock.now(), quiesced=quiesced)
        record = truth.record(machine, snapshot, self.state.spec.truth, self.directory)
        if record is not None:
            with self._mutex:
                self.state.truths.append(record)
        return snapshot

    def _next_number(self) -> int:
        with self._mutex:
            return self.state.next_number()

    def _new_cid(self) -> str:
        # fffffffe marks a disk without content, ffffffff one without parent.
        return content.identifier(self.state.spec.seed, "cid", self._next_number()).hex()[:7] + "0"

    def _new_tracking_id(self) -> str:
        pairs = content.identifier(self.state.spec.seed, "tracking", self._next_number()).hex(" ")
        return f"{pairs[:23]}-{pairs[24:]}"

    def save(self, *, clean: bool) -> None:
        """Write down what is known."""
        with contextlib.ExitStack() as held:
            # No guest writes meanwhile: the volumes' records and the state must tell of one instant.
            for machine in self._machines.values():
                held.enter_context(machine.still)
            held.enter_context(self._mutex)
            self.state.clean = clean
            for name, store in self._stores.items():
                if isinstance(store, LabVolume):
                    store.save(self.directory / "state" / f"{name}.json")
            path = self.directory / "state" / "datacenter.json"
            fresh = path.with_suffix(".new")
            fresh.write_bytes(state.to_json(self.state))
            fresh.replace(path)

    def _release(self) -> None:
        _close_stores(self._stores)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def peek(directory: Path) -> State:
    """What a datacenter's last task left, read while another process may have it open.

    Raises:
        ConfigError: there is no datacenter, or its state cannot be read.
    """
    path = directory / "state" / "datacenter.json"
    try:
        return state.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the lab's state {path}: {error}") from error


def _refuse_unclean(directory: Path, known: State) -> None:
    if not known.clean:
        raise ConfigError(f"the lab in {directory} was killed while it ran; delete it and create it again")


def _locked(directory: Path) -> int:
    lock = os.open(directory / "state" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Busy(f"another process has the lab in {directory} open") from error
    return lock


def _close_stores(stores: dict[str, Store]) -> None:
    for store in stores.values():
        if isinstance(store, LabVolume):
            store.close()
