"""Tasks: what a method began and a thread of the server carries out, seen through its ``info``."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from vcbproxy.clock import Clock
from vcbproxy.errors import Busy, Error
from vcbproxy.lab.machine import HostLost, UnknownSnapshot
from vcbproxy.lab.vcenter.faults import Dropped, Faults, What, Where
from vcbproxy.lab.vcenter.inventory import Inventory, Managed
from vcbproxy.lab.vcenter.schema import vim, vmodl

_log = logging.getLogger(__name__)
_RECENT = 50
_DESCRIPTIONS = {
    "CreateSnapshotEx_Task": "VirtualMachine.createSnapshot",
    "RemoveSnapshot_Task": "vm.Snapshot.remove",
    "ReconfigVM_Task": "VirtualMachine.reconfigure",
    "PowerOnVM_Task": "VirtualMachine.powerOn",
    "PowerOffVM_Task": "VirtualMachine.powerOff",
    "ConsolidateVMDisks_Task": "VirtualMachine.consolidateDisks",
}


class Tasks:
    """All tasks of a server."""

    def __init__(self, inventory: Inventory, manager: Managed, faults: Faults, clock: Clock, user: str) -> None:
        self._inventory = inventory
        self._manager = manager
        self._faults = faults
        self._clock = clock
        self._user = user
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def begin(self, method: str, about: Managed, work: Callable[[], Any], half: Callable[[], Any]) -> Any:
        """Carry out ``work`` in a thread; the answer is the task's reference.

        Args:
            method: the method on the wire, for the description and for faults.
            about: the managed entity the task is about.
            work: what to do; its result becomes the task's.
            half: what is done instead by a task that does not do all it should, and ends well nevertheless.
        """
        task = self._inventory.add(vim.Task)
        info = vim.TaskInfo(
            key=task.moref,
            task=task.ref,
            descriptionId=_description(method),
            entity=about.ref,
            entityName=about.properties.get("name"),
            state="queued",
            cancelled=False,
            cancelable=False,
            reason=vim.TaskReasonUser(userName=self._user),
            queueTime=self._clock.now(),
            eventChainId=1,
        )
        self._inventory.set(task, info=info)
        with self._lock:
            for holder in (self._manager, about):
                recent = [*holder.properties.get("recentTask", []), task.ref][-_RECENT:]
                self._inventory.set(holder, recentTask=recent)
            run = partial(self._run, task, method, about, work, half)
            thread = threading.Thread(target=run, name=f"lab {task.moref}")
            self._threads = [running for running in self._threads if running.is_alive()]
            self._threads.append(thread)
            thread.start()
        return task.ref

    def join(self) -> None:
        """Wait for all of them."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def forget(self) -> None:
        """Let nobody ask for a task any more; what runs goes on, as on hosts whose manager restarts."""
        for task in self._inventory.all_of(vim.Task):
            self._inventory.remove(task.ref)
        for holder in (self._manager, *self._inventory.all_of(vim.ManagedEntity)):
            if holder.properties.get("recentTask"):
                self._inventory.set(holder, recentTask=[])

    def _run(
        self, task: Managed, method: str, about: Managed, work: Callable[[], Any], half: Callable[[], Any]
    ) -> None:
        self._update(task, state="running", startTime=self._clock.now(), progress=10)
        try:
            trouble = self._faults.strike(method, Where.TASK, about.ref)
            result = half() if trouble is not None and trouble.what is What.HALF else work()
        except Exception as error:  # noqa: BLE001  # the task ends in it, and the client is told
            fault = as_fault(error, self._in_the_way(about, task))
            self._update(task, state="error", completeTime=self._clock.now(), error=fault)
        else:
            ended = {} if result is None else {"result": result}
            self._update(task, state="success", completeTime=self._clock.now(), progress=100, **ended)

    def _in_the_way(self, about: Managed, task: Managed) -> Any:
        """The task that has the entity; the refused one itself when it is not to be seen."""
        for ref in about.properties["recentTask"]:
            other = self._inventory.find(ref)
            if other is not None and other is not task and other.properties["info"].state == "running":
                return ref
        return task.ref

    def _update(self, task: Managed, **facts: Any) -> None:
        info = copy.copy(task.properties["info"])
        for name, value in facts.items():
            setattr(info, name, value)
        self._inventory.set(task, info=info)


def as_fault(error: Exception, in_the_way: Any = None) -> Any:
    """What a client is told of an error; ``in_the_way`` is the task that a busy VM is busy with."""
    if isinstance(error, Busy):
        error = vim.fault.TaskInProgress(task=in_the_way, msg=str(error))
    if isinstance(error, vim.fault.TaskInProgress) and error.task is None:
        error.task = in_the_way or vim.Task("task-unknown", None)  # The schema demands one.
    if isinstance(error, vmodl.MethodFault):
        return error
    if isinstance(error, HostLost):
        return vmodl.fault.HostNotConnected(msg=str(error))
    if isinstance(error, UnknownSnapshot):
        return vim.fault.NotFound(msg=f"no such snapshot: {error.args[0]}")
    if not isinstance(error, Error | Dropped):
        _log.error("the lab's vCenter failed", exc_info=error)
    return vmodl.fault.SystemError(reason=repr(error), msg=f"A general system error occurred: {error!r}")


def _description(method: str) -> str:
    """As a vCenter calls it: ``VirtualMachine.createSnapshot``."""
    name = method.removesuffix("_Task")
    return _DESCRIPTIONS.get(method, f"VirtualMachine.{name[0].lower()}{name[1:]}")
