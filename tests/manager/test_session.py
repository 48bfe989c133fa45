"""A session outlives idle time and dropped connections; reads are repeated, actions are not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyVmomi import vim

from tests.manager.managers import BOTH, Manager, address
from vcbproxy.clock import ManualClock
from vcbproxy.errors import CredentialsError, ManagerError
from vcbproxy.lab.vcenter.faults import Trouble as Ordered
from vcbproxy.lab.vcenter.faults import What, Where
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session, connect

MANAGERS = BOTH


def test_an_ended_session_is_opened_again(server: Manager, session: Session) -> None:
    for _ in range(3):
        server.expire_sessions()
        assert [vm.name for vm in inventory.vms(session)] == ["vm1"]
    assert server.calls["Login"] == 1 + 3


@pytest.mark.parametrize("call", ["CreateContainerView", "RetrievePropertiesEx", "DestroyView"])
def test_a_session_that_ends_in_the_middle_of_a_read(server: Manager, session: Session, call: str) -> None:
    """Views die with their session: the whole read starts over, not the one call."""
    server.faults.order(Ordered(call, What.EXPIRE))
    assert [vm.name for vm in inventory.vms(session)] == ["vm1"]


def test_a_login_that_is_refused_meanwhile(server: Manager, session: Session) -> None:
    server.faults.add("Login", fault=vim.fault.InvalidLogin(), times=9)
    server.expire_sessions()
    with pytest.raises(CredentialsError):
        inventory.vms(session)


def test_a_manager_that_authenticates_nobody_is_asked_once_more_only(server: Manager, session: Session) -> None:
    server.faults.add("CreateContainerView", fault=vim.fault.NotAuthenticated(), times=99)
    with pytest.raises(ManagerError) as caught:
        inventory.vms(session)
    assert trouble_of(caught.value) is Trouble.SESSION
    assert server.calls["CreateContainerView"] == 2


@pytest.mark.parametrize("where", [Where.CALL, Where.ANSWER])
def test_a_dropped_connection_is_taken_up_again(server: Manager, session: Session, where: Where) -> None:
    server.faults.add("RetrievePropertiesEx", drop=True, times=3, where=where)
    assert [vm.name for vm in inventory.vms(session)] == ["vm1"]


def test_an_answer_that_breaks_off_is_asked_for_again(server: Manager, session: Session) -> None:
    server.faults.order(Ordered("RetrievePropertiesEx", What.BREAK, times=3))
    assert [vm.name for vm in inventory.vms(session)] == ["vm1"]


def test_a_manager_that_restarts_is_waited_for(server: Manager, session: Session) -> None:
    server.faults.order(Ordered("RetrievePropertiesEx", What.RESTART), Ordered("Login", What.UNAVAILABLE))
    assert [vm.name for vm in inventory.vms(session)] == ["vm1"]


def test_a_connection_that_stays_away_is_an_error(server: Manager, session: Session, clock: ManualClock) -> None:
    before = clock.monotonic()
    server.faults.add("RetrievePropertiesEx", drop=True, times=99)
    with pytest.raises(ManagerError) as caught:
        inventory.vms(session)
    assert trouble_of(caught.value) is Trouble.CONNECTION
    assert clock.monotonic() - before > 5


def test_an_answer_that_does_not_come_in_time(server: Manager, clock: ManualClock) -> None:
    where = address(server, timeout_s=0.3)
    with connect(where, server.username, server.password, clock=clock) as session:
        server.faults.add("RetrievePropertiesEx", delay_s=1.0)
        assert inventory.vms(session)


def test_a_fault_is_not_repeated(server: Manager, session: Session) -> None:
    server.faults.add("RetrievePropertiesEx", fault=vim.fault.NoPermission(privilegeId="System.Read"))
    with pytest.raises(ManagerError, match=r"System\.Read"):
        inventory.vms(session)
    assert server.calls["RetrievePropertiesEx"] == 1


def test_an_action_is_sent_once(server: Manager, session: Session) -> None:
    server.faults.add("ReconfigVM_Task", drop=True, times=99, where=Where.CALL)
    moref = server.datacenter.state.vms[0].moref
    with pytest.raises(ManagerError) as caught:
        session.act(lambda wire: wire.object(vim.VirtualMachine, moref).ReconfigVM_Task(vim.vm.ConfigSpec()))
    assert trouble_of(caught.value) is Trouble.CONNECTION
    assert server.calls["ReconfigVM_Task"] == 1


def test_logging_out_of_a_manager_that_is_gone_is_no_error(server: Manager) -> None:
    with connect(address(server), server.username, server.password):
        server.faults.add("Logout", drop=True)


def test_several_threads_share_a_session(server: Manager, session: Session) -> None:
    """... and log in once each time it ends, not once a thread."""
    for ends in range(1, 4):
        server.expire_sessions()
        with ThreadPoolExecutor(4) as pool:
            looks = [pool.submit(inventory.vms, session) for _ in range(8)]
            assert [len(look.result()) for look in looks] == [1] * 8
        assert server.calls["Login"] == 1 + ends


def test_the_cookie_of_a_late_refusal_is_not_taken_for_the_session(server: Manager, session: Session) -> None:
    """With the fault that says "not logged in" a vCenter hands out a new session, that nobody has logged in to.

    It comes to one thread after another has logged in again: what that one got must stay.
    """
    with ThreadPoolExecutor(1) as beside:
        server.faults.add("CurrentTime", fault=vim.fault.NotAuthenticated(), delay_s=1)
        late = beside.submit(overview.current_time, session)
        while not server.calls["CurrentTime"]:
            time.sleep(0.01)
        server.expire_sessions()
        assert [vm.name for vm in inventory.vms(session)] == ["vm1"]
        late.result()
    assert [vm.name for vm in inventory.vms(session)] == ["vm1"]
    assert server.calls["Login"] == 2
