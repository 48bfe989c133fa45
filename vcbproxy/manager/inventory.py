"""The inventory: listing virtual machines and datastores, and finding the one VM that is meant."""

from __future__ import annotations

from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath
from vcbproxy.manager.disk import Disk, DiskKind, refusal
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Power, Vm, VmSummary

__all__ = [
    "Datastore",
    "DatastoreKind",
    "DatastorePath",
    "Disk",
    "DiskKind",
    "Power",
    "Vm",
    "VmSummary",
    "datastores",
    "find",
    "get",
    "refusal",
    "vms",
]


def vms(session: Session) -> list[VmSummary]:
    """All virtual machines, templates included, by name."""
    raise NotImplementedError


def datastores(session: Session) -> list[Datastore]:
    """All datastores, by name."""
    raise NotImplementedError


def find(session: Session, selector: str) -> Vm:
    """The one VM that a name, moref, UUID or IP address stands for."""
    raise NotImplementedError


def get(session: Session, moref: str) -> Vm:
    """A VM by its moref, as it is now."""
    raise NotImplementedError
