"""The manager restarts, or idles us out, while a backup is under way: it is waited for, and logged into anew."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.manager.managers import address, plain_text
from tests.program import served
from vcbproxy.clock import ManualClock, SystemClock
from vcbproxy.config import Manager
from vcbproxy.errors import CredentialsError, Error, ManagerError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DiskSpec, Fill, VmSpec, tiny
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter import faults as lab
from vcbproxy.manager import inventory, shield, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session, connect, connect_when_up
from vcbproxy.units import MiB


@pytest.fixture(scope="module")
def datacenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datacenter]:
    with Datacenter.create(tmp_path_factory.mktemp("lab") / "dc", tiny(6)) as made:
        yield made


@contextmanager
def restarting(datacenter: Datacenter, server: LabServer, after_s: float) -> Iterator[LabServer]:
    """Stop a server now; start another at its port, which knows of no session, a while later."""
    port = server.port
    server.stop()
    again = LabServer(datacenter, port=port)

    def start() -> None:
        time.sleep(after_s)
        again.start()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield again
    finally:
        thread.join()
        again.stop()


def logged_in(server: LabServer, *, retry_s: float = 30) -> Session:
    return connect(address(server, retry_s=retry_s), server.username, server.password, clock=SystemClock())


def test_a_read_waits_for_a_manager_that_restarts(datacenter: Datacenter) -> None:
    with LabServer(datacenter) as server, logged_in(server) as session:
        assert [vm.name for vm in inventory.vms(session)] == ["vm1"]
        with restarting(datacenter, server, after_s=1.0) as again:
            assert [vm.name for vm in inventory.vms(session)] == ["vm1"]
            assert again.calls["Login"] == 1


def reconfigure(moref: str) -> Callable[[object], object]:
    return lambda wire: wire.object(vim.VirtualMachine, moref).ReconfigVM_Task(vim.vm.ConfigSpec())  # type: ignore[attr-defined]


def test_an_action_that_nobody_heard_is_done_once_the_manager_is_back(datacenter: Datacenter) -> None:
    with (
        LabServer(datacenter) as server,
        logged_in(server) as session,
        restarting(datacenter, server, after_s=1.0) as again,
    ):
        session.act(reconfigure(datacenter.state.vms[0].moref))
        assert again.calls["ReconfigVM_Task"] == 2, "once not authenticated, and once done"
        again.centre.tasks.join()
        recent = again.centre.inventory.get(vim.TaskManager("TaskManager", None)).properties["recentTask"]
        assert len(recent) == 1


def test_a_manager_that_stays_away_is_waited_for_as_long_as_was_said(datacenter: Datacenter) -> None:
    with LabServer(datacenter) as server:
        clock = ManualClock()
        where = address(server, retry_s=77)
        with connect(where, server.username, server.password, clock=clock) as session:
            server.stop()
            for ask in (lambda: inventory.vms(session), lambda: session.act(reconfigure("vm-20"))):
                begun = clock.monotonic()
                with pytest.raises(ManagerError, match="refused") as caught:
                    ask()
                assert trouble_of(caught.value) is Trouble.CONNECTION
                assert clock.monotonic() - begun == pytest.approx(77)


def test_a_job_that_no_one_watches_waits_for_a_manager_that_is_not_up_yet(datacenter: Datacenter) -> None:
    with LabServer(datacenter) as server:
        where = address(server, retry_s=30)
        with (
            restarting(datacenter, server, after_s=1.0),
            connect_when_up(where, server.username, server.password) as session,
        ):
            assert inventory.vms(session)


@pytest.mark.parametrize("mistake", ["name", "password", "certificate", "no TLS"])
def test_no_waiting_makes_a_mistake_right(datacenter: Datacenter, mistake: str) -> None:
    clock = ManualClock()
    with LabServer(datacenter) as server, plain_text() as port:
        where, password = address(server), "wrong" if mistake == "password" else server.password
        match mistake:
            case "name":
                where = dataclasses.replace(where, host="no-such-host.invalid")
            case "certificate":
                where = dataclasses.replace(where, ca_file=None)
            case "no TLS":
                where = dataclasses.replace(where, port=port)
        if mistake != "no TLS":
            socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(Error):
            connect_when_up(where, server.username, password, clock=clock)
    assert clock.monotonic() == 0


def test_waiting_can_be_switched_off(datacenter: Datacenter) -> None:
    with LabServer(datacenter) as server:
        clock = ManualClock()
        with connect(address(server, retry_s=0), server.username, server.password, clock=clock) as session:
            server.stop()
            with pytest.raises(ManagerError, match=r"refused|lost"):
                inventory.vms(session)
            assert clock.monotonic() == 0


def test_who_insists_does_not_wait_for_a_manager_that_is_away(datacenter: Datacenter) -> None:
    """The second Ctrl-C during a removal ends the waiting inside it, not only the waiting for it."""
    with LabServer(datacenter) as server, logged_in(server, retry_s=600) as session:
        server.stop()
        begun = time.monotonic()

        def look(interrupts: shield.Interrupts) -> None:
            interrupts.count = 2
            inventory.vms(session)

        with pytest.raises(ManagerError):
            shield.to_the_end(look, "a look")
        assert time.monotonic() - begun < 30


def test_the_password_is_read_anew_at_each_login(datacenter: Datacenter, tmp_path: Path) -> None:
    kept = tmp_path / "password"
    with LabServer(datacenter) as server:
        kept.write_text(server.password)
        settings = Manager(host=server.host, username=server.username, password_file=kept)
        secret = lambda: settings.password("lab")  # noqa: E731
        with connect(address(server), server.username, secret) as session:
            server.change_password("a new one")
            assert inventory.vms(session), "who is logged in stays so"
            server.expire_sessions()
            with pytest.raises(CredentialsError):
                inventory.vms(session)
            kept.write_text("a new one\n")
            assert inventory.vms(session)
            kept.unlink()
            server.expire_sessions()
            with pytest.raises(CredentialsError, match="cannot read the password"):
                inventory.vms(session)


@pytest.mark.parametrize("event", ["idle", "restart"])
def test_a_backup_survives_it(tmp_path: Path, event: str) -> None:
    """While it reads off the SAN nothing is asked of the manager; then its snapshot has to be removed all the same."""
    disk = DiskSpec(96 * MiB, content=ContentSpec(Fill.RANDOM))
    with served(tmp_path / "lab", dataclasses.replace(tiny(6), vms=(VmSpec("vm1", "ds1", (disk,)),))) as lab:
        lab.new_repository()
        servers = [lab.server]

        def strike() -> None:
            while not any((lab.repo / "data").rglob("*/*")):
                time.sleep(0.005)
            if event == "idle":
                lab.server.expire_sessions()
                return
            port = lab.server.port
            lab.server.stop()
            time.sleep(1.5)
            servers.append(LabServer(lab.datacenter, port=port))
            servers[-1].start()

        thread = threading.Thread(target=strike)
        thread.start()
        try:
            done = lab.vcbproxy("backup", "vm1", "--json")
        finally:
            thread.join()
            for server in servers[1:]:
                server.stop()
        assert done.json[0]["outcome"] == "ok"
        assert lab.snapshots("vm1") == []
        assert servers[-1].calls["Login"] == (2 if event == "idle" else 1)


def test_a_login_that_is_refused_while_a_task_is_waited_for_is_tried_once(datacenter: Datacenter) -> None:
    """No second try: on many managers that would lock the account."""
    with LabServer(datacenter) as server, logged_in(server) as session:
        server.faults.order(lab.Trouble("DestroyPropertyCollector", lab.What.EXPIRE))
        old = server.password

        def begin(wire: Any) -> Any:
            return wire.object(vim.VirtualMachine, "vm-20").PowerOffVM_Task()

        started = task.start(session, "PowerOff", "vm1", begin)
        logins = server.calls["Login"]
        server.change_password("another")
        try:
            with pytest.raises(CredentialsError):
                task.wait(session, started, clock=SystemClock(), limit_s=30)
            assert server.calls["Login"] == logins + 1
        finally:
            server.change_password(old)
            datacenter.machine("vm1").set_power(on=True)
