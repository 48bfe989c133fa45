"""What a lab is asked to be: its LUNs and datastores, the VMs on them, what is on their disks. Plain values, JSON-able.

    LabSpec ─┬─ DatastoreSpec   vmfs 3|5|6 on n LUNs, or an NFS export
             └─ VmSpec ─┬─ DiskSpec ── ContentSpec      what the disk holds on the first day
                        └─ SnapshotSpec                 a user's own snapshots, with writes after each

``demo()`` is the datacenter that ``vcbproxy lab create`` makes when nothing else is asked for.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path
from typing import Literal

import pydantic
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from vcbproxy.errors import ConfigError
from vcbproxy.lab.vmfs import Allocation, Partition
from vcbproxy.units import GiB, MiB

_STRICT = ConfigDict(extra="forbid")
_NODE = re.compile(r"(scsi|sata|nvme|ide)(\d{1,2})-(\d{1,2})")
_NAME = re.compile(r"[^/\[\]\x00-\x1f]{1,80}")


class Fill(Enum):
    """What a disk holds on the first day."""

    MIXED = "mixed"
    """Like a guest's file system: text, records, random bytes, and holes between them."""
    RANDOM = "random"
    EMPTY = "empty"
    IMAGE = "image"
    """A raw image file of yours; its holes stay holes."""


class Truth(Enum):
    """What is kept of every disk at the instant of a snapshot."""

    NONE = "none"
    DIGEST = "digest"
    RAW = "raw"
    """The digest and a sparse copy of the whole disk."""


@dataclass(frozen=True, slots=True, config=_STRICT)
class ContentSpec:
    """A disk's first content; ``used`` is the share of it that is not a hole."""

    fill: Fill = Fill.MIXED
    used: float = 0.6
    image: str = ""


@dataclass(frozen=True, slots=True, config=_STRICT)
class DiskSpec:
    """One virtual disk. Without a node it takes the next one of the first SCSI controller.

    The last three are for what a backup must refuse: the manager shows the disk so, its files are those of any disk.
    """

    size_bytes: int = 64 * MiB
    allocation: Allocation = Allocation.THIN
    content: ContentSpec = ContentSpec()
    node: str = ""
    datastore: str = ""
    """Another datastore than the VM's own."""
    independent: bool = False
    """Left out of snapshots; it can not be backed up this way."""
    mapping: Literal["", "virtual", "physical"] = ""
    """A raw device mapping: the disk is a LUN of its own; on VMFS only. In physical mode snapshots leave it out."""
    multi_writer: bool = False
    encrypted: bool = False
    mode: str = "persistent"


@dataclass(frozen=True, slots=True, config=_STRICT)
class SnapshotSpec:
    """A user's snapshot; ``writes`` guest writes go to the delta that it begins."""

    name: str = "before upgrade"
    description: str = ""
    writes: int = 40


@dataclass(frozen=True, slots=True, config=_STRICT)
class VmSpec:
    """One virtual machine."""

    name: str
    datastore: str
    disks: tuple[DiskSpec, ...] = (DiskSpec(),)
    snapshots: tuple[SnapshotSpec, ...] = ()
    powered_on: bool = True
    suspended: bool = False
    tools_running: bool = True
    clone_of: str = ""
    """A linked clone of that VM, which goes before it and stays as it is; its disks grow out of that one's."""
    bus_sharing: Literal["noSharing", "virtualSharing", "physicalSharing"] = "noSharing"
    """Of its SCSI controllers."""
    vss: bool = False
    """Its guest leaves a manifest of its writers in the VM's folder when it is quiesced, as Windows does."""
    change_tracking: bool = False
    ip: str = ""
    guest_id: str = "debian12_64Guest"
    guest_full_name: str = "Debian GNU/Linux 12 (64-bit)"
    cpus: int = 2
    memory_mib: int = 2048
    datacenter: str = "DC0"
    inventory_folder: str = ""
    """A folder in the datacenter, or a path of folders (``prod/web``); VMs in different ones may have the same name."""
    vapp: str = ""
    """A vApp in that folder that the VM is in."""
    tags: tuple[str, ...] = ()
    """Each as ``category/name``."""
    template: bool = False
    managed_by: str = ""
    """The extension that made it and what it calls its kind: ``com.vmware.vim.eam/cluster-agent`` is a vCLS VM."""
    connection: Literal["connected", "disconnected", "orphaned", "inaccessible", "invalid"] = "connected"
    """Of the last three the manager tells neither the configuration nor what the guest does."""

    @property
    def label(self) -> str:
        """A name that no other VM of the lab has."""
        above = "" if self.datacenter == "DC0" else f"{self.datacenter}:"
        return f"{above}{self.inventory_folder}/{self.name}" if above or self.inventory_folder else self.name

    @property
    def folder_names(self) -> list[str]:
        """The folders it is in, from the top."""
        return self.inventory_folder.split("/")

    @property
    def lost(self) -> bool:
        """Whether the manager no longer knows its configuration."""
        return self.connection in ("orphaned", "inaccessible", "invalid")


@dataclass(frozen=True, slots=True, config=_STRICT)
class CrowdSpec:
    """Many VMs that are only in the inventory: no disks, no files. They cost next to nothing, and fill lists."""

    count: int
    datastore: str
    name: str = "crowd"
    """They are called ``crowd-00000`` and so on."""
    inventory_folder: str = "crowd"
    folders: int = 20
    """They are dealt out to so many folders below that one; 0: all in it."""
    tags: tuple[str, ...] = ()

    @property
    def folder_names(self) -> list[str]:
        """The folders they are in, from the top."""
        return self.inventory_folder.split("/")


@dataclass(frozen=True, slots=True, config=_STRICT)
class DatastoreSpec:
    """One datastore. ``version`` 0 is an NFS export: a folder."""

    name: str
    version: Literal[0, 3, 5, 6] = 6
    luns: int = 1
    lun_size_bytes: int = 2 * GiB
    block_size_bytes: int = 0
    partition: Partition = Partition.GPT
    scatter: bool = False
    shown_as: Literal["", "vsan", "VVOL", "PMEM"] = ""
    """What the manager calls it, when that is not what it is made of."""


@dataclass(frozen=True, slots=True, config=_STRICT)
class LabSpec:
    """The whole datacenter. One seed, one lab: every byte of it follows from the specification."""

    datastores: tuple[DatastoreSpec, ...]
    vms: tuple[VmSpec, ...]
    crowds: tuple[CrowdSpec, ...] = ()
    seed: int = 1
    truth: Truth = Truth.RAW
    release: Literal["6.5", "6.7", "7.0", "8.0"] = "8.0"
    """Which release the manager is."""
    esxi: bool = False
    """A host that is spoken to directly, in place of a vCenter Server."""
    username: str = "lab"
    password: str = "lab-secret"  # noqa: S105  # guards nothing but a simulator on loopback

    def __post_init__(self) -> None:
        """Refuse what does not fit together, naming it."""
        datastores = _unique("datastore", [datastore.name for datastore in self.datastores])
        _unique("VM", [vm.label for vm in self.vms])
        _proper("datastore", [datastore.name for datastore in self.datastores])
        _proper("VM", [vm.name for vm in self.vms])
        everyone: tuple[VmSpec | CrowdSpec, ...] = (*self.vms, *self.crowds)
        _proper("folder", [name for known in everyone if known.inventory_folder for name in known.folder_names])
        for tag in (tag for known in everyone for tag in known.tags):
            if not all(tag.partition("/")[::2]):
                raise ConfigError(f"not a tag: {tag!r}; write it as category/name")
        for name in {crowd.datastore for crowd in self.crowds} - datastores:
            raise ConfigError(f"a crowd is on datastore {name!r}, which the lab does not have")
        for vm in self.vms:
            nodes = [node for disk in vm.disks if (node := disk.node)]
            _unique(f"disk node of {vm.name}", nodes)
            for wrong in [node for node in nodes if not _NODE.fullmatch(node)]:
                raise ConfigError(
                    f"{vm.name}: no disk node: {wrong!r}; write it like scsi0-0, sata0-1, nvme0-0, ide1-0"
                )
            for name in {vm.datastore, *(disk.datastore or vm.datastore for disk in vm.disks)} - datastores:
                raise ConfigError(f"{vm.name} is on datastore {name!r}, which the lab does not have")
            before = [other.name for other in self.vms[: self.vms.index(vm)]]
            mapped = [other.name for other in self.vms if any(disk.mapping for disk in other.disks)]
            if vm.clone_of in mapped:
                raise ConfigError(f"{vm.name}: {vm.clone_of!r} has a raw device mapping, and a LUN is not cloned")
            if vm.clone_of and (vm.clone_of not in before or vm.disks != (DiskSpec(),)):
                raise ConfigError(
                    f"{vm.name} is a clone of {vm.clone_of!r}: that VM goes before it, and it has its disks"
                )
            filed = {datastore.name for datastore in self.datastores if not datastore.version}
            for disk in vm.disks:
                if disk.mapping and (disk.datastore or vm.datastore) in filed:
                    raise ConfigError(f"{vm.name}: a raw device mapping lies on VMFS, not on an NFS export")
                if disk.size_bytes <= 0 or disk.size_bytes % 4096:
                    raise ConfigError(f"{vm.name}: a disk of {disk.size_bytes} bytes is not whole grains of 4096")


def _unique(what: str, names: list[str]) -> set[str]:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two of one name: {what} {name!r}")
    return set(names)


def _proper(what: str, names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"not a name for a {what}: {name!r}")


_ADAPTER = TypeAdapter(LabSpec)


def load(path: Path) -> LabSpec:
    """Read a specification from a JSON file; relative images are taken from its directory.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    try:
        spec = from_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the lab's specification {path}: {error}") from error
    return dataclasses.replace(spec, vms=tuple(_beside(vm, path.resolve().parent) for vm in spec.vms))


def _beside(vm: VmSpec, folder: Path) -> VmSpec:
    """The same VM, its images' paths absolute."""
    disks = []
    for disk in vm.disks:
        image = str(folder / disk.content.image) if disk.content.image else ""
        disks.append(dataclasses.replace(disk, content=dataclasses.replace(disk.content, image=image)))
    return dataclasses.replace(vm, disks=tuple(disks))


def from_json(text: str) -> LabSpec:
    """Read a specification from JSON.

    Raises:
        ConfigError: something in it is wrong.
    """
    try:
        return _ADAPTER.validate_json(text)
    except pydantic.ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigError("the lab's specification: " + "; ".join(problems)) from error


def to_json(spec: LabSpec) -> str:
    """Write a specification as JSON."""
    return _ADAPTER.dump_json(spec, indent=2).decode()


def demo(seed: int = 1) -> LabSpec:
    """Three VMs, on VMFS-3, -5 and -6: thin, spanned, to-be-zeroed, and one with a snapshot of its owner's."""
    return LabSpec(
        seed=seed,
        datastores=(
            DatastoreSpec("san3", 3, lun_size_bytes=1 * GiB, partition=Partition.MBR),
            DatastoreSpec("san5", 5, luns=2, lun_size_bytes=1 * GiB, scatter=True),
            DatastoreSpec("san6", 6, lun_size_bytes=2 * GiB),
        ),
        vms=(
            VmSpec(
                "legacy01",
                "san3",
                disks=(DiskSpec(64 * MiB, Allocation.ZEROEDTHICK, ContentSpec(used=0.4)),),
                ip="192.0.2.11",
                guest_id="debian6_64Guest",
                guest_full_name="Debian GNU/Linux 6 (64-bit)",
            ),
            VmSpec(
                "web01",
                "san5",
                disks=(
                    DiskSpec(128 * MiB, Allocation.THIN, ContentSpec(used=0.5)),
                    DiskSpec(64 * MiB, Allocation.EAGER, ContentSpec(used=0.3)),
                ),
                ip="192.0.2.12",
            ),
            VmSpec(
                "db01",
                "san6",
                disks=(DiskSpec(256 * MiB, Allocation.THIN, ContentSpec(used=0.4), node="nvme0-0"),),
                snapshots=(SnapshotSpec("before upgrade", "made by the administrator"),),
                ip="192.0.2.13",
            ),
        ),
    )


def tiny(version: Literal[0, 3, 5, 6] = 5, *, snapshots: int = 0, disks: int = 1, seed: int = 1) -> LabSpec:
    """One VM with small disks on one datastore, for tests that need no more."""
    return LabSpec(
        seed=seed,
        truth=Truth.DIGEST,
        datastores=(DatastoreSpec("ds1", version, lun_size_bytes=1 * GiB),),
        vms=(
            VmSpec(
                "vm1",
                "ds1",
                disks=tuple(DiskSpec(8 * MiB) for _ in range(disks)),
                snapshots=tuple(SnapshotSpec(f"user {n}", writes=12) for n in range(snapshots)),
                ip="192.0.2.1",
            ),
        ),
    )
