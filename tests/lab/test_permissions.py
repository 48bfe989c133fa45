"""The lab's privileges: taken away they are refused, told by both of the API's ways, and hide what may not be seen."""

from __future__ import annotations

import pytest
from pyVmomi import vim, vmodl

from tests.lab.clients import connected, find
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import tiny
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.persona import Persona

CREATE = "VirtualMachine.State.CreateSnapshot"
REMOVE = "VirtualMachine.State.RemoveSnapshot"


@pytest.fixture(scope="module")
def datacenter(tmp_path_factory):
    with Datacenter.create(tmp_path_factory.mktemp("lab") / "dc", tiny(5)) as datacenter:
        yield datacenter


@pytest.fixture
def server(datacenter):
    with LabServer(datacenter) as server:
        yield server


def granted(client, vm, *names, key=None):
    content = client.content
    key = key or content.sessionManager.currentSession.key
    (answer,) = content.authorizationManager.HasPrivilegeOnEntities([vm], key, list(names))
    assert answer.entity == vm
    return {told.privId: told.isGranted for told in answer.privAvailability}


def test_what_was_taken_away_is_refused_and_told(server):
    with connected(server) as client:
        vm = find(client, "vm1")
        assert granted(client, vm, CREATE, REMOVE) == {CREATE: True, REMOVE: True}
        server.permissions.take(CREATE, vm._moId)
        assert granted(client, vm, CREATE, REMOVE) == {CREATE: False, REMOVE: True}
        with pytest.raises(vim.fault.NoPermission) as caught:
            vm.CreateSnapshot_Task("x", "", False, False)
        assert (caught.value.privilegeId, caught.value.object) == (CREATE, vm)
        server.permissions.restore()
        assert granted(client, vm, CREATE) == {CREATE: True}


def test_to_an_unknown_session_nothing_is_granted(server):
    with connected(server) as client:
        assert granted(client, find(client, "vm1"), CREATE, key="nobody") == {CREATE: False}
        with pytest.raises(vmodl.fault.InvalidArgument):
            granted(client, find(client, "vm1"), "VirtualMachine.NoSuch")


def test_what_may_not_be_seen_is_in_no_list(server):
    with connected(server) as client:
        server.permissions.take("System.Read", find(client, "vm1")._moId)
        content = client.content
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        assert list(view.view) == []


def test_a_host_tells_by_roles_alone(datacenter):
    with LabServer(datacenter, persona=Persona(esxi=True, managed_by="192.0.2.10")) as server:
        moref = datacenter.state.vms[0].moref
        server.permissions.take(REMOVE, moref)
        with connected(server) as client:
            content = client.content
            assert (content.about.apiType, content.about.instanceUuid) == ("HostAgent", None)
            vm = find(client, "vm1")
            with pytest.raises(vmodl.fault.NotSupported):
                granted(client, vm, CREATE)
            roles = {role.roleId: set(role.privilege) for role in content.authorizationManager.roleList}
            (number,) = vm.effectiveRole
            assert CREATE in roles[number]
            assert REMOVE not in roles[number]
            host = vm.runtime.host
            assert host.summary.managementServerIp == "192.0.2.10"
