"""Stock pyVmomi, connected to a lab's vCenter over verified TLS."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from typing import Any

from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, vim

from vcbproxy.lab.vcenter import LabServer

BROKEN = (http.client.HTTPException, ConnectionError, ssl.SSLError)
"""What a client sees of a connection that was cut, or of an answer that is no SOAP."""


@contextlib.contextmanager
def connected(
    server: LabServer, password: str | None = None, *, version: str = "vim.version.v8_0_3_0", timeout_s: float = 30
) -> Iterator[Any]:
    """A service instance, logged in."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    stub = SoapStubAdapter(
        server.host, server.port, version=version, sslContext=context, httpConnectionTimeout=timeout_s
    )
    instance = vim.ServiceInstance("ServiceInstance", stub)
    try:
        instance.content.sessionManager.Login(server.username, password or server.password)
        yield instance
    finally:
        stub.DropConnections()


def find(client: Any, name: str) -> Any:
    return client.content.searchIndex.FindByInventoryPath(f"DC0/vm/{name}")


def disks(config: Any) -> dict[int, Any]:
    return {device.key: device for device in config.hardware.device if isinstance(device, vim.vm.device.VirtualDisk)}


def snapshot_of(vm: Any, name: str = "backup", *, quiesce: bool = False) -> Any:
    task = vm.CreateSnapshot_Task(name=name, description="marker", memory=False, quiesce=quiesce)
    WaitForTask(task)
    return task.info.result
