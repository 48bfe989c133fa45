"""Night after night: backups of one lab into one repository, quickly, each with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from jobs.choices import Choices
from jobs.outcome import Outcome, VmResult
from jobs.tracking import Tracking
from tests.jobs.rehearsal import VM, Run, Stage, Upset
from tests.repository.repositories import PASSWORD
from vcbproxy.lab.machine import Machine
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.lab.tracking import HONEST
from vcbproxy.manager.removal import Limits
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.units import GiB, MiB

DISK = DiskSpec(8 * MiB, content=ContentSpec(used=0.7))
NODE = "scsi0-0"


class Nights:
    """A lab, a repository, and one backup after the other."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.backend = stage.new_backend()
        self.last: Run | None = None

    @classmethod
    @contextmanager
    def of(cls, folder: Path, *disks: DiskSpec, tracked: bool = True, version: Any = 6, **facts: Any) -> Iterator[Self]:
        spec = LabSpec(
            datastores=(
                DatastoreSpec("ds1", version, lun_size_bytes=GiB),
                DatastoreSpec("ds2", 5, lun_size_bytes=GiB),
            ),
            vms=(VmSpec(VM, "ds1", disks=disks or (DISK,), change_tracking=tracked, **facts),),
            truth=Truth.DIGEST,
        )
        with Stage.opened(folder / "lab", spec) as stage:
            yield cls(stage)

    @property
    def machine(self) -> Machine:
        return self.stage.datacenter.machine(VM)

    def backed_up(
        self,
        code: int = 0,
        *,
        plans: dict[str, Callable[[], object]] | None = None,
        partial: bool = False,
        **tracking: Any,
    ) -> VmResult:
        """Make one that ends with this exit code; no snapshot of ours is left."""
        result = self.any_backup(plans=plans, partial=partial, **tracking)
        assert self.last is not None
        assert self.last.code == code, self.said
        return result

    def any_backup(
        self, *, plans: dict[str, Callable[[], object]] | None = None, partial: bool = False, **tracking: Any
    ) -> VmResult:
        """Make one, however it ends; no snapshot of ours is left."""
        choices = Choices(partial=partial, limits=Limits(), tracking=Tracking(**tracking))
        self.last = self.stage.run(Upset(choices, plans=dict(plans or {}), backend=self.backend))
        assert self.last.ours == [], self.said
        assert self.stage.result is not None, self.said
        return self.stage.result

    @property
    def said(self) -> str:
        assert self.last is not None
        return self.last.text

    def habits(self, **facts: Any) -> None:
        """How the host answers from now on."""
        self.stage.server.centre.area_habits = replace(HONEST, **facts)

    def write(self, *offsets: int, node: str = NODE, data: bytes = b"changed!" * 64) -> None:
        """Let the guest write."""
        for offset in offsets:
            self.machine.guest_write(node, offset, data)

    def target(self) -> RepositoryTarget:
        return RepositoryTarget(Repository.open(self.backend, PASSWORD, clock=self.stage.clock))

    def points(self) -> list[PointSummary]:
        return self.target().points()

    def manifest(self) -> dict[str, Any]:
        """Of the newest restore point."""
        with self.target().open(f"{VM}@latest") as point:
            return point.manifest

    def assert_restores(self) -> None:
        assert self.stage.restores(self.backend), "what is restored is not what was frozen"

    def assert_incremental(self, result: VmResult) -> None:
        assert result.outcome is Outcome.OK, self.said
        assert {disk.method for disk in result.disks} == {"incremental"}, self.said
        assert self.manifest()["method"] == "incremental"
        self.assert_restores()

    def assert_full(self, result: VmResult, why: str) -> None:
        assert result.outcome is Outcome.OK, self.said
        assert {disk.method for disk in result.disks} == {"full"}
        assert all(why in str(disk.full_because) for disk in result.disks), [disk.full_because for disk in result.disks]
        assert all(why in disk["full_because"] for disk in self.manifest()["disks"])
        self.assert_restores()
