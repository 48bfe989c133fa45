"""Releases of the manager: each speaks its schemas and no newer one, and the whole client works with each."""

from __future__ import annotations

import dataclasses
import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyVim.connect import SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from tests.lab.clients import BROKEN, connected, disks, find, snapshot_of
from vcbproxy.clock import ManualClock
from vcbproxy.config import Quiesce
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.persona import Persona
from vcbproxy.lab.vcenter.release import RELEASES
from vcbproxy.manager import inventory
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.session import ManagerAddress, connect
from vcbproxy.manager.snapshot import held
from vcbproxy.units import MiB

Collector = vmodl.query.PropertyCollector
SPEC = LabSpec((DatastoreSpec("nfs1", 0),), (VmSpec("vm1", "nfs1", (DiskSpec(4 * MiB, node="nvme0-0"),)),))
VERSIONS = {"6.5": "version11", "6.7": "version15", "7.0": "v7_0_3_0", "8.0": "v8_0_3_0"}


@pytest.fixture(scope="module")
def datacenter(tmp_path_factory) -> Iterator[Datacenter]:
    with Datacenter.create(tmp_path_factory.mktemp("lab") / "dc", SPEC) as datacenter:
        yield datacenter


@contextmanager
def released(datacenter: Datacenter, name: str, *, esxi: bool = False) -> Iterator[LabServer]:
    with LabServer(datacenter, persona=Persona(esxi=esxi, release=RELEASES[name])) as server:
        yield server


@pytest.mark.parametrize("name", RELEASES)
def test_stock_pyvmomi_agrees_on_its_version(datacenter, name):
    with released(datacenter, name) as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        client = SmartConnect(
            host=server.host, port=server.port, user=server.username, pwd=server.password, sslContext=context
        )
        assert client._stub.version == f"vim.version.{VERSIONS[name]}"
        assert client.content.about.apiVersion == RELEASES[name].api_version
        assert disks(find(client, "vm1").config)[32000].capacityInBytes == 4 * MiB
        client._stub.DropConnections()


def test_the_specification_chooses(tmp_path):
    spec = dataclasses.replace(SPEC, release="6.7", esxi=True)
    with (
        Datacenter.create(tmp_path / "lab", spec) as datacenter,
        LabServer(datacenter) as server,
        connected(server, version="vim.version.version15") as client,
    ):
        about = client.content.about
        assert (about.apiVersion, about.apiType, about.version) == ("6.7.3", "HostAgent", "6.7.0")


@pytest.mark.parametrize("esxi", [False, True])
@pytest.mark.parametrize("name", RELEASES)
def test_our_client_holds_a_snapshot_with_each(datacenter, name, esxi):
    with released(datacenter, name, esxi=esxi) as server:
        where = ManagerAddress(server.host, server.port, ca_file=server.ca_file)
        clock = ManualClock()
        with connect(where, server.username, server.password, clock=clock) as session:
            assert session.about.api_version == RELEASES[name].api_version
            assert session.about.is_vcenter is not esxi
            vm = inventory.find(session, "vm1")
            marker = Marker(f"run-{name}", "proxy01")
            with held(session, vm, name="x", marker=marker, quiesce=Quiesce.REQUIRE, clock=clock) as frozen:
                assert [disk.key for disk in frozen.disks] == ["nvme0-0"]
        assert datacenter.machine("vm1").state.snapshots == []


def test_what_came_later_is_not_there(datacenter):
    with released(datacenter, "6.5") as server, connected(server, version="vim.version.version11") as client:
        vm = find(client, "vm1")

        def ask(path):
            spec = Collector.FilterSpec(
                objectSet=[Collector.ObjectSpec(obj=vm)],
                propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=[path])],
            )
            return client.content.propertyCollector.RetrievePropertiesEx([spec], Collector.RetrieveOptions())

        assert ask("config.hardware.device")
        with pytest.raises(vmodl.query.InvalidProperty):
            ask("config.sevEnabled")  # 7.0.1
        assert server.calls["RetrievePropertiesEx"] == 2


def test_a_snapshot_ex_came_with_6_5(datacenter):
    """A client that believes it to be there; stock pyVmomi knows better."""
    with released(datacenter, "6.5") as server, connected(server, version="vim.version.version10") as client:
        vm = find(client, "vm1")
        assert disks(snapshot_of(vm).config)[32000].backing.parent is None
        body = (
            '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
            f'<CreateSnapshotEx_Task xmlns="urn:vim25"><_this type="VirtualMachine">{vm._moId}</_this><name>x</name>'
            "<memory>false</memory></CreateSnapshotEx_Task></soapenv:Body></soapenv:Envelope>"
        )
        status, answer = post(server, body, "urn:vim25/6.0")
        assert status == 500
        assert b"no such method in this version" in answer
        WaitForTask(vm.RemoveAllSnapshots_Task())


def post(server, body, action):
    context = ssl.create_default_context(cafile=str(server.ca_file))
    connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=10)
    try:
        connection.request("POST", "/sdk", body, {"SOAPAction": f'"{action}"'})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_version_that_is_not_spoken_is_refused(datacenter):
    with released(datacenter, "6.5") as server:
        status, answer = post(server, "", "urn:vim25/7.0.3.0")
        assert status == 500
        assert b"Unsupported version URI" in answer
        with pytest.raises((vmodl.MethodFault, *BROKEN)), connected(server, version="vim.version.v8_0_3_0"):
            pass
