"""A VM's configuration: the manager's description as plain data, and which small files of its folder belong to it.

The description is what a restore builds the VM from again; the files are copied off the datastore as they are, since
they say more than the API does (firmware variables, TPM, odd settings).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pyVmomi import vim

from vcbproxy.manager import convert, properties
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.session import Session
from vcbproxy.manager.snapshot import VmSnapshot
from vcbproxy.manager.vm import Vm


class Role(Enum):
    """What a configuration file is; the value is the usual suffix."""

    VMX = "vmx"
    NVRAM = "nvram"
    VMXF = "vmxf"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One small file of the VM's folder."""

    role: Role
    path: DatastorePath


@dataclass(frozen=True, slots=True)
class VmConfig:
    """The manager's description as JSON-able data, and the files that lie beside the disks."""

    document: dict[str, Any]
    files: tuple[ConfigFile, ...]


# How the manager's list of a VM's files (layoutEx) calls them.
_LAYOUT_TYPES = {"config": Role.VMX, "nvram": Role.NVRAM, "extendedConfig": Role.VMXF}
# ... and the settings that name them relative to the .vmx, when the list is not filled in yet.
_SETTINGS = {"nvram": Role.NVRAM, "extendedConfigFile": Role.VMXF}


def capture(session: Session, vm: Vm, snapshot: VmSnapshot | None = None) -> VmConfig:
    """Capture a VM's configuration.

    Args:
        session: where the VM is.
        vm: whose.
        snapshot: describe the VM as this snapshot froze it; without, as it is now.

    Raises:
        ManagerError: it is gone, or the manager cannot tell.
    """
    row = session.read(
        lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, vm.moref), ["config", "layoutEx.file"])
    )
    config = row.need("config")
    document = {
        "manager": {
            "name": session.about.full_name,
            "instance_uuid": session.instance_uuid,
            "api_version": session.about.api_version,
        },
        "moref": vm.moref,
        "name": vm.name,
        "uuid": vm.uuid,
        "instance_uuid": vm.instance_uuid,
        "power_state": vm.power_state.value,
        "config": snapshot.config if snapshot is not None else convert.plain(config),
    }
    vmx = DatastorePath.parse(config.files.vmPathName or "")  # now: the VM may have moved since it was listed
    return VmConfig(document, _files(vmx, row.get("layoutEx.file") or (), config.extraConfig))


def _files(vmx: DatastorePath, layout: Any, settings: Any) -> tuple[ConfigFile, ...]:
    """The .vmx, and .nvram and .vmxf where there are any; the list of files knows best where they lie."""
    found = {Role.VMX: vmx}
    for file in layout:
        role = _LAYOUT_TYPES.get(str(file.type))
        if role is not None and file.name:
            found.setdefault(role, DatastorePath.parse(file.name))
    for option in settings:
        role = _SETTINGS.get(option.key)
        if role is not None and option.value and "/" not in str(option.value):
            found.setdefault(role, vmx.beside(str(option.value)))
    return tuple(ConfigFile(role, path) for role, path in found.items())
