"""``vcbproxy lab``: make a datacenter in a folder, serve its vCenter, ask what its disks held."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcbproxy.cli import frame
from vcbproxy.cli.demo import demo
from vcbproxy.cli.trouble import trouble
from vcbproxy.errors import Cancelled, Terminated, UsageError
from vcbproxy.units import human

if TYPE_CHECKING:
    from vcbproxy.lab.spec import LabSpec
    from vcbproxy.lab.vcenter import LabServer
    from vcbproxy.lab.vcenter.persona import Persona

_READY_NAME = "serve.json"  # vcbproxy.lab.door looks for it


@click.group(cls=frame.Group)
def lab() -> None:
    """A datacenter in a folder, to try everything out.

    LUN images with VMFS on them, a vCenter on loopback, and guests that write while backups run.
    """


@lab.command(
    cls=frame.Command,
    examples=("vcbproxy lab create /tmp/lab", "vcbproxy lab create /tmp/lab --spec my-lab.json     see docs/lab.md"),
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--spec",
    "spec_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What to build, in JSON (docs/lab.md).",
)
@click.option("--demo", is_flag=True, help="Three VMs on VMFS-3, -5 and -6; this is what is built by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the demo: another seed, other bytes.")
@frame.json_option
def create(directory: Path, spec_path: Path | None, demo: bool, seed: int, as_json: bool) -> None:
    """Make a new datacenter in DIRECTORY, with a configuration vcbproxy.toml that fits it."""
    from vcbproxy.lab import client
    from vcbproxy.lab import spec as specification
    from vcbproxy.lab.datacenter import Datacenter

    if spec_path is not None and demo:
        raise UsageError("give --spec or --demo, not both")
    spec = specification.load(spec_path) if spec_path is not None else specification.demo(seed)
    with Datacenter.create(directory, spec) as datacenter:
        rows = [
            {
                "vm": machine.state.name,
                "moref": machine.state.moref,
                "datastore": machine.state.datastore,
                "disks": [disk.node for disk in machine.state.disks],
                "size": human(sum(disk.size_bytes for disk in machine.state.disks)),
                "size_bytes": sum(disk.size_bytes for disk in machine.state.disks),
                "snapshots": len(machine.state.snapshots),
            }
            for machine in datacenter.machines
        ]
    columns = ("vm", "moref", "datastore", "size", "snapshots", "disks")
    frame.emit({"directory": str(directory), "vms": rows} if as_json else rows, as_json=as_json, columns=columns)
    if not as_json:
        file = directory.resolve() / client.CONFIG_NAME
        frame.say(f"Now serve it: vcbproxy lab serve {shlex.quote(str(directory))} --guest-writes &")
        frame.say(f"And use it:   export {frame.CONFIG_VARIABLE}={shlex.quote(str(file))}")


@lab.command(cls=frame.Command, exit_codes=(11,), examples=("vcbproxy lab serve /tmp/lab --guest-writes &",))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), help="0 = any; by default the one in vcbproxy.toml.")
@click.option("--guest-writes", is_flag=True, help="Let the guests write while this runs.")
@click.option("--writes-per-s", type=click.FloatRange(min=0.1), default=50, show_default=True, help="How many.")
@click.option("--release", help="6.5, 6.7, 7.0 or 8.0; by default as specified.")
@click.option("--esxi", is_flag=True, help="Be a host that is spoken to directly.")
def serve(
    directory: Path, port: int | None, guest_writes: bool, writes_per_s: float, release: str | None, esxi: bool
) -> None:
    """Serve the vCenter of the datacenter in DIRECTORY on loopback until Ctrl-C or SIGTERM.

    When it is ready its address is printed, and written to serve.json in DIRECTORY.
    """
    from vcbproxy.lab import client
    from vcbproxy.lab.datacenter import Datacenter
    from vcbproxy.lab.vcenter import LabServer

    with Datacenter.open(directory) as datacenter:
        known_port = _configured_port(directory)
        wanted_port = known_port if port is None else port
        persona = _persona(datacenter.state.spec, release, esxi=esxi)
        with LabServer(datacenter, port=wanted_port, persona=persona) as server, contextlib.ExitStack() as stack:
            if server.port != known_port:
                client.set_port(directory, datacenter.state.spec, server.port)
            if guest_writes:
                stack.enter_context(server.guest_writer(writes_per_s=writes_per_s))
            stack.enter_context(_announced(directory / _READY_NAME, server))
            with contextlib.suppress(Cancelled, Terminated):
                threading.Event().wait()


def _persona(spec: LabSpec, release: str | None, *, esxi: bool) -> Persona:
    from vcbproxy.lab.vcenter.persona import Persona
    from vcbproxy.lab.vcenter.release import RELEASES

    wanted = release or spec.release
    if wanted not in RELEASES:
        raise UsageError(f"the lab knows no release {wanted!r}; it has {', '.join(RELEASES)}")
    return Persona(esxi=esxi or spec.esxi, release=RELEASES[wanted])


def _configured_port(directory: Path) -> int:
    from vcbproxy.lab import client

    try:
        return client.port(directory)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{directory / client.CONFIG_NAME} does not tell the vCenter's port: {error}") from error


@contextlib.contextmanager
def _announced(path: Path, server: LabServer) -> Iterator[None]:
    ready = {"url": server.url, "port": server.port, "pid": os.getpid(), "thumbprint": server.thumbprint}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(ready, indent=2) + "\n", "utf-8")
    fresh.replace(path)
    click.echo(server.url)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@lab.command(cls=frame.Command)
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("vm", required=False)
@click.option("--disk", help="Only the disk at this node, such as scsi0-0.")
@click.option("--marker", help="Only snapshots with this text in their description.")
@frame.json_option
def truth(directory: Path, vm: str | None, disk: str | None, marker: str | None, as_json: bool) -> None:
    """Tell what disks held at the instant of each snapshot, oldest first.

    The SHA-256 is of the whole raw disk; "raw" names a sparse copy of it, where one is kept.
    """
    from vcbproxy.lab import datacenter

    if not directory.is_dir():
        raise UsageError(f"no lab in {directory}; make one with `vcbproxy lab create {directory}`")
    state = datacenter.peek(directory)
    if vm is not None and not any(vm in (known.name, known.moref) for known in state.vms):
        raise UsageError(f"the lab has no VM {vm!r}")
    rows = [
        {
            "vm": record.vm,
            "moref": record.vm_moref,
            "snapshot": record.snapshot,
            "name": record.name,
            "description": record.description,
            "created": record.created.isoformat(),
            "disk": node,
            "size_bytes": held.size_bytes,
            "sha256": held.sha256,
            "raw": str(directory / held.raw_path) if held.raw_path else None,
        }
        for record in state.truths
        for node, held in record.disks.items()
        if vm in (None, record.vm, record.vm_moref) and disk in (None, node) and (marker or "") in record.description
    ]
    frame.emit(rows, as_json=as_json, columns=("vm", "snapshot", "created", "disk", "sha256"))


lab.add_command(demo)
lab.add_command(trouble)
