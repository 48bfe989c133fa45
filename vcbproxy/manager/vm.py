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


class Connection(Enum):
    """Whether the manager can do anything with the VM; all but the first mean that it cannot be backed up now."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # its host does not answer
    ORPHANED = "orphaned"  # no longer registered on the host it is said to be on
    INACCESSIBLE = "inaccessible"  # its files cannot be read: their datastore is lost to the host
    INVALID = "invalid"  # its configuration file is damaged
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A vCenter tag: names are unique in their category only."""

    category: str
    name: str


# Who manages vCenter's cluster service VMs (vCLS), as (extension, type): until 8.0 U2, and the embedded ones since.
# Broadcom KB 370219: to be left alone; a vCenter deletes and makes them as it needs.
_CLUSTER_SERVICES = {("com.vmware.vim.eam", "cluster-agent"), ("VirtualCenter", "vcls-entity")}


@dataclass(frozen=True, slots=True)
class VmSummary:
    """One line of the inventory. What was not asked for, or the manager cannot tell (its host is lost), is None.

    Attributes:
        template: as far as the manager can tell: of a VM whose configuration is lost it cannot, and says False.
        managed_by: the extension that made it and what it calls its kind; of most VMs (None, None).
        folder: names of the datacenter and the folders the VM lies in, from the top; vApps count as folders.
        datastores: names of all that it has a file on.
        tags: those attached to the VM itself: vSphere lets none be inherited from a folder.
    """

    moref: str
    name: str
    template: bool = False
    managed_by: tuple[str | None, str | None] = (None, None)
    connection: Connection = Connection.CONNECTED
    power_state: Power | None = None
    uuid: str | None = None
    instance_uuid: str | None = None
    host_name: str | None = None
    ip_addresses: tuple[str, ...] = ()
    tools_running: bool = False
    change_tracking: bool | None = None
    vmx: DatastorePath | None = None
    folder: tuple[str, ...] | None = None
    datastores: tuple[str, ...] | None = None
    tags: frozenset[Tag] | None = None

    @property
    def cluster_service(self) -> bool:
        """Whether it is one of vCenter's own (vCLS), which nobody but vCenter may touch."""
        return self.managed_by in _CLUSTER_SERVICES

    @property
    def workload(self) -> bool:
        """Whether it is what people mean by a VM: neither a template nor vCenter's own."""
        return not self.template and not self.cluster_service

    @property
    def connected(self) -> bool:
        """Whether the manager reaches its host and its files."""
        return self.connection is Connection.CONNECTED


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
