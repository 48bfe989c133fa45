"""What is true of the datacenter now: VMs, their chains, their snapshots. Saved as JSON beside the images.

links      base ◀── delta 1 ◀── delta 2          one list a disk, the base first
             ▲         ▲          ▲
snapshots  frozen    frozen     live             a snapshot names, for each disk, the link that it froze
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from vcbproxy.lab.descriptor import ExtentKind
from vcbproxy.lab.spec import LabSpec
from vcbproxy.lab.vmfs import Allocation

_STRICT = ConfigDict(extra="forbid")


_MODEL = b"Virtua"


def lun_uuid(wwn: str) -> str:
    """What hosts call a LUN beside its NAA name: what kind of id, of device, LUN number 0, the id, of which model."""
    return f"0200000000{wwn}{_MODEL.hex()}"


@dataclass(slots=True, config=_STRICT)
class LunState:
    """One LUN image."""

    path: str
    wwn: str


@dataclass(slots=True, config=_STRICT)
class Link:
    """One file of a chain: its descriptor, and the extent with the bytes."""

    path: str
    extent_path: str
    kind: ExtentKind
    cid: str
    track_path: str = ""
    datastore: str = ""
    """Another datastore than the disk's."""
    shared: bool = False
    """Another VM's; this one's disk only grew out of it."""


@dataclass(slots=True, config=_STRICT)
class DiskState:
    """One virtual disk of a VM."""

    node: str
    device_key: int
    label: str
    datastore: str
    size_bytes: int
    allocation: Allocation
    uuid: str
    links: list[Link]
    independent: bool = False
    mapping: str = ""
    raw: LunState | None = None
    """Of a raw device mapping: the LUN that it is."""
    multi_writer: bool = False
    encrypted: bool = False
    mode: str = "persistent"
    aside: list[Link] = Field(default_factory=list)
    """Links that a revert cut off and snapshots still need, the oldest first; they grow out of ``aside_from``."""
    aside_from: str = ""
    tracking_id: str = ""
    epoch: int = 0
    """Change tracking counts snapshots; a write belongs to the epoch in which it came."""
    changes: dict[int, set[int]] = Field(default_factory=dict)
    """Epoch → numbers of the areas written in it."""

    @property
    def live(self) -> Link:
        """The link that the guest writes to."""
        return self.links[-1]

    @property
    def in_snapshots(self) -> bool:
        """Whether snapshots take it."""
        return not self.independent and self.mapping != "physical"

    def needless(self, needed: set[str]) -> int | None:
        """The first level whose link neither a snapshot (``needed``), nor a branch, nor another VM needs."""
        needed = needed | {self.aside_from}
        links = enumerate(self.links[:-1])
        return next((level for level, link in links if not link.shared and link.path not in needed), None)


@dataclass(slots=True, config=_STRICT)
class TruthState:
    """What a disk held at the instant of a snapshot."""

    size_bytes: int
    sha256: str
    raw_path: str = ""
    """A sparse copy of the disk, relative to the lab's folder; empty when none was kept."""


@dataclass(slots=True, config=_STRICT)
class SnapshotState:
    """One snapshot of a VM."""

    moref: str
    number: int
    name: str
    description: str
    created: datetime
    quiesced: bool
    powered_on: bool
    frozen: dict[str, str]
    """Disk node → path of the frozen link's descriptor."""
    parent: str = ""
    change_ids: dict[str, str] = Field(default_factory=dict)


@dataclass(slots=True, config=_STRICT)
class VmState:
    """One virtual machine."""

    moref: str
    name: str
    datastore: str
    folder: str
    uuid: str
    instance_uuid: str
    powered_on: bool
    tools_running: bool
    change_tracking: bool
    disks: list[DiskState]
    inventory_folder: str = ""
    host: str = "esx1.lab"
    connected: bool = True
    """Whether its host answers."""
    suspended: bool = False
    bus_sharing: str = "noSharing"
    vss: bool = False
    snapshots: list[SnapshotState] = Field(default_factory=list)
    current: str = ""
    """The snapshot that the running disks grew out of."""
    taken_away: list[DiskState] = Field(default_factory=list)
    """Disks that the VM has no more, and snapshots still have."""
    deltas_made: int = 0

    @property
    def frozen_disks(self) -> list[DiskState]:
        """The disks that snapshots take."""
        return [disk for disk in self.disks if disk.in_snapshots]

    def disk(self, node: str) -> DiskState:
        """The disk at a node.

        Raises:
            KeyError: there is none.
        """
        for disk in self.disks:
            if disk.node == node:
                return disk
        raise KeyError(node)

    @property
    def consolidation_needed(self) -> bool:
        """Whether a chain has a link that neither a snapshot nor the guest needs."""
        return any(disk.needless(self.needed(disk.node)) is not None for disk in self.disks)

    def needed(self, node: str) -> set[str]:
        """The links of a disk that snapshots froze."""
        return {snapshot.frozen[node] for snapshot in self.snapshots if node in snapshot.frozen}

    @property
    def running(self) -> bool:
        """Whether its guest runs, and writes."""
        return self.powered_on and not self.suspended and self.connected


@dataclass(slots=True, config=_STRICT)
class DatastoreState:
    """One datastore."""

    moref: str
    name: str
    version: int
    uuid: str
    luns: list[LunState]
    block_size_bytes: int = 0


@dataclass(slots=True, config=_STRICT)
class TruthRecord:
    """The truth of one snapshot; it outlives the snapshot."""

    vm: str
    vm_moref: str
    snapshot: str
    name: str
    description: str
    created: datetime
    disks: dict[str, TruthState]


@dataclass(slots=True, config=_STRICT)
class State:
    """The whole datacenter."""

    spec: LabSpec
    instance_uuid: str
    datastores: list[DatastoreState] = Field(default_factory=list)
    vms: list[VmState] = Field(default_factory=list)
    truths: list[TruthRecord] = Field(default_factory=list)
    numbers_used: int = 100
    clean: bool = False
    """Whether the images were closed in the state that this file tells of."""

    def next_number(self) -> int:
        """A number nobody has, for names and ids."""
        self.numbers_used += 1
        return self.numbers_used


_ADAPTER = TypeAdapter(State)


def to_json(state: State) -> bytes:
    """Write it."""
    return _ADAPTER.dump_json(state, indent=1)


def from_json(text: bytes) -> State:
    """Read it; raises ValueError."""
    return _ADAPTER.validate_json(text)
