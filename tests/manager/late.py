"""A snapshot that is still being created when nobody waits for it any longer."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tests.beside import beside, until
from tests.manager.managers import Manager
from vcbproxy.lab.vcenter.faults import Trouble, What, Where


def creation_ending_late(server: Manager) -> AbstractContextManager[None]:
    """The next creation ends only once it was given up, as a limit below a second sees to, and is awaited again.

    Each wait for a task asks for updates twice, the second time for a second at least; the third is another wait.
    """
    server.faults.order(Trouble("CreateSnapshot_Task", What.HANG, Where.TASK))
    before = server.calls["WaitForUpdatesEx"]

    def end() -> None:
        until(lambda: server.calls["WaitForUpdatesEx"] > before + 2)
        server.faults.clear()

    return beside(end)
