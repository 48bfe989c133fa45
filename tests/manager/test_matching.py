"""Which VMs a selector stands for: any of its meanings, unless a prefix chooses one."""

from __future__ import annotations

import pytest

from vcbproxy.manager.inventory import Power, VmSummary, matching

UUID = "564d9c1a-71a5-7f1c-3f7c-0123456789ab"
INSTANCE = "5213f7a0-91c5-2f55-6ee1-ba9876543210"


def summary(moref: str, name: str, **facts: object) -> VmSummary:
    known: dict[str, object] = {
        "uuid": None,
        "instance_uuid": None,
        "power_state": Power.ON,
        "connected": True,
        "template": False,
        "host_name": None,
        "ip_addresses": (),
        "tools_running": True,
        "change_tracking": False,
        "vmx": None,
    }
    return VmSummary(moref, name, **{**known, **facts})  # type: ignore[arg-type]


EVERYTHING = [
    summary(
        "vm-1", "web01", uuid=UUID, instance_uuid=INSTANCE, ip_addresses=("10.0.0.1", "fe80::1"), host_name="Web01.l"
    ),
    summary("vm-2", "db01", uuid="564d0000-0000-0000-0000-000000000002"),
    summary("vm-3", "vm-2"),
    summary("vm-4", "twin"),
    summary("vm-5", "twin"),
    summary("vm-6", "ip:10.0.0.1"),
    summary("vm-7", "lost"),
]


@pytest.mark.parametrize(
    ("selector", "morefs"),
    [
        ("web01", ["vm-1"]),
        ("Web01", []),
        ("web0", []),
        ("WEB01.L", ["vm-1"]),
        ("10.0.0.1", ["vm-1"]),
        ("fe80::1", ["vm-1"]),
        ("vm-1", ["vm-1"]),
        (UUID, ["vm-1"]),
        (UUID.upper(), ["vm-1"]),
        ("56 4d 9c 1a 71 a5 7f 1c-3f 7c 01 23 45 67 89 ab", ["vm-1"]),
        (INSTANCE, ["vm-1"]),
        ("vm-2", ["vm-2", "vm-3"]),
        ("moref:vm-2", ["vm-2"]),
        ("name:vm-2", ["vm-3"]),
        ("twin", ["vm-4", "vm-5"]),
        ("ip:10.0.0.1", ["vm-1"]),
        ("name:ip:10.0.0.1", ["vm-6"]),
        ("uuid:web01", []),
        ("", []),
        ("uuid:", []),
        ("ip:", []),
    ],
)
def test_selectors(selector: str, morefs: list[str]) -> None:
    assert [vm.moref for vm in matching(EVERYTHING, selector)] == morefs
