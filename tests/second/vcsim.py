"""A second vCenter: Debian's govmomi simulator (see vcsim/main.go), mirroring a lab's datacenter.

Same names, paths, UUIDs and LUNs; so the program, pointed at it, finds on the lab's images what this manager tells of.
Morefs, properties, sessions, updates and the rest of the API are other people's work.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from http.client import HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyVmomi import VmomiSupport

from tests.second import golang
from vcbproxy.lab import certificate
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import VmSpec
from vcbproxy.lab.state import DatastoreState, DiskState, VmState
from vcbproxy.lab.vcenter import faults
from vcbproxy.lab.vmfs import Allocation

_VMFS_VERSIONS = {3: "3.31", 5: "5.81", 6: "6.82"}
_support: Any = VmomiSupport


class Vcsim:
    """The simulator as a process of its own; it ends with the block."""

    def __init__(self, datacenter: Datacenter) -> None:
        self.datacenter = datacenter
        self.faults = Faults(self)
        self.calls = Calls(self)
        self.host = "127.0.0.1"
        self.port = 0
        self.username = datacenter.state.spec.username
        self.password = datacenter.state.spec.password
        self._tls = datacenter.directory / "tls"
        self._process: subprocess.Popen[str] | None = None
        self._state: tempfile.TemporaryDirectory[str] | None = None
        self._log: list[str] = []
        self._reader: threading.Thread | None = None

    @property
    def ca_file(self) -> Path:
        return self._tls / "ca.pem"

    @property
    def thumbprint(self) -> str:
        return certificate.thumbprint(self._tls)

    @property
    def instance_uuid(self) -> str:
        return self.datacenter.state.instance_uuid

    def snapshots(self, vm: str) -> list[str]:
        """Names of a VM's snapshots, parents first, as the simulator itself has them."""
        return list(self.ask("GET", f"/_lab/snapshots?vm={vm}"))

    def expire_sessions(self) -> None:
        """Terminate every session."""
        self.ask("POST", "/_lab/expire")

    def wrote(self, vm: str, disk: int, offsets: Sequence[int], length: int) -> None:
        """Let a guest have written there, as far as change tracking is concerned."""
        self.ask("POST", "/_lab/write", VM=vm, Disk=disk, Starts=list(offsets), Length=length)

    def ask(self, method: str, path: str, **facts: Any) -> Any:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        connection = HTTPSConnection(self.host, self.port, timeout=30, context=context)
        try:
            connection.request(method, path, json.dumps(facts), {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, f"{path}: {body}"
            return json.loads(body)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        binary = golang.program("vcsim")
        self._state = tempfile.TemporaryDirectory(prefix="vcsim-")
        described = Path(self._state.name) / "world.json"
        described.write_text(json.dumps(world(self.datacenter)))
        datastores = Path(self._state.name) / "datastores"
        files = {
            "world": described,
            "state": datastores,
            "cert": self._tls / "server.pem",
            "key": self._tls / "server.key",
        }
        self._process = subprocess.Popen(
            [str(binary), *(part for name, path in files.items() for part in (f"-{name}", str(path)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._keep_log)
        self._reader.start()
        line = self._process.stdout.readline()
        if not line:
            self.__exit__(None, None, None)
            raise AssertionError("vcsim did not start:\n" + "".join(self._log))
        self.port = int(json.loads(line)["port"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, reader, state = self._process, self._reader, self._state
        assert process is not None
        assert process.stdin is not None
        assert reader is not None
        assert state is not None
        process.stdin.close()
        process.wait(10)
        reader.join()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        state.cleanup()
        if any("panic" in line for line in self._log):
            raise AssertionError("vcsim panicked:\n" + "".join(self._log)) from error

    def _keep_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        self._log.extend(self._process.stderr)


class Calls:
    """How often each method was called."""

    def __init__(self, server: Vcsim) -> None:
        self._server = server

    def __getitem__(self, method: str) -> int:
        return int(self._server.ask("GET", "/_lab/calls").get(method, 0))

    def clear(self) -> None:
        """Count from nought again."""
        self._server.ask("POST", "/_lab/calm")


class Faults(faults.Faults):
    """Trouble on demand, ordered in the words of the lab's own vCenter."""

    def __init__(self, server: Vcsim) -> None:
        super().__init__()
        self._server = server

    def order(self, *troubles: faults.Trouble) -> None:
        for trouble in troubles:
            assert trouble.chance == 1, "vcsim knows no chance"
            fault = None if trouble.fault is None else trouble.fault()
            self._server.ask(
                "POST",
                "/_lab/trouble",
                Method=trouble.method,
                What=trouble.what.value,
                Where=trouble.strikes_at.value,
                On=trouble.on,
                Fault="" if fault is None else _support.GetWsdlName(type(fault)),
                Text=getattr(fault, "msg", None) or "",
                Facts={} if fault is None else dict(_facts(fault)),
                Seconds=trouble.delay_s,
                Times=trouble.times,
                After=trouble.after,
            )

    def clear(self) -> None:
        self._server.ask("POST", "/_lab/calm")


def _facts(fault: Any) -> list[tuple[str, str]]:
    """A fault's own properties that are plain text; references it must have are filled in by the simulator."""
    named = [prop.name for prop in fault._GetPropertyList() if prop.name not in ("msg", "faultCause", "faultMessage")]
    return [
        (name[0].upper() + name[1:], getattr(fault, name)) for name in named if isinstance(getattr(fault, name), str)
    ]


def world(datacenter: Datacenter) -> dict[str, Any]:
    """What vcsim/world.go reads."""
    state = datacenter.state
    sizes = {spec.name: spec.lun_size_bytes * max(1, spec.luns) for spec in state.spec.datastores}
    formats = {known.name: "seSparseFormat" if known.version == 6 else "redoLogFormat" for known in state.datastores}
    return {
        "Username": state.spec.username,
        "Password": state.spec.password,
        "InstanceUUID": state.instance_uuid,
        "Datastores": [_datastore(known, sizes[known.name]) for known in state.datastores],
        "VMs": [_vm(vm, spec, formats) for vm, spec in zip(state.vms, state.spec.vms, strict=True)],
    }


def _datastore(known: DatastoreState, capacity_bytes: int) -> dict[str, Any]:
    return {
        "Name": known.name,
        "UUID": known.uuid or known.name,
        "Version": _VMFS_VERSIONS.get(known.version, ""),
        "Capacity": capacity_bytes,
        "Extents": [f"naa.{lun.wwn}" for lun in known.luns] if known.version else [],
    }


def _vm(vm: VmState, spec: VmSpec, formats: Mapping[str, str]) -> dict[str, Any]:
    running = vm.powered_on and vm.tools_running
    return {
        "Name": vm.name,
        "Folder": vm.inventory_folder,
        "VMX": f"[{vm.datastore}] {vm.folder[1:]}/{vm.name}.vmx",
        "UUID": vm.uuid,
        "InstanceUUID": vm.instance_uuid,
        "HostName": f"{vm.name}.lab" if running else "",
        "IP": spec.ip if running else "",
        "PoweredOn": vm.powered_on,
        "Tools": vm.tools_running,
        "ChangeTracking": vm.change_tracking,
        "Template": spec.template,
        "Connection": "" if spec.connection == "connected" else spec.connection,
        "Tags": spec.tags,
        "ManagedBy": spec.managed_by,
        "Disks": [_disk(disk, formats[disk.datastore]) for disk in vm.disks],
        "Snapshots": [snapshot.name for snapshot in vm.snapshots],
    }


def _disk(disk: DiskState, delta_format: str) -> dict[str, Any]:
    return {
        "Node": disk.node,
        "Key": disk.device_key,
        "Label": disk.label,
        "Path": f"[{disk.datastore}] {disk.links[0].path[1:]}",
        "Mode": "independent_persistent" if disk.independent else "persistent",
        "UUID": disk.uuid,
        "DeltaFormat": delta_format,
        "Bytes": disk.size_bytes,
        "Thin": disk.allocation is Allocation.THIN,
    }
