"""The fault matrix: every fault at every step of a backup, as what can be played on a stage.

    python -m tests.jobs.matrix > docs/fault-matrix.md      plays all of it, and writes what came of it

``test_fault_matrix.py`` plays each cell and holds it to that page.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pyVmomi import vim, vmodl

from jobs.choices import Choices
from jobs.tracking import Tracking
from tests.jobs.rehearsal import SPEC, Action, Run, Stage, Upset
from vcbproxy.config import Quiesce
from vcbproxy.errors import Cancelled
from vcbproxy.lab.tracking import HONEST, Nonsense
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.manager.removal import Limits
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.units import MiB

SILENCE_S = 1.5
"""How long the manager's silence is borne where it is silent on purpose; elsewhere far longer."""
_FOR_GOOD_S = 30 * 86400.0
_CHOICES = Choices(limits=Limits(create_s=1.5, remove_s=1.5, busy_s=120))
_REQUIRED = Choices(quiesce=Quiesce.REQUIRE, limits=_CHOICES.limits)


@dataclass(frozen=True)
class Cell:
    """One fault at one step; ``upset`` makes it so."""

    step: str
    fault: str
    upset: Callable[[Stage], Upset]
    timeout_s: float = 15.0

    @property
    def name(self) -> str:
        return f"{self.step}: {self.fault}"


def _system_error() -> Exception:
    return vmodl.fault.SystemError(reason="trouble", msg="trouble on demand")


def _busy() -> Exception:
    return vim.fault.TaskInProgress(task=vim.Task("task-0", None), msg="another task is in progress")


def _forbidden() -> Exception:
    return vim.fault.NoPermission(object=vim.VirtualMachine("vm-20", None), privilegeId="A.Privilege", msg="no")


def _locked() -> Exception:
    return vim.fault.FileLocked(file="[ds1] vm1/vm1.vmdk", msg="the file is locked")


def _restless() -> Exception:
    return vim.fault.ApplicationQuiesceFault(msg="a writer did not come to rest")


# ---------------------------------------------------------------------------------------------- calls to the manager

_HALF_REMOVED = Trouble("RemoveSnapshot_Task", What.HALF, Where.TASK)
_TASK_FIRST = Trouble("CreateSnapshot_Task", What.LATE, Where.ANSWER, delay_s=0.4)
"""The task has ended by the time that its reference is told: the cell does not depend on who is quicker."""


@dataclass(frozen=True)
class Call:
    """A step that is a call: its method, what it is about, when trouble with it is ordered, and along with what."""

    step: str
    method: str
    on: str = ""
    moment: str = ""
    along: tuple[Trouble, ...] = ()


_CALLS = (
    Call("login", "Login"),
    Call("inventory read", "RetrievePropertiesEx", on="ContainerView"),
    Call("snapshot asked for", "CreateSnapshot_Task"),
    Call("snapshot awaited", "WaitForUpdatesEx", moment="freezing", along=(_TASK_FIRST,)),
    Call("snapshot's configuration read", "RetrievePropertiesEx", on="VirtualMachineSnapshot"),
    Call("removal asked for", "RemoveSnapshot_Task"),
    Call("removal awaited", "WaitForUpdatesEx", moment="releasing"),
    Call("consolidation asked for", "ConsolidateVMDisks_Task", along=(_HALF_REMOVED,)),
    Call("logout", "Logout"),
)


def _on_calls() -> Iterator[Cell]:
    for call in _CALLS:

        def order(name: str, what: What, *, call: Call = call, **more: Any) -> Cell:
            upset = _ordering(*call.along, Trouble(call.method, what, on=call.on, **more), moment=call.moment)
            return Cell(call.step, name, upset, SILENCE_S if what is What.LATE else Cell.timeout_s)

        yield order("fault, once", What.FAULT, fault=_system_error)
        yield order("fault, each time", What.FAULT, fault=_system_error, times=0)
        yield order("connection cut before it", What.DROP)
        yield order("answer lost", What.DROP, where=Where.ANSWER)
        yield order("answer breaks off", What.BREAK)
        yield order("no answer in time", What.LATE, delay_s=2 * SILENCE_S)
        yield order("HTTP 503, once", What.UNAVAILABLE)
        yield order("session over", What.EXPIRE)
        yield order("manager restarts", What.RESTART, delay_s=30.0)
        yield order("manager gone", What.RESTART, delay_s=_FOR_GOOD_S)
        if call.method.endswith("_Task"):
            yield order("no permission", What.FAULT, fault=_forbidden, times=0)
            yield order("busy, twice", What.FAULT, fault=_busy, times=2)


def _ordering(*troubles: Trouble, moment: str = "", choices: Choices = _CHOICES) -> Callable[[Stage], Upset]:
    def made(stage: Stage) -> Upset:
        def order() -> None:
            stage.server.faults.order(*troubles)

        return Upset(choices, plans={moment: order}) if moment else Upset(choices, before=order)

    return made


# ------------------------------------------------------------------------------------------------ the manager's tasks


def _in_tasks() -> Iterator[Cell]:
    for step, method, along in (
        ("snapshot's task", "CreateSnapshot_Task", ()),
        ("removal's task", "RemoveSnapshot_Task", ()),
        ("consolidation's task", "ConsolidateVMDisks_Task", (_HALF_REMOVED,)),
    ):

        def order(name: str, what: What, *, at: tuple[Any, ...] = (step, method, along), **more: Any) -> Cell:
            step, method, along = at
            return Cell(step, name, _ordering(*along, Trouble(method, what, Where.TASK, **more)))

        yield order("fails once", What.FAULT, fault=_system_error)
        yield order("fails each time", What.FAULT, fault=_system_error, times=0)
        yield order("file locked, three times", What.FAULT, fault=_locked, times=3)
        yield order("hangs", What.HANG)
        yield order("ends well, half done", What.HALF)
        if step == "snapshot's task":
            restless = Trouble(method, What.FAULT, Where.TASK, fault=_restless, times=3)
            yield Cell(step, "guest does not come to rest", _ordering(restless))
            yield Cell(step, "guest does not come to rest, as required", _ordering(restless, choices=_REQUIRED))


# ------------------------------------------------------------------------------- while the snapshot is held, and after

_MOMENTS = {
    "snapshot held": "frozen",
    "first disk being read": "disk 1 begins",
    "first disk to be looked at again": "disk 1 read",
    "second disk being read": "disk 2 begins",
    "last disk to be looked at again": "disk 2 read",
    "about to release": "releasing",
    "released, not committed": "released",
}


def _at_moments() -> Iterator[Cell]:
    for step, moment in _MOMENTS.items():
        yield Cell(step, "session over", _planned(lambda stage: stage.server.expire_sessions, moment))
        yield Cell(step, "manager restarts", _planned(lambda stage: lambda: stage.server.restart(30.0), moment))
        yield Cell(step, "manager gone", _planned(lambda stage: lambda: stage.server.restart(_FOR_GOOD_S), moment))
        yield Cell(step, "Ctrl-C", _planned(lambda stage: _interrupt, moment))
        if step.endswith("being read"):
            yield Cell(step, "LUN fails", lambda stage, moment=moment: _failing_lun(stage, moment))
        if step.startswith("first disk to be"):
            yield Cell(step, "its file changed, once", _planned(_changing, moment))
            yield Cell(step, "its file changed, each time", _planned(_changing, moment, "disk 2 read"))


def _interrupt() -> None:
    raise Cancelled


def _planned(action: Callable[[Stage], Action], *moments: str) -> Callable[[Stage], Upset]:
    return lambda stage: Upset(_CHOICES, plans={moment: action(stage) for moment in moments})


def _changing(stage: Stage) -> Action:
    """A host writes into the frozen file: zeroes into a hole, so that its map changes and its content does not."""
    store, path = stage.datacenter.store("ds1"), "/vm1/vm1-flat.vmdk"
    size_bytes = stage.datacenter.machine("vm1").state.disks[0].size_bytes

    def change() -> None:
        taken = {
            offset // MiB for start, length in store.data_ranges(path) for offset in range(start, start + length, MiB)
        }
        hole = next(number for number in itertools.count() if number not in taken)
        assert hole * MiB < size_bytes, "no hole is left"
        store.write(path, hole * MiB, bytes(4096))
        store.truncate(path, size_bytes)

    return change


def _failing_lun(stage: Stage, moment: str) -> Upset:
    """The job sees a copy of the LUN, of which nothing is left when the moment comes."""
    (image,) = stage.datacenter.luns("ds1")
    copy = stage.folder / "failing.img"
    copy.unlink(missing_ok=True)
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    return Upset(_CHOICES, plans={moment: lambda: os.truncate(copy, 4096)}, luns=(copy,))


# ------------------------------------------------------------------------------------------------------ the repository


def _in_the_repository() -> Iterator[Cell]:
    for step, kind in (
        ("repository locked", FileKind.LOCK),
        ("chunks stored", FileKind.PACK),
        ("index stored", FileKind.INDEX),
        ("restore point committed", FileKind.SNAPSHOT),
    ):
        yield Cell(
            step, "storage full", lambda stage, kind=kind: Upset(_CHOICES, refuse=lambda name: name.kind is kind)
        )


# ---------------------------------------------------------------------------------------------------- change tracking

_TRACKING = replace(_CHOICES, tracking=Tracking(enable=True, audit_fraction=1))


def _on_tracking() -> Iterator[Cell]:
    """An earlier restore point is there, the guest has written since, and the second backup is to read only that."""
    step, method = "changed areas asked for", "QueryChangedDiskAreas"
    for name, trouble in (
        ("fault, once", Trouble(method, What.FAULT, fault=_system_error)),
        ("fault, each time", Trouble(method, What.FAULT, fault=_system_error, times=0)),
        ("connection cut before it", Trouble(method, What.DROP)),
        ("answer breaks off", Trouble(method, What.BREAK)),
        ("session over", Trouble(method, What.EXPIRE)),
        ("manager restarts", Trouble(method, What.RESTART, delay_s=30.0)),
        ("manager gone", Trouble(method, What.RESTART, delay_s=_FOR_GOOD_S)),
        ("no permission", Trouble(method, What.FAULT, fault=_forbidden, times=0)),
        ("file locked, three times", Trouble(method, What.FAULT, fault=_locked, times=3)),
    ):
        yield Cell(step, name, partial(_second, before=_orders(trouble)))
    yield Cell(step, "tracking began anew", partial(_second, before=_lose))
    yield Cell(step, "a list that cannot be", partial(_second, before=_habit(nonsense=Nonsense.OUTSIDE)))
    yield Cell(step, "more is named than changed", partial(_second, before=_habit(unchanged=0.5, ragged=True)))
    yield Cell(step, "a changed area is not named", partial(_second, before=_habit(omitted=1)))
    for step, moment in (("sample of the unchanged being read", "audit"), ("what changed read", "disk 1 read")):
        yield Cell(step, "session over", partial(_second, moment=moment, during=lambda at: at.server.expire_sessions()))
        yield Cell(step, "Ctrl-C", partial(_second, moment=moment, during=lambda _: _interrupt()))
    step, method = "tracking switched on", "ReconfigVM_Task"
    for name, trouble in (
        ("fault, once", Trouble(method, What.FAULT, fault=_system_error)),
        ("answer lost", Trouble(method, What.DROP, Where.ANSWER)),
        ("no permission", Trouble(method, What.FAULT, fault=_forbidden, times=0)),
        ("busy, twice", Trouble(method, What.FAULT, fault=_busy, times=2)),
        ("its task fails", Trouble(method, What.FAULT, Where.TASK, fault=_system_error)),
    ):
        yield Cell(step, name, partial(_switching_on, trouble=trouble))


Happening = Callable[[Stage], None]


def _second(stage: Stage, before: Happening | None = None, moment: str = "", during: Happening | None = None) -> Upset:
    stage.server.centre.area_habits = HONEST
    first = stage.run(Upset(_TRACKING))
    assert first.code == 0, first.text
    news = f"changed since {len(stage.truths())} snapshots".encode()
    stage.datacenter.machine("vm1").guest_write("scsi0-0", 3 * MiB, news)
    plans = {} if during is None else {moment: partial(during, stage)}
    begun = None if before is None else partial(before, stage)
    return Upset(_TRACKING, before=begun, plans=plans, backend=first.backend)


def _switching_on(stage: Stage, trouble: Trouble) -> Upset:
    machine = stage.datacenter.machine("vm1")
    machine.set_tracking(on=False)
    stage.datacenter.changed(machine)
    return Upset(_TRACKING, before=partial(_orders(trouble), stage))


def _orders(*troubles: Trouble) -> Happening:
    def order(stage: Stage) -> None:
        stage.server.faults.order(*troubles)

    return order


def _lose(stage: Stage) -> None:
    stage.datacenter.machine("vm1").reset_tracking()


def _habit(**facts: Any) -> Happening:
    def take(stage: Stage) -> None:
        stage.server.centre.area_habits = replace(HONEST, **facts)

    return take


CELLS = (*_on_calls(), *_in_tasks(), *_at_moments(), *_in_the_repository(), *_on_tracking())

# ------------------------------------------------------------------------------------------------- what came of a cell

_KEY_WORDS = (
    "trouble on demand (SystemError)",
    "(ManagedObjectNotFound)",
    "connection lost before the answer was whole",
    "no answer in time",
    "503 Service Unavailable",
    "the privilege A.Privilege is missing",
    "a writer did not come to rest",
    "not quiesced",
    "cannot be quiesced",
    "CreateSnapshot of vm1 still runs",
    "a snapshot may still appear",
    "is not removed",
    "still need consolidation",
    "delete the snapshot in the vSphere client",
    "choose Snapshots > Consolidate",
    "its restore point is good",
    "is read again from its start",
    "changed while it was read",
    "cannot read",
    "is read whole",
    "makes no sense",
    "cannot be tracked from now on",
    "now marked suspect",
    "change tracking had lied",
    "No space left on device",
    "not fully protected",
    "are left behind",
)


@dataclass(frozen=True)
class Row:
    """What came of a cell: a row of the page.

    Attributes:
        says: the key words of all that was said, in the order in which they came.
        left: what was left with the VM; and what came too late.
    """

    fault: str
    code: int
    says: str
    left: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.code} | {self.says} | {self.left} |"


def play(stage: Stage, cell: Cell) -> tuple[Row, Run]:
    """Play a cell, let all be well again, and have a second look at what is left: late tasks have ended by then."""
    stage.timeout_s = cell.timeout_s
    run = stage.run(cell.upset(stage))
    unstruck = [stocked.trouble for stocked in stage.server.faults.stock() if stocked.trouble.times]
    assert not unstruck, "what was ordered did not happen"
    stage.server.centre.area_habits = HONEST
    stage.recover()
    left = []
    if run.ours:
        left.append("snapshot")
    elif stage.ours():
        left.append("snapshot, late")
    if run.unmerged:
        left.append("unmerged disks")
    return Row(cell.fault, run.code, _key_words(run.text), ", ".join(left) or "nothing"), run


def _key_words(text: str) -> str:
    places = sorted((text.index(words), words) for words in _KEY_WORDS if words in text)
    return " … ".join(words for _, words in places)


def page(rows: dict[str, list[Row]]) -> str:
    """The whole page."""
    parts = [_HEAD]
    for step, played in rows.items():
        parts.append(f"\n## {step[0].upper()}{step[1:]}\n\n| fault | exit | it says | left |\n|---|---:|---|---|\n")
        parts += [f"{row}\n" for row in played]
    return "".join(parts)


_HEAD = """# The fault matrix

What comes of a backup in which one thing goes wrong, step by step: the exit code, the key words of what is said, and
what is left with the VM. In *every* row besides: no lock is left, the repository is valid to its last byte, what is
left with the VM was told and `vcbproxy cleanup` takes it away, and the next backup succeeds and restores bit for bit.
A restore point that was committed in spite of the fault (exit codes 0 and 3) restores bit for bit, too.

A test plays each row against the [lab](lab.md) and holds it to this page. `... each time` stands for a fault without
end, `manager restarts` for one that is away for 30 s and forgets sessions and tasks, `manager gone` for one that does
not come back; the limits are a minute or two, where operators have [theirs](configuration.md).
"""


def rows_of(text: str) -> dict[str, Row]:
    """A page's rows by the names of their cells."""
    rows, step = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            step = line[3].lower() + line[4:]
        elif match := re.fullmatch(r"\| ([^|]+) \| (\d+) \| ([^|]*) \| ([^|]+) \|", line):
            row = Row(match[1], int(match[2]), match[3], match[4])
            rows[f"{step}: {row.fault}"] = row
    return rows


def main() -> None:
    """Play all of it, and print the page."""
    played: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder, Stage.opened(Path(folder) / "lab", SPEC) as stage:
        for cell in CELLS:
            row, _ = play(stage, cell)
            stage.cleaned_up()
            played.setdefault(cell.step, []).append(row)
    print(page(played), end="")


if __name__ == "__main__":
    main()
