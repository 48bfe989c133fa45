"""A VM's configuration as plain data, and the files on the datastore that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm


class Role(Enum):
    """What a configuration file is."""

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


def capture(session: Session, vm: Vm) -> VmConfig:
    """Capture a VM's configuration."""
    raise NotImplementedError
