"""Night after night: guests write, disks come, go and move, hosts lose count, answer badly or lie; all is restored.

Whatever happened in between, what a night restores is what its snapshot froze, bit for bit: where hosts lie, because an
audit of all finds it out. A seed that fails is in the test's name; VCBPROXY_SIM_SEEDS asks for more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from jobs.outcome import Outcome
from tests.jobs.nights import DISK, Nights
from tests.jobs.rehearsal import VM
from vcbproxy.config import Mode
from vcbproxy.errors import UsageError
from vcbproxy.lab.state import DiskState
from vcbproxy.lab.tracking import Nonsense
from vcbproxy.lab.vcenter.faults import Trouble
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.units import KiB, MiB

SEEDS = range(int(os.environ.get("VCBPROXY_SIM_SEEDS", "4")))
NIGHTS = 6
PLACES = ("scsi0-0", "scsi0-1", "scsi0-4", "nvme0-0", "sata0-0")
FAULTS = (
    lambda: vmodl.fault.SystemError(reason="storm", msg="storm"),
    lambda: vmodl.fault.InvalidArgument(invalidProperty="changeId", msg="storm"),
    lambda: vim.fault.FileFault(file="x-ctk.vmdk", msg="storm"),
    lambda: vim.fault.NoPermission(object=vim.VirtualMachine("vm-20", None), privilegeId="x", msg="storm"),
)


class Day:
    """What happens to a VM between two backups."""

    def __init__(self, nights: Nights, draw: random.Random) -> None:
        self.nights, self.draw = nights, draw
        self.story: list[str] = []
        self.aside: list[DiskState] = []

    @property
    def nodes(self) -> list[str]:
        return [disk.node for disk in self.nights.machine.state.disks]

    def passes(self) -> None:
        happenings: list[Callable[[], object]] = [
            self.vmotion, self.storage_vmotion, self.resize, self.add, self.remove, self.attach, self.replug,
            self.lose_count, self.snapshot, self.remove_snapshot, self.lose_a_pack,
        ]  # fmt: skip
        for happening in self.draw.sample(happenings, self.draw.choice([0, 0, 1, 2])):
            self.story.append(happening.__name__)
            try:
                happening()
            except UsageError as error:  # hosts refuse it, too
                self.story.append(f"refused: {error}")
        self.write()
        self.host()

    def write(self) -> None:
        for _ in range(self.draw.randrange(12)):
            node = self.draw.choice(self.nodes)
            size = self.nights.machine.state.disk(node).size_bytes
            length = self.draw.choice([512, 4 * KiB, 64 * KiB, 300 * KiB])
            offset = self.draw.randrange((size - length) // 512) * 512
            if self.draw.random() < 0.2:
                self.nights.machine.guest_zero(node, offset // 4096 * 4096, 64 * KiB)
            else:
                self.nights.write(offset, node=node, data=self.draw.randbytes(length))

    def host(self) -> None:
        """How the host answers this night."""
        draw = self.draw
        habits: dict[str, Any] = {
            "per_answer": draw.choice([1, 7, 2000]),
            "ragged": draw.random() < 0.3,
            "beyond_end": draw.random() < 0.3,
            "unchanged": draw.choice([0, 0, 0.05]),
            "omitted": draw.choice([0, 0, 0, 1, 3]),
            "seed": draw.randrange(1000),
        }
        if draw.random() < 0.1:
            habits["nonsense"] = draw.choice(list(Nonsense))
        self.nights.habits(**habits)
        if draw.random() < 0.15:
            fault = draw.choice(FAULTS)
            self.nights.stage.server.faults.order(
                Trouble("QueryChangedDiskAreas", fault=fault, times=draw.choice([1, 9]))
            )
        self.story.append(str(habits))

    def vmotion(self) -> None:
        self.nights.stage.datacenter.moves.vmotion(VM, self.draw.choice(["esx1.lab", "esx2.lab"]))

    def storage_vmotion(self) -> None:
        where = {"ds1": "ds2", "ds2": "ds1"}[self.nights.machine.state.datastore]
        self.nights.stage.datacenter.moves.storage_vmotion(VM, where)

    def resize(self) -> None:
        size = self.draw.choice([4, 8, 12]) * MiB
        self.nights.stage.datacenter.moves.resize(VM, self.draw.choice(self.nodes), size)

    def add(self) -> None:
        free = [place for place in PLACES if place not in self.nodes]
        taken = {disk.uuid for disk in self.aside}
        new = [place for place in free if place not in {disk.node for disk in self.aside}]
        if new and not taken and not self.nights.machine.state.snapshots:
            store = self.nights.stage.datacenter.store(self.nights.machine.state.datastore)
            folder = self.nights.machine.state.folder
            unused = [place for place in new if not store.exists(f"{folder}/{VM}_{place}.vmdk")]
            if unused:
                self.nights.stage.datacenter.moves.add_disk(VM, self.draw.choice(unused), DISK)

    def remove(self) -> None:
        if len(self.nodes) > 1 and not self.aside and not self.nights.machine.state.snapshots:
            self.aside.append(self.nights.stage.datacenter.moves.remove_disk(VM, self.draw.choice(self.nodes)))

    def attach(self) -> None:
        free = [place for place in PLACES if place not in self.nodes]
        if self.aside and free and not self.nights.machine.state.snapshots:
            self.nights.stage.datacenter.moves.attach_disk(VM, self.aside.pop(), self.draw.choice(free))

    def replug(self) -> None:
        free = [place for place in PLACES if place not in self.nodes]
        if free:
            self.nights.stage.datacenter.moves.replug(VM, self.draw.choice(self.nodes), self.draw.choice(free))

    def lose_count(self) -> None:
        self.nights.machine.reset_tracking()

    def snapshot(self) -> None:
        if not self.aside:
            self.nights.stage.datacenter.take_snapshot(VM, f"user {len(self.story)}")
            self.nights.stage.datacenter.changed(self.nights.machine)

    def remove_snapshot(self) -> None:
        if self.nights.machine.state.snapshots:
            chosen = self.draw.choice(self.nights.machine.state.snapshots)
            self.nights.stage.datacenter.remove_snapshot(VM, chosen.moref)
            self.nights.stage.datacenter.changed(self.nights.machine)

    def lose_a_pack(self) -> None:
        packs = sorted(self.nights.backend.list(FileKind.PACK), key=lambda stored: stored.name.stem)
        if packs:
            self.nights.backend.remove(self.draw.choice(packs).name)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_days(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    methods: list[str | None] = []
    with Nights.of(tmp_path, DISK, DISK) as nights:
        day = Day(nights, draw)
        for night in range(NIGHTS):
            day.story.append(f"night {night}")
            mode = draw.choice([Mode.AUTO] * 9 + [Mode.FULL])
            result = nights.any_backup(mode=mode, audit_fraction=1, allocated_only=draw.random() < 0.3)
            story = "\n".join([*day.story, nights.said])
            assert result.outcome in (Outcome.OK, Outcome.ALARM), story
            assert nights.stage.restores(nights.backend), story
            nights.stage.server.faults.clear()
            methods += [disk.method for disk in result.disks]
            day.passes()
    print(f"seed {seed}: {methods.count('incremental')} of {len(methods)} disks incremental")
