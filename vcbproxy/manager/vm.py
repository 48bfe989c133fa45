"""Virtual machines as the manager describes them: in a list, and in full."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.disk import Disk


class Power(Enum):
    """Whether the VM runs."""

    ON = "poweredOn"
    OFF = "poweredOff"
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class VmSummary:
    """One line of the inventory. What the manager cannot tell (a VM whose host is lost) is None."""

    moref: str
    name: str
    uuid: str | None
    instance_uuid: str | None
    power_state: Power
    connected: bool
    template: bool
    host_name: str | None
    ip_addresses: tuple[str, ...]
    tools_running: bool
    change_tracking: bool | None
    vmx: DatastorePath | None


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM with its disks as they are now. The moref may change when it is registered anew, instance_uuid does not.

    Attributes:
        uuid: the BIOS UUID, which a copied VM may share with its original.
        instance_uuid: the manager's own, unique in one manager.
        disks: of the *live* VM: good for display and refusals; what is read are the snapshot's.
    """

    moref: str
    name: str
    uuid: str
    instance_uuid: str
    power_state: Power
    connected: bool
    template: bool
    tools_running: bool
    host_name: str | None
    ip_addresses: tuple[str, ...]
    vmx: DatastorePath
    disks: tuple[Disk, ...]
    has_snapshots: bool
    change_tracking: bool
    consolidation_needed: bool
    encrypted: bool
    guest: str
    hardware_version: str
