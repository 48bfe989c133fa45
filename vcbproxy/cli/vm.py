"""``vcbproxy vm``: virtual machines as the manager knows them."""

from __future__ import annotations

from typing import Any

import click

from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.units import human


@click.group()
def vm() -> None:
    """Virtual machines as the manager knows them."""


@vm.command("list", cls=frame.Command, exit_codes=(12,))
@frame.config_option
@frame.json_option
def list_(config: Config, as_json: bool) -> None:
    """List all virtual machines."""
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory

    with connect.to_manager(config) as session:
        rows = [
            {
                "name": found.name,
                "moref": found.moref,
                "instance_uuid": found.instance_uuid,
                "uuid": found.uuid,
                "power": found.power_state.value,
                "template": found.template,
                "connected": found.connected,
                "tools": found.tools_running,
                "host_name": found.host_name,
                "ip": list(found.ip_addresses),
                "vmx": None if found.vmx is None else str(found.vmx),
            }
            for found in inventory.vms(session)
        ]
    frame.emit(rows, as_json=as_json, columns=("name", "moref", "power", "tools", "ip", "vmx"))


@vm.command(cls=frame.Command, exit_codes=(12,), examples=("vcbproxy vm show web01", "vcbproxy vm show ip:192.0.2.12"))
@click.argument("selector", metavar="VM")
@frame.config_option
@frame.json_option
def show(selector: str, config: Config, as_json: bool) -> None:
    """Show one virtual machine and whether each of its disks can be read off the SAN.

    VM is a name, moref, UUID or IP address; prefixes (name:, moref:, uuid:, ip:) say which is meant.
    """
    from jobs.eligibility import refusals
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory

    with connect.to_manager(config) as session, connect.storage(config, session) as storage:
        found = inventory.find(session, selector)
        refused = refusals(found, storage)
    disks: list[dict[str, Any]] = [
        {
            "key": disk.key,
            "label": disk.label,
            "size": human(disk.capacity_bytes),
            "size_bytes": disk.capacity_bytes,
            "path": str(disk.path),
            "kind": disk.kind.value,
            "mode": disk.mode,
            "readable": disk.key not in refused,
            "reason": refused.get(disk.key),
        }
        for disk in found.disks
    ]
    document: dict[str, Any] = {
        "name": found.name,
        "moref": found.moref,
        "instance_uuid": found.instance_uuid,
        "uuid": found.uuid,
        "power": found.power_state.value,
        "guest": found.guest,
        "tools": found.tools_running,
        "host_name": found.host_name,
        "ip": list(found.ip_addresses),
        "vmx": None if found.vmx is None else str(found.vmx),
        "snapshots": found.has_snapshots,
        "consolidation_needed": found.consolidation_needed,
    }
    if as_json:
        frame.emit({**document, "disks": disks}, as_json=True)
        return
    frame.emit(document, as_json=False)
    click.echo()
    frame.emit(disks, as_json=False, columns=("key", "size", "kind", "path", "readable"), columns_if_any=("reason",))
