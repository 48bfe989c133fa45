"""``vcbproxy vm``: virtual machines as the manager knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vcbproxy.cli import frame
from vcbproxy.config import Config
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.manager.vm import VmSummary


@click.group(cls=frame.Group)
def vm() -> None:
    """Virtual machines as the manager knows them."""


@vm.command(
    "list",
    cls=frame.Command,
    exit_codes=(12,),
    examples=(
        "vcbproxy vm list 'folder:/DC0/prod/** and powerstate:on'",
        "vcbproxy vm list 'web*' not:tag:scratch     what tonight would mean",
    ),
)
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@frame.config_option
@frame.json_option
def list_(selectors: tuple[str, ...], config: Config, as_json: bool) -> None:
    """List virtual machines: all of them, or those that selectors mean now.

    A selector is a name, a pattern (web*), or a kind and a pattern: name: ipaddr: uuid: moref: powerstate: folder: tag:
    datastore: any: — joined by " and " where several must hold; not: before it takes away.
    """
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory

    with connect.to_manager(config) as session:
        found = inventory.chosen(session, selectors, inventory.LISTED) if selectors else inventory.vms(session)
    columns = ("name", "moref", "power", "tools", "ip", "folder", "datastores")
    frame.emit([_row(vm) for vm in found], as_json=as_json, columns=columns, columns_if_any=("tags", "problem"))


def _row(vm: VmSummary) -> dict[str, Any]:
    from vcbproxy.manager.selector import folder_text, tag_text

    return {
        "name": vm.name,
        "moref": vm.moref,
        "instance_uuid": vm.instance_uuid,
        "uuid": vm.uuid,
        "power": None if vm.power_state is None else vm.power_state.value,
        "template": vm.template,
        "connected": vm.connected,
        "tools": vm.tools_running,
        "host_name": vm.host_name,
        "ip": list(vm.ip_addresses),
        "vmx": None if vm.vmx is None else str(vm.vmx),
        "folder": None if vm.folder is None else folder_text(vm.folder),
        "datastores": None if vm.datastores is None else list(vm.datastores),
        "tags": None if vm.tags is None else sorted(tag_text(tag) for tag in vm.tags),
        "problem": _problem(vm),
    }


def _problem(vm: VmSummary) -> str | None:
    if vm.template:
        return "template"
    if vm.cluster_service:
        return "vcls"
    return None if vm.connected else vm.connection.value


@vm.command(cls=frame.Command, exit_codes=(12,), examples=("vcbproxy vm show web01", "vcbproxy vm show ip:192.0.2.12"))
@click.argument("selector", metavar="VM")
@frame.config_option
@frame.json_option
def show(selector: str, config: Config, as_json: bool) -> None:
    """Show one virtual machine and whether each of its disks can be read off the SAN.

    VM is a name, moref, UUID, IP address or host name; any selector that means one VM will do.
    """
    from jobs.eligibility import refusals
    from vcbproxy.cli import connect
    from vcbproxy.manager import inventory

    with connect.to_manager(config) as session, connect.storage(config, session) as storage:
        found = inventory.find(session, selector)
        refused = refusals(found.disks, storage)
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
