"""A lab's vCenter on the wire, one for each test module; all ordered trouble is cleared between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.manager.managers import address
from vcbproxy.clock import ManualClock
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import tiny
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.manager.session import Session, connect


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """One VM with two disks and a user's own snapshot."""
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, tiny(6, disks=2, snapshots=1)) as datacenter, LabServer(datacenter) as server:
        yield server


@pytest.fixture
def server(running: LabServer) -> Iterator[LabServer]:
    """The server, in good health and with its counters at nought."""
    running.faults.clear()
    running.calls.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def clock() -> ManualClock:
    """Pauses between attempts pass at once; waiting for the manager is real."""
    return ManualClock()


@pytest.fixture
def session(server: LabServer, clock: ManualClock) -> Iterator[Session]:
    with connect(address(server), server.username, server.password, clock=clock) as opened:
        yield opened
