"""A vCenter on the wire, one for each test module; all ordered trouble is cleared between tests.

It is the lab's. A module that says ``MANAGERS = BOTH`` is run against vcsim as well, which is other people's code; what
that one lacks is skipped by name, where a test says ``@pytest.mark.needs(Need.…)``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.beside import Keyboard
from tests.manager.managers import LAB, Manager, address, missing, serving
from vcbproxy.clock import ManualClock
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import tiny
from vcbproxy.manager.session import Session, connect


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "which" in metafunc.fixturenames and hasattr(metafunc.module, "MANAGERS"):
        metafunc.parametrize("which", metafunc.module.MANAGERS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def which(request: pytest.FixtureRequest) -> str:
    """Whose manager it is."""
    return str(getattr(request, "param", LAB))


@pytest.fixture(scope="module")
def running(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """One VM with two disks and a user's own snapshot."""
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, tiny(6, disks=2, snapshots=1)) as datacenter, serving(which, datacenter) as manager:
        yield manager


@pytest.fixture
def server(request: pytest.FixtureRequest, which: str, running: Manager) -> Iterator[Manager]:
    """The server, in good health and with its counters at nought."""
    for mark in request.node.iter_markers("needs"):
        reason = missing(which, mark.args[0])
        if reason is not None:
            pytest.skip(reason)
    running.faults.clear()
    running.calls.clear()
    yield running
    running.faults.clear()


@pytest.fixture
def clock() -> ManualClock:
    """Pauses between attempts pass at once; waiting for the manager is real."""
    return ManualClock()


@pytest.fixture
def session(server: Manager, clock: ManualClock) -> Iterator[Session]:
    with connect(address(server), server.username, server.password, clock=clock) as opened:
        yield opened


@pytest.fixture
def keyboard(caplog: pytest.LogCaptureFixture) -> Keyboard:
    """The operator's."""
    return Keyboard(caplog)
