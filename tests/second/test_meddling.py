"""Others at work on the VM while it is backed up, at a manager that is not ours and through its own API.

The moves of the lab's datacenter happen behind its vCenter; here they are calls on the wire that other people's code
carries out and shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from jobs.outcome import Outcome
from tests.jobs.meddling import Meddler, backed_up
from tests.manager.managers import address
from tests.program import Lab
from tests.second.test_whole_program import second, sha256, truth
from tests.second.vcsim import Vcsim
from vcbproxy.clock import SystemClock
from vcbproxy.lab import spec
from vcbproxy.manager import inventory, properties, task
from vcbproxy.manager.session import Session, connect
from vcbproxy.manager.wire import moref_of

Act = Callable[[Any], Any]


class Administrator:
    """Somebody else, with a session of his own."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.moref = inventory.find(session, "vm1").moref

    def does(self, name: str, act: Act) -> Any:
        started = task.start(self.session, name, "vm1", lambda wire: act(wire.object(vim.VirtualMachine, self.moref)))
        return task.wait(self.session, started, clock=SystemClock(), limit_s=30)

    def host(self) -> Any:
        def ask(wire: Any) -> Any:
            machine = wire.object(vim.VirtualMachine, self.moref)
            return properties.of_one(wire, machine, ["runtime.host"]).need("runtime.host")

        return self.session.read(ask)

    def moves_it(self) -> None:
        """VMotion to the other host."""
        here = moref_of(self.host())
        rows = self.session.read(lambda wire: properties.of_all(wire, vim.HostSystem, ["name"]))
        (other,) = [row.subject for row in rows if row.moref != here]
        self.does("RelocateVM", lambda vm: vm.RelocateVM_Task(vim.vm.RelocateSpec(host=other)))
        assert moref_of(self.host()) == other._moId

    def takes_a_snapshot(self) -> None:
        self.does("CreateSnapshot", lambda vm: vm.CreateSnapshot_Task("somebody's", "", False, False))

    def removes_all_snapshots(self) -> None:
        self.does("RemoveAllSnapshots", lambda vm: vm.RemoveAllSnapshots_Task())

    def takes_a_disk_away(self) -> None:
        config = self.session.read(
            lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, self.moref), ["config"])
        ).need("config")
        disk = next(device for device in config.hardware.device if isinstance(device, vim.vm.device.VirtualDisk))
        change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
        self.does("ReconfigVM", lambda vm: vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))


@contextmanager
def meddled(folder: Path) -> Iterator[tuple[Lab, Vcsim, Administrator]]:
    with second(folder / "lab", spec.tiny(6, disks=2, snapshots=1)) as (manager, vcbproxy):
        lab = Lab(folder / "lab", manager.datacenter, manager, vcbproxy)  # type: ignore[arg-type]
        with connect(address(manager), manager.username, manager.password) as session:
            yield lab, manager, Administrator(session)


@pytest.mark.parametrize("deed", ["moves_it", "takes_a_snapshot"])
def test_what_costs_nothing(tmp_path: Path, deed: str) -> None:
    with meddled(tmp_path) as (lab, manager, administrator):
        result = backed_up(lab, Meddler(before=getattr(administrator, deed)))
        assert (result.outcome, result.error) == (Outcome.OK, None)
        left = ["somebody's"] if deed == "takes_a_snapshot" else []
        assert manager.snapshots("vm1") == ["user 0", *left]
        rows = lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json").json
        assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == truth(manager, "vm1")


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("removes_all_snapshots", "somebody removed the snapshot"),
        ("takes_a_disk_away", "the disk was taken from the VM"),
    ],
)
def test_what_fails_cleanly(tmp_path: Path, deed: str, why: str) -> None:
    with meddled(tmp_path) as (lab, manager, administrator):
        result = backed_up(lab, Meddler(after=getattr(administrator, deed)))
        assert result.outcome is Outcome.FAILED
        assert why in str(result.error)
        assert result.snapshot_left is None
        assert manager.snapshots("vm1") == ([] if deed == "removes_all_snapshots" else ["user 0"])
        assert lab.vcbproxy("points", "list", "--json").json == []
        lab.vcbproxy("repo", "check", "--read-data")
