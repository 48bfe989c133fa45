"""Backups under a storm: trouble with a chance at any call and in any task, restarts, Ctrl-C, a target that fills up.

Whatever the storm: no snapshot of ours is left without being told, the repository is valid and unlocked, success means
that what was frozen restores, and once the storm is over `cleanup` and the next run put all right. A seed that fails
is in the test's name and tells its story; VCBPROXY_SIM_SEEDS asks for more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from pyVmomi import vim, vmodl

from jobs.choices import Choices
from tests.jobs.rehearsal import SPEC, Action, Run, Stage, Upset
from vcbproxy.config import Quiesce
from vcbproxy.errors import Cancelled
from vcbproxy.lab.guest import GuestWriter
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.manager.removal import Limits
from vcbproxy.repository.backend.base import FileKind, FileName

SEEDS = range(int(os.environ.get("VCBPROXY_SIM_SEEDS", "8")))
CALLS = (
    "*",
    "RetrievePropertiesEx",
    "CreateContainerView",
    "CreateSnapshot_Task",
    "RemoveSnapshot_Task",
    "ConsolidateVMDisks_Task",
    "WaitForUpdatesEx",
    "CreateFilter",
    "CreatePropertyCollector",
    "DestroyPropertyCollector",
    "Login",
    "Logout",
)
TASKS = ("CreateSnapshot_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task")
MOMENTS = (
    "freezing",
    "frozen",
    "disk 1 begins",
    "disk 1 read",
    "disk 2 begins",
    "disk 2 read",
    "releasing",
    "released",
)
TOLD = ("is not removed", "still need consolidation", "a snapshot may still appear")
FAULTS = (
    lambda: vmodl.fault.SystemError(reason="storm", msg="storm"),
    lambda: vim.fault.TaskInProgress(task=vim.Task("task-0", None), msg="storm"),
    lambda: vim.fault.NotAuthenticated(object=vim.Folder("group-d1", None), privilegeId="System.View", msg="storm"),
    lambda: vim.fault.FileLocked(file="[ds1] vm1/vm1.vmdk", msg="storm"),
    lambda: vim.fault.GenericVmConfigFault(msg="storm", reason="storm"),
    lambda: vim.fault.ApplicationQuiesceFault(msg="storm"),
    lambda: vmodl.fault.HostCommunication(msg="storm"),
    lambda: vmodl.fault.RequestCanceled(msg="storm"),
)


def trouble(draw: random.Random) -> Trouble:
    if draw.random() < 0.4:
        what = draw.choice([What.FAULT, What.FAULT, What.HALF, What.LATE, What.HANG])
        return Trouble(
            draw.choice(TASKS),
            what,
            Where.TASK,
            fault=draw.choice(FAULTS),
            delay_s=0.05 if what is What.LATE else 0,
            times=1 if what is What.HANG else draw.randrange(4),
            chance=draw.choice([0.3, 0.7, 1]),
        )
    what = draw.choice([What.FAULT, What.DROP, What.BREAK, What.TRICKLE, What.UNAVAILABLE, What.EXPIRE, What.RESTART])
    delay_s = {What.TRICKLE: 0.02, What.RESTART: draw.choice([0.0, 5.0, 60.0, 3600.0])}.get(what, 0)
    return Trouble(
        draw.choice(CALLS),
        what,
        draw.choice([Where.CALL, Where.ANSWER]),
        fault=draw.choice(FAULTS),
        delay_s=delay_s,
        times=1 if what is What.RESTART else draw.randrange(5),
        after=draw.randrange(4),
        chance=draw.choice([0.1, 0.3, 1]),
    )


def plans(draw: random.Random, stage: Stage) -> dict[str, Action]:
    def interrupted() -> None:
        raise Cancelled

    chosen = {}
    for action in (interrupted, stage.server.expire_sessions, stage.server.restart):
        if draw.random() < 0.15:
            chosen[draw.choice(MOMENTS)] = action
    return chosen


def refusal(draw: random.Random) -> tuple[FileKind | None, int]:
    """A kind of file that the target takes no more of, after so many."""
    if draw.random() < 0.85:
        return None, 0
    return draw.choice([FileKind.PACK, FileKind.INDEX, FileKind.SNAPSHOT, FileKind.LOCK]), draw.randrange(3)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage.opened(tmp_path_factory.mktemp("stage") / "lab", SPEC) as stage:
        yield stage


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_storm(stage: Stage, seed: int) -> None:
    draw = random.Random(seed)
    troubles = [trouble(draw) for _ in range(draw.randrange(1, 5))]
    planned, (kind, taken) = plans(draw, stage), refusal(draw)
    quiesce = draw.choice(list(Quiesce))
    left = [taken]

    def refuse(name: FileName) -> bool:
        left[0] -= name.kind is kind
        return left[0] < 0

    def begin() -> None:
        stage.server.faults.seed(seed)
        stage.server.faults.order(*troubles)

    choices = Choices(quiesce=quiesce, limits=Limits(create_s=1.2, remove_s=1.2, busy_s=120))
    with GuestWriter(stage.datacenter.machines, writes_per_s=100, seed=seed):
        run = stage.run(Upset(choices, before=begin, plans=planned, refuse=refuse if kind else lambda name: False))
    stage.recover()
    orders = "\n".join(map(str, troubles))
    story = f"{orders}\n{sorted(planned)} {kind} after {taken}, quiesce {quiesce.value}\nexit {run.code}\n{run.text}"
    try:
        holds(stage, run, story)
    finally:
        stage.cleaned_up()
    assert stage.ours() == [], story
    assert not stage.unmerged(), story
    assert stage.next_run_succeeds(run), story
    assert stage.restores(run.backend), story
    stage.valid(run.backend)


def holds(stage: Stage, run: Run, story: str) -> None:
    assert run.code in (0, 1, 3, 12, 130), story
    if run.ours or run.unmerged or stage.ours():
        assert run.code != 0, story
        assert any(words in run.text for words in TOLD), story
    points = stage.valid(run.backend)
    assert points == (1 if run.code in (0, 3) else 0), story
    if points:
        assert stage.restored(run.backend) in stage.truths(run), story
