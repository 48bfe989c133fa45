"""Builds a datacenter from its specification: LUNs, volumes, VMs' files, and what the guests have written so far."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from vcbproxy.errors import ConfigError
from vcbproxy.lab import content
from vcbproxy.lab.chain import Chain
from vcbproxy.lab.descriptor import ExtentKind
from vcbproxy.lab.guest import burst
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, VmSpec
from vcbproxy.lab.state import DatastoreState, DiskState, LunState, State, VmState
from vcbproxy.lab.store import FolderStore, Store
from vcbproxy.lab.vmfs import LabVolume, VolumeSpec
from vcbproxy.units import MiB

_COPY_BYTES = 4 * MiB
_WWN_PREFIX = "600144f0"
_FIRST_KEYS = {"scsi": (2000, 16), "sata": (16000, 30), "nvme": (32000, 64), "ide": (3000, 2)}


class Site(Protocol):
    """What building needs of the datacenter that is being built."""

    @property
    def directory(self) -> Path:
        """The lab's folder."""

    @property
    def state(self) -> State:
        """What is true so far."""

    def chain(self, disk: DiskState, *, path: str = "") -> Chain:
        """A disk's chain; with a path a new one is made."""

    def store(self, datastore: str) -> Store:
        """A datastore's files."""

    def machine(self, name: str) -> Machine:
        """A VM."""


def new_volume(directory: Path, spec: DatastoreSpec, seed: int, number: int) -> tuple[Store, DatastoreState]:
    """Make a datastore with nothing on it."""
    moref = f"datastore-{10 + number}"
    if spec.version == 0:
        folder = directory / "nfs" / spec.name
        folder.mkdir(parents=True)
        return FolderStore(folder), DatastoreState(moref, spec.name, 0, "", [])
    named = luns(spec, seed)
    (directory / "luns").mkdir(exist_ok=True)
    volume = LabVolume.create(
        [directory / path for path, _ in named],
        VolumeSpec(
            version=spec.version,
            label=spec.name,
            seed=int.from_bytes(content.identifier(seed, spec.name)[:4], "big"),
            size_bytes=spec.lun_size_bytes,
            block_size_bytes=spec.block_size_bytes,
            partition=spec.partition,
            wwns=tuple(wwn for _, wwn in named),
            scatter=spec.scatter,
        ),
    )
    known = [LunState(path, wwn) for path, wwn in named]
    return volume, DatastoreState(moref, spec.name, spec.version, volume.uuid, known, spec.block_size_bytes)


def luns(spec: DatastoreSpec, seed: int) -> list[tuple[str, str]]:
    """(path in the lab's folder, WWN) of a datastore's LUNs."""
    count = spec.luns if spec.version else 0
    return [(f"luns/{spec.name}-{lun}.img", _wwn(seed, spec.name, lun)) for lun in range(count)]


def raw_luns(spec: LabSpec) -> list[tuple[str, str]]:
    """(path in the lab's folder, WWN) of the LUNs that VMs have raw."""
    known = [
        _raw(disk, spec.seed, number, at) for number, vm in enumerate(spec.vms) for at, disk in enumerate(vm.disks)
    ]
    return [(lun.path, lun.wwn) for lun in known if lun is not None]


def _raw(spec: DiskSpec, seed: int, vm: int, disk: int) -> LunState | None:
    if not spec.mapping:
        return None
    return LunState(f"luns/raw-{vm}-{disk}.img", _wwn(seed, f"raw {vm}", disk))


def new_vm(site: Site, spec: VmSpec, number: int) -> VmState:
    """Make a VM's folder, disks and configuration; the disks hold what the specification says."""
    seed = site.state.spec.seed
    folder = _new_folder(site, spec)
    disks = list(_cloned(site, spec, folder) if spec.clone_of else _disks(spec, seed, number))
    for at, disk in enumerate(disks if not spec.clone_of else ()):
        name = spec.name + (f"_{at}" if at else "")
        chain = site.chain(disk, path=f"{folder}/{name}.vmdk")
        for offset, data in _content(spec.disks[at].content, f"{spec.label} {disk.node}", disk.size_bytes, seed):
            chain.write(offset, data)
    return VmState(
        moref=f"vm-{20 + number}",
        name=spec.name,
        datastore=spec.datastore,
        folder=folder,
        uuid=str(uuid.UUID(bytes=content.identifier(seed, spec.label, "bios"))),
        instance_uuid=str(uuid.UUID(bytes=content.identifier(seed, spec.label, "instance"))),
        powered_on=spec.powered_on,
        tools_running=spec.tools_running,
        change_tracking=spec.change_tracking,
        disks=disks,
        inventory_folder=spec.inventory_folder,
        suspended=spec.suspended,
        bus_sharing=spec.bus_sharing,
        vss=spec.vss,
    )


def _cloned(site: Site, spec: VmSpec, folder: str) -> Iterator[DiskState]:
    """A linked clone's disks: another VM's links, and a delta of its own on each, which it writes to."""
    original = site.machine(spec.clone_of).state
    for disk in original.disks:
        links = [replace(link, datastore=link.datastore or disk.datastore, shared=True) for link in disk.links]
        uuid = content.identifier(site.state.spec.seed, spec.label, disk.node).hex()
        own = replace(disk, datastore=spec.datastore, uuid=uuid, links=links, aside=[], aside_from="", tracking_id="")
        site.chain(own).grow(f"{folder}/{spec.name}-{disk.node}.vmdk")
        yield own


def _new_folder(site: Site, spec: VmSpec) -> str:
    """Make the VM's folder on all its datastores; a second VM of one name gets a number, as a host does it."""
    stores = [site.store(name) for name in sorted({spec.datastore, *(disk.datastore for disk in spec.disks)} - {""})]
    names = (f"/{spec.name}_{number}" if number else f"/{spec.name}" for number in range(len(site.state.spec.vms)))
    folder = next(name for name in names if not any(store.exists(name) for store in stores))
    for store in stores:
        store.mkdir(folder)
    return folder


def write_after_snapshot(machine: Machine, writes: int, seed: int, number: int) -> None:
    """What the guest wrote since a snapshot of its owner's."""
    chance = random.Random(f"{seed} {machine.state.name} snapshot {number}")
    burst(machine, chance, writes)


def delta_kind(version: int) -> ExtentKind:
    """VMFS-6 keeps deltas as SE-sparse files, all else as COWD."""
    return ExtentKind.SESPARSE if version == 6 else ExtentKind.COWD


def new_disk(site: Site, vm: VmState, spec: DiskSpec, node: str) -> DiskState:
    """A disk that a VM gets while it runs."""
    seed = site.state.spec.seed
    disk = _disk(spec, node, seed, vm.name, f"Hard disk {len(vm.disks) + 1}", spec.datastore or vm.datastore)
    chain = site.chain(disk, path=f"{vm.folder}/{vm.name}_{node}.vmdk")
    for offset, data in _content(spec.content, f"{vm.name} {node}", disk.size_bytes, seed):
        chain.write(offset, data)
    return disk


def _disks(spec: VmSpec, seed: int, vm: int) -> Iterator[DiskState]:
    taken = {disk.node for disk in spec.disks}
    # Unit 7 is the SCSI controller itself.
    free = (f"scsi0-{unit}" for unit in range(16) if unit != 7 and f"scsi0-{unit}" not in taken)
    for number, disk in enumerate(spec.disks, 1):
        node = disk.node or next(free, "")
        if not node:
            raise ConfigError(f"{spec.name}: more disks than one SCSI controller takes; give them nodes")
        made = _disk(disk, node, seed, spec.label, f"Hard disk {number}", disk.datastore or spec.datastore)
        yield replace(made, raw=_raw(disk, seed, vm, number - 1))


def _disk(spec: DiskSpec, node: str, seed: int, vm: str, label: str, datastore: str) -> DiskState:
    return DiskState(
        node=node,
        device_key=device_key(node),
        label=label,
        datastore=datastore,
        size_bytes=spec.size_bytes,
        allocation=spec.allocation,
        uuid=content.identifier(seed, vm, node).hex(),
        links=[],
        independent=spec.independent,
        mapping=spec.mapping,
        multi_writer=spec.multi_writer,
        encrypted=spec.encrypted,
        mode=spec.mode,
    )


def device_key(node: str) -> int:
    """The manager's number for a disk at a node."""
    controller, unit = node.split("-")
    first, width = _FIRST_KEYS[controller.rstrip("0123456789")]
    return first + int(controller.lstrip("abcdefghijklmnopqrstuvwxyz")) * width + int(unit)


def _content(spec: ContentSpec, name: str, size_bytes: int, seed: int) -> Iterator[tuple[int, bytes]]:
    match spec.fill:
        case Fill.MIXED:
            return content.mixed(name, size_bytes, seed, spec.used)
        case Fill.RANDOM:
            return content.noise(name, size_bytes, seed)
        case Fill.IMAGE:
            return _copied(Path(spec.image), size_bytes)
        case Fill.EMPTY:
            return iter(())


def _copied(image: Path, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    """A raw image's data; its holes are left out."""
    with image.open("rb") as file:
        end = os.lseek(file.fileno(), 0, os.SEEK_END)
        if end > size_bytes:
            raise ConfigError(f"{image} has {end} bytes, the disk {size_bytes}")
        position = 0
        while position < end:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, position, _COPY_BYTES):
                yield offset, os.pread(file.fileno(), min(_COPY_BYTES, position - offset), offset)


def _wwn(seed: int, datastore: str, lun: int) -> str:
    return _WWN_PREFIX + content.identifier(seed, datastore, "lun", lun).hex()[:24]
