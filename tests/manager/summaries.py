"""VMs for the tests of selectors, as an inventory would list them."""

from __future__ import annotations

from typing import Any

from vcbproxy.manager.vm import Power, Tag, VmSummary

UUID = "564d9c1a-71a5-7f1c-3f7c-0123456789ab"
INSTANCE = "5213f7a0-91c5-2f55-6ee1-ba9876543210"


def vm(moref: str, name: str, **facts: Any) -> VmSummary:
    known: dict[str, Any] = {"power_state": Power.ON, "folder": ("DC0",), "datastores": ("san1",), "tags": frozenset()}
    return VmSummary(moref, name, **{**known, **facts})


def tags(*texts: str) -> frozenset[Tag]:
    return frozenset(Tag(*text.split("/", 1)) for text in texts)


EVERYTHING = [
    vm(
        "vm-1",
        "web01",
        uuid=UUID,
        instance_uuid=INSTANCE,
        ip_addresses=("10.0.0.1", "fe80::1"),
        host_name="Web01.l",
        folder=("DC0", "prod", "web"),
        tags=tags("Backup/gold", "Owner/shop"),
    ),
    vm("vm-2", "db01", uuid="564d0000-0000-0000-0000-000000000002", folder=("DC0", "prod"), datastores=("san1", "nfs")),
    vm("vm-3", "vm-2", power_state=Power.OFF),
    vm("vm-4", "twin", folder=("DC0", "test"), tags=tags("Backup/silver")),
    vm("vm-5", "twin", folder=("DC1", "test"), tags=tags("Retain/gold")),
    vm("vm-6", "ip:10.0.0.1", power_state=Power.SUSPENDED),
    vm("vm-7", "lost", power_state=None, folder=None, datastores=None),
    vm("vm-8", "Web-gold", template=True, folder=("DC0", "templates")),
    vm("vm-9", "!odd"),
    vm("vm-10", "a*b [old]", folder=("DC0", "half/half", "50%")),
    vm("vm-11", "axb [old]"),
    vm("vm-12", "caf\u00e9", ip_addresses=("2001:db8:0:0:0:0:0:7",)),
    vm("vm-13", "cafe\u0301"),
    vm("vm-14", "tom and name:jerry"),
    vm("vm-15", r"dom\srv"),
]
