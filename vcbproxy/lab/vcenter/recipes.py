"""Trouble by names that an operator knows, to rehearse with: ``removal-fails``, ``manager-restarts``, ...

A recipe orders ``Trouble``, or does something to the server at once. Whatever else the wire allows is ordered by the
name of a method and of a fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

from vcbproxy.errors import UsageError
from vcbproxy.lab.tracking import HONEST, Nonsense
from vcbproxy.lab.vcenter.centre import Centre
from vcbproxy.lab.vcenter.faults import Faults, Stocked, Trouble, What, Where
from vcbproxy.lab.vcenter.properties import PAGE_MAX
from vcbproxy.lab.vcenter.schema import support, vim, vmodl

_LATE_S = 5.0
_DOWN_S = 30.0
_CALLS_MAX = 20
_SMALL_PAGE = 7


class Server(Protocol):
    """What a recipe needs of the server."""

    @property
    def faults(self) -> Faults:
        """Where trouble is ordered."""

    @property
    def centre(self) -> Centre:
        """Whose habits are changed."""

    def restart(self, down_s: float) -> None:
        """Let the manager restart."""

    def expire_sessions(self) -> None:
        """End all sessions."""


@pydantic_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Order:
    """What was asked for: a recipe, or a method with a fault. What is None is as the recipe has it.

    Attributes:
        fault: the name of a fault, as ``FileLocked``; only with a method.
        in_task: let the task end in the fault, not the call.
        vm: only tasks on this VM (its reference).
    """

    name: str
    fault: str = ""
    in_task: bool = False
    times: int | None = None
    after: int | None = None
    chance: float | None = None
    vm: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a name stands for: trouble for the stock, or an act."""

    does: str
    troubles: tuple[Trouble, ...] = ()
    act: Callable[[Server], None] | None = None


def place(server: Server, order: Order) -> list[Stocked]:
    """Carry an order out; the answer is what went into stock.

    Raises:
        UsageError: there is no such trouble, or it cannot be had in this way.
    """
    recipe = RECIPES.get(order.name)
    if recipe is not None and recipe.act is not None:
        if order != Order(order.name):
            raise UsageError(f"{order.name} happens at once and to all: no options go with it")
        recipe.act(server)
        return []
    if recipe is not None and order.fault:
        raise UsageError(f"{order.name} brings its own faults")
    troubles = recipe.troubles if recipe is not None else (_plain(order),)
    if order.vm and not all(trouble.where is Where.TASK for trouble in troubles):
        raise UsageError(f"{order.name} is not about single VMs; only trouble in tasks is")
    asked: dict[str, Any] = {"times": order.times, "after": order.after, "chance": order.chance, "on": order.vm or None}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        return server.faults.order(*(dataclasses.replace(trouble, **given) for trouble in troubles))
    except ValueError as error:
        raise UsageError(f"{order.name}: {error}") from error


def calm(server: Server) -> None:
    """Let all be well again."""
    server.faults.clear()
    server.centre.area_habits = HONEST
    server.centre.sessions.calls_max = 0
    server.centre.collectors.page_max = PAGE_MAX


def named_fault(name: str) -> Callable[[], Exception]:
    """What makes a fault of that name, with something in every field that it must have.

    Raises:
        UsageError: the API has no such fault.
    """
    kind = next((found for space in (vim.fault, vmodl.fault) if (found := getattr(space, name, None))), None)
    if kind is None or not issubclass(kind, vmodl.MethodFault):
        raise UsageError(f"the API has no fault {name!r}; one is FileLocked, another TaskInProgress")

    def make() -> Exception:
        needed = [found for found in kind._GetPropertyList() if not found.flags & support.F_OPTIONAL]  # noqa: SLF001
        fault: Exception = kind(msg=f"{name}, on demand", **{found.name: _something(found.type) for found in needed})
        return fault

    return make


def _something(kind: Any) -> Any:
    if issubclass(kind, support.ManagedObject):
        concrete = vim.Folder if kind in (support.ManagedObject, vim.ManagedEntity) else kind
        return concrete("group-d1", None)
    values = getattr(kind, "values", None)
    return values[0] if values else kind()


def _plain(order: Order) -> Trouble:
    try:
        support.GetWsdlMethod("urn:vim25", order.name)
    except KeyError as error:
        raise UsageError(
            f"no such trouble: {order.name!r}; `vcbproxy lab trouble DIRECTORY` lists what there is"
        ) from error
    if not order.fault:
        raise UsageError(f"say which fault {order.name} is to end in: --fault FileLocked")
    where = Where.TASK if order.in_task else Where.CALL
    return Trouble(order.name, What.FAULT, where, fault=named_fault(order.fault))


def _in_task(method: str, what: What | str, times: int) -> Trouble:
    """A task that ends in a fault, by its name, or otherwise."""
    if isinstance(what, str):
        return Trouble(method, What.FAULT, Where.TASK, fault=named_fault(what), times=times)
    return Trouble(method, what, Where.TASK, times=times)


def _pages(server: Server) -> None:
    server.centre.collectors.page_max = _SMALL_PAGE


def _short_sessions(server: Server) -> None:
    server.centre.sessions.calls_max = _CALLS_MAX


def _reset(server: Server) -> None:
    for machine in server.centre.datacenter.machines:
        machine.reset_tracking()


def _habit(**facts: Any) -> Callable[[Server], None]:
    def take(server: Server) -> None:
        server.centre.area_habits = dataclasses.replace(server.centre.area_habits, **facts)

    return take


_CREATE, _REMOVE, _CONSOLIDATE = "CreateSnapshot_Task", "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"
_BUSY = named_fault("TaskInProgress")

RECIPES: Mapping[str, Recipe] = {
    "quiesce-fails": Recipe("the guest does not come to rest", (_in_task(_CREATE, "ApplicationQuiesceFault", 3),)),
    "quiesce-is-a-lie": Recipe("a snapshot is made, and not quiesced", (_in_task(_CREATE, What.HALF, 0),)),
    "snapshot-fails": Recipe("no snapshot can be made", (_in_task(_CREATE, "GenericVmConfigFault", 0),)),
    "snapshot-hangs": Recipe("its creation does not end", (_in_task(_CREATE, What.HANG, 1),)),
    "removal-fails": Recipe("no snapshot can be removed", (_in_task(_REMOVE, "GenericVmConfigFault", 0),)),
    "removal-hangs": Recipe("a removal does not end", (_in_task(_REMOVE, What.HANG, 1),)),
    "removal-leaves-deltas": Recipe(
        "a removal ends well, its disks are not merged", (_in_task(_REMOVE, What.HALF, 1),)
    ),
    "consolidation-sticks": Recipe(
        "... and cannot be merged afterwards either",
        (_in_task(_REMOVE, What.HALF, 1), _in_task(_CONSOLIDATE, "GenericVmConfigFault", 0)),
    ),
    "consolidation-is-a-lie": Recipe(
        "... and the merging ends well, and changes nothing",
        (_in_task(_REMOVE, What.HALF, 1), _in_task(_CONSOLIDATE, What.HALF, 0)),
    ),
    "vm-busy": Recipe(
        "another task has the VM",
        (Trouble(_CREATE, fault=_BUSY, times=3), Trouble(_REMOVE, fault=_BUSY, times=3)),
    ),
    "file-locked": Recipe("a file is locked when disks are merged", (_in_task(_REMOVE, "FileLocked", 3),)),
    "connections-drop": Recipe(
        "one call in 20 finds its connection cut", (Trouble("*", What.DROP, times=0, chance=0.05),)
    ),
    "answers-lost": Recipe(
        "one call in 20 is carried out, its answer lost",
        (Trouble("*", What.DROP, Where.ANSWER, times=0, chance=0.05),),
    ),
    "answers-break-off": Recipe(
        "one answer in 20 ends in its middle", (Trouble("*", What.BREAK, times=0, chance=0.05),)
    ),
    "answers-late": Recipe(f"answers come after {_LATE_S:.0f} s", (Trouble("*", What.LATE, times=0, delay_s=_LATE_S),)),
    "answers-trickle": Recipe("answers take 5 s to arrive", (Trouble("*", What.TRICKLE, times=0, delay_s=_LATE_S),)),
    "unavailable": Recipe("HTTP 503, as while a manager starts", (Trouble("*", What.UNAVAILABLE, times=5),)),
    "manager-restarts": Recipe(f"it is away for {_DOWN_S:.0f} s", act=lambda server: server.restart(_DOWN_S)),
    "sessions-end": Recipe("everybody is logged out", act=lambda server: server.expire_sessions()),
    "sessions-short": Recipe(f"a session lasts for {_CALLS_MAX} calls", act=_short_sessions),
    "pages-small": Recipe(f"lists come in pages of {_SMALL_PAGE}", act=_pages),
    "tracking-lost": Recipe("change ids are worth nothing any more", act=_reset),
    "areas-in-short-pages": Recipe("changed areas come three at a time", act=_habit(per_answer=3)),
    "areas-too-many": Recipe("one in ten unchanged areas is named, too", act=_habit(unchanged=0.1)),
    "areas-ragged": Recipe("changed areas begin and end at odd bytes", act=_habit(ragged=True)),
    "areas-beyond-end": Recipe("the last one ends past the disk's end", act=_habit(beyond_end=True)),
    "areas-omitted": Recipe("a changed area is not named: a lie", act=_habit(omitted=1)),
    "areas-nonsense": Recipe("lists of changed areas that cannot be", act=_habit(nonsense=Nonsense.OUTSIDE)),
}
