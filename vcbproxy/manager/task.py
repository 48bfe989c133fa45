"""Waiting for a task of the manager: told by the property collector, never polled in a tight loop.

A task lives in the manager, not in our session: when the connection drops or the session ends, the wait is taken up
again and the task has meanwhile gone on. A cancel is passed on where the task allows it, and the wait goes on to the
task's real end, because only then is it known what has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyVmomi import vim, vmodl

from vcbproxy.clock import Clock
from vcbproxy.errors import CredentialsError, Error, ManagerError, TaskFailed
from vcbproxy.manager import properties
from vcbproxy.manager.faults import Trouble, name_of, reason, trouble_of_fault
from vcbproxy.manager.session import Session
from vcbproxy.manager.wire import Wire, moref_of

log = logging.getLogger(__name__)

_ROUND_S = 5
_Collector: Any = vmodl.query.PropertyCollector


@dataclass(frozen=True, slots=True)
class Started:
    """A task under way: what it does to whom, for messages."""

    moref: str
    name: str
    entity: str


def start(session: Session, name: str, entity: str, operation: Callable[[Wire], Any]) -> Started:
    """Start a task; sent at most once."""
    task = session.act(operation)
    if not isinstance(task, vim.Task):
        raise ManagerError(f"{session}: {name} started no task")
    return Started(moref_of(task), name, entity)


def never() -> bool:
    """Nobody asks for an end."""
    return False


def wait(
    session: Session,
    task: Started,
    *,
    clock: Clock,
    limit_s: float,
    cancelled: Callable[[], bool] = never,
    given_up: Callable[[], bool] = never,
) -> Any:
    """Wait for the task's end and return its result (pyVmomi's; not to be handed on).

    Args:
        session: where it runs.
        task: what was started.
        clock: measures the limit.
        limit_s: how long to wait; the task itself is not stopped by the limit.
        cancelled: asked every few seconds; once true the task is asked to stop, and still waited for.
        given_up: asked likewise; once true nobody waits any longer.

    Raises:
        TaskFailed: it ended in error; ``trouble`` says of which kind.
        ManagerError: the limit passed or it was given up (``UNFINISHED``), or the task is forgotten (``GONE``).
    """
    begun = clock.monotonic()
    deadline = begun + limit_s
    asked_to_stop = False
    while True:
        left_s = deadline - clock.monotonic()
        round_s = math.ceil(max(1, min(_ROUND_S, session.address.timeout_s / 2, left_s)))
        info = session.read(partial(_watch, moref=task.moref, round_s=round_s))
        if info.state == vim.TaskInfo.State.success:
            return info.result
        if info.state == vim.TaskInfo.State.error:
            raise TaskFailed(
                task=task.name,
                entity=task.entity,
                reason=reason(info.error),
                trouble=Trouble.CANCELLED if info.cancelled else trouble_of_fault(info.error),
                fault=name_of(info.error),
            )
        if clock.monotonic() >= deadline or given_up():
            unfinished = f"{task.name} of {task.entity} still runs after {clock.monotonic() - begun:.0f} s"
            raise ManagerError(unfinished, trouble=Trouble.UNFINISHED)
        if cancelled() and not asked_to_stop:
            asked_to_stop = True
            _ask_to_stop(session, task, cancelable=bool(info.cancelable))


def stop(session: Session, task: Started) -> None:
    """Ask a task to stop, if it can be; it ends when it ends."""
    try:
        info = session.read(lambda wire: properties.of_one(wire, wire.object(vim.Task, task.moref), ["info"])).need(
            "info"
        )
        _ask_to_stop(session, task, cancelable=bool(info.cancelable))
    except ManagerError as error:
        log.info("%s of %s could not be asked to stop: %s", task.name, task.entity, error)


def _watch(wire: Wire, moref: str, round_s: int) -> Any:
    """Sleep until the task's state changes to an end, or the round is over; return its TaskInfo."""
    subject = wire.object(vim.Task, moref)
    collector = wire.content.propertyCollector.CreatePropertyCollector()  # filters of our own: threads share a session
    assert collector is not None
    try:
        spec = _Collector.FilterSpec(
            objectSet=[_Collector.ObjectSpec(obj=subject, skip=False)],
            propSet=[_Collector.PropertySpec(type=vim.Task, all=False, pathSet=["info.state"])],
        )
        collector.CreateFilter(spec, partialUpdates=False)
        version = ""
        for wait_s in (0, round_s):
            update = collector.WaitForUpdatesEx(version, _Collector.WaitOptions(maxWaitSeconds=wait_s))
            if update is None:
                break
            version = update.version
            if _ended(update):
                break
    except CredentialsError:  # the collector went with its session; no login is tried a second time for it
        raise
    except BaseException:
        with contextlib.suppress(Error):  # the first error is the one to be told
            collector.DestroyPropertyCollector()
        raise
    with contextlib.suppress(ManagerError):  # it ends with the session at the latest; a login refused ends us, too
        collector.DestroyPropertyCollector()
    return properties.of_one(wire, subject, ["info"]).need("info")


def _ended(update: Any) -> bool:
    ends = (vim.TaskInfo.State.success, vim.TaskInfo.State.error)
    return any(
        change.val in ends
        for filter_update in update.filterSet
        for object_update in filter_update.objectSet
        for change in object_update.changeSet
    )


def _ask_to_stop(session: Session, task: Started, *, cancelable: bool) -> None:
    if not cancelable:
        log.info("%s of %s cannot be stopped; waiting for its end", task.name, task.entity)
        return
    try:
        session.act(lambda wire: wire.object(vim.Task, task.moref).CancelTask())
    except ManagerError as error:
        log.info("%s of %s could not be stopped (%s); waiting for its end", task.name, task.entity, error)
