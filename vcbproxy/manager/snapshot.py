"""A VM snapshot of ours, which is gone again on every exit: the first half of ``lifecycle``, carried out.

    with held(session, vm, name=…, marker=…, quiesce=…, clock=…) as frozen:
        … read frozen.disks: the files that the *snapshot* names, nothing else stands still …

Whatever ends the block (its end, an error, Ctrl-C, SIGTERM, also while the snapshot is only being created), the marker
is looked for afterwards and what carries it is removed, retried as long as that makes sense. The first error is the one
that is raised; what went wrong with the removal is a note on it, and its fact ``snapshot_left``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim

from vcbproxy.clock import Clock
from vcbproxy.config import Quiesce
from vcbproxy.errors import Cancelled, Error, ManagerError
from vcbproxy.manager import quiesce, task
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.lifecycle import ENDS, Event, State, after, event_of
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.quiesce import Cause, Unquiesced
from vcbproxy.manager.removal import PAUSE_MAX_S, Limits, OurSnapshot, find_ours, pause, remove_marked
from vcbproxy.manager.session import Session
from vcbproxy.manager.shield import Interrupts, to_the_end
from vcbproxy.manager.vm import Vm
from vcbproxy.manager.vmsnapshot import VmSnapshot, as_it_runs, read
from vcbproxy.manager.wire import moref_of

__all__ = ["Limits", "Marker", "OurSnapshot", "Quiesce", "VmSnapshot", "find_ours", "held", "refuse", "remove_marked"]

log = logging.getLogger(__name__)

_QUIESCED_ATTEMPTS = 3
_QUIESCE_PAUSE_S = 5.0


@contextmanager
def held(
    session: Session,
    vm: Vm,
    *,
    name: str,
    marker: Marker,
    quiesce: Quiesce,
    clock: Clock,
    cancelled: Callable[[], bool] = task.never,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Iterator[VmSnapshot]:
    """Hold a snapshot of the VM for the length of the ``with`` block.

    Args:
        session: where the VM is.
        vm: as ``inventory.find`` or ``get`` returned it.
        name: what the client shows.
        marker: goes into the description; unique to the job run, since all that carries it is removed.
        quiesce: REQUIRE fails without it, TRY takes a crash-consistent snapshot in the end and says so, OFF never asks.
        clock: paces waits and retries.
        cancelled: asked between steps of the creation; once true, Cancelled is raised (and nothing is left behind).
        limits: how long the steps may take.

    Raises:
        ManagerError: it could not be created, or does not freeze the disks.
        SnapshotLeft: it could not be removed.
        Cancelled: ``cancelled`` said so.
    """
    refuse(vm, quiesce)
    life = _Life(session, vm, name, marker, quiesce, clock, limits, cancelled)
    try:
        frozen = to_the_end(life.create, f"the end of the snapshot's creation on {vm.name}")
        life.on(Event.DONE)
        yield frozen
        life.on(Event.DONE)
        life.undo()  # in here, too: an interrupt may come before signals are held back
    except BaseException as first:
        life.undo_after(first)
        raise


def refuse(vm: Vm, wanted: Quiesce) -> None:
    """Refuse before anything is touched.

    Raises:
        ManagerError: a snapshot of this VM cannot be taken, or not in the way asked for.
    """
    if vm.template:
        raise ManagerError(f"{vm.name} is a template: it takes no snapshots; convert it to a virtual machine first")
    if not vm.connected:
        raise ManagerError(f"{vm.name}: the manager has lost its host; try when it is connected again")
    hindrance = quiesce.beforehand(vm, wanted)
    if wanted is Quiesce.REQUIRE and hindrance is not None and hindrance.cause is not Cause.POWERED_OFF:
        raise ManagerError(f"{vm.name} cannot be quiesced: {hindrance}", trouble=Trouble.QUIESCE)


@dataclass(slots=True)
class _Life:
    """One snapshot from the first request to its disappearance; ``state`` is what is known of it."""

    session: Session
    vm: Vm
    name: str
    marker: Marker
    quiesce: Quiesce
    clock: Clock
    limits: Limits
    cancelled: Callable[[], bool]
    state: State = State.GONE
    interrupts: Interrupts = field(default_factory=Interrupts)
    removing: bool = False
    never_seen: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    creator: threading.Thread | None = None
    deposed: threading.Thread | None = None

    def on(self, event: Event) -> None:
        """Something happened: the table says what that means."""
        self._become(lambda state: after(state, event), event.value)

    def _become(self, following: Callable[[State], State], why: str) -> None:
        """Change the state; a creating thread that nobody waits for any longer has no say."""
        with self.lock:
            if threading.current_thread() is self.deposed:
                return
            before, self.state = self.state, following(self.state)
        log.debug("%s: %s, %s: %s", self.vm.name, before.value, why, self.state.value)

    def create(self, interrupts: Interrupts) -> VmSnapshot:
        """Create it, quiesced if it can be, and read what it froze; anew when the VM was switched on just then."""
        self.interrupts, self.creator = interrupts, threading.current_thread()
        frozen = self._taken(interrupts)
        if _switched_on(frozen):  # while it was waited for, most likely
            self._broken(Event.FAULT)
            self._clean_up(interrupts)
            frozen = self._taken(interrupts)
        if _switched_on(frozen) and self.quiesce is Quiesce.REQUIRE:
            raise ManagerError(f"the snapshot of {self.vm.name}: {frozen.unquiesced}", trouble=Trouble.QUIESCE)
        return frozen

    def _taken(self, interrupts: Interrupts) -> VmSnapshot:
        self.vm = as_it_runs(self.session, self.vm)
        unquiesced = quiesce.beforehand(self.vm, self.quiesce)
        for attempt in range(_QUIESCED_ATTEMPTS if unquiesced is None else 0):
            try:
                return self._frozen(self._created(quiesced=True), None)
            except ManagerError as error:
                unquiesced = quiesce.blamed_on_guest(error)
                if unquiesced is None:
                    raise
                hangs = unquiesced.cause is Cause.TIMEOUT  # a second time would cost as much again
                if self.quiesce is Quiesce.REQUIRE and (hangs or attempt + 1 == _QUIESCED_ATTEMPTS):
                    raise
                log.warning("%s: attempt %d to quiesce it: %s", self.vm.name, attempt + 1, unquiesced)
            self._broken(Event.FAULT)
            self._clean_up(interrupts)
            if hangs:
                break
            pause(self.clock, _QUIESCE_PAUSE_S, self._ended)
        return self._frozen(self._created(quiesced=False), unquiesced)

    def undo(self) -> None:
        """Remove whatever carries the marker, if anything was ever requested."""
        if self.state not in ENDS:
            to_the_end(self._clean_up, f"the removal of the snapshot of {self.vm.name}")

    def undo_after(self, first: BaseException) -> None:
        """Remove it, and let the first error be the one that is raised; only an interrupt comes before it."""
        interrupted = isinstance(first, KeyboardInterrupt | Cancelled)
        if interrupted and self.removing:  # the operator insisted, or it is done; what is left is told there
            return
        if self.interrupts.given_up():  # the creation may go on behind our back
            with self.lock:
                self.deposed = self.creator
            self.on(Event.INSIST)
        self._broken(Event.INTERRUPT if interrupted else Event.FAULT)
        try:
            self.undo()
        except (KeyboardInterrupt, Cancelled) as interrupt:
            if not self.removing:  # it came a moment before signals were held back
                self.undo()
            if not interrupted:
                raise interrupt from first
        except Error as second:
            first.add_note(f"and then: {second}")
            if isinstance(first, Error):
                first.facts["snapshot_left"] = str(second)
        else:
            if self.never_seen:
                first.add_note(f"a snapshot may still appear on {self.vm.name}: `vcbproxy cleanup` takes it away then")

    def _broken(self, event: Event) -> None:
        """The block ended otherwise than well. What is only asked for, and not under way, was refused."""
        self.on(event)
        if self.state is State.ASKED:
            self.on(Event.FAULT)

    def _clean_up(self, interrupts: Interrupts) -> None:
        self.removing = True
        unsure = self.state is State.AWAITED
        try:
            removed = remove_marked(
                self.session,
                self.vm,
                self.marker,
                clock=self.clock,
                limits=self.limits,
                unsure=unsure,
                given_up=interrupts.given_up,
            )
        except BaseException:
            self._become(lambda _: State.STUCK, "the removal failed")
            raise
        self.never_seen = unsure and removed == 0
        self._become(lambda _: State.GONE, "removed")

    def _ended(self) -> bool:
        return self.interrupts.asked() or self.cancelled()

    def _created(self, *, quiesced: bool) -> str:
        """Create it once, waiting while the VM is busy; return its moref."""
        deadline = self.clock.monotonic() + self.limits.busy_s
        pause_s = self.limits.pause_s
        while True:
            if self._ended():
                raise Cancelled
            try:
                return self._asked(quiesced=quiesced)
            except ManagerError as error:
                if trouble_of(error) is not Trouble.BUSY:
                    raise
                if self.clock.monotonic() >= deadline:
                    self.on(Event.FAULT)
                    raise
                log.info("waiting: %s", error)
            pause(self.clock, pause_s, self._ended)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _asked(self, *, quiesced: bool) -> str:
        def create(wire: Any) -> Any:
            machine = wire.object(vim.VirtualMachine, self.vm.moref)
            return machine.CreateSnapshot_Task(self.name, self.marker.description, memory=False, quiesce=quiesced)

        self.removing = False
        self.on(Event.ASK)
        try:
            started = task.start(self.session, "CreateSnapshot", self.vm.name, create)
            snapshot = self._ended_task(started)
        except ManagerError as error:
            self.on(event_of(error))
            raise
        except BaseException:
            self.on(Event.LOST)  # a login that was refused meanwhile, say: the task may go on
            raise
        self.on(Event.DONE)
        if self._ended():
            raise Cancelled
        if not isinstance(snapshot, vim.vm.Snapshot):
            raise ManagerError(f"{self.session}: a snapshot of {self.vm.name} was created, and not named")
        return moref_of(snapshot)

    def _ended_task(self, started: task.Started) -> Any:
        """The creation's result. One that takes too long is told to stop; its end is awaited by the clean-up."""
        try:
            return task.wait(
                self.session,
                started,
                clock=self.clock,
                limit_s=self.limits.create_s,
                cancelled=self._ended,
                given_up=self.interrupts.given_up,
            )
        except ManagerError as error:
            if trouble_of(error) is Trouble.UNFINISHED:
                task.stop(self.session, started)
            raise

    def _frozen(self, moref: str, unquiesced: Unquiesced | None) -> VmSnapshot:
        """What it froze; not quiesced after all is a fault of the guest where it must be."""
        frozen = read(self.session, self.vm, moref, unquiesced)
        unsure = frozen.unquiesced is not None and frozen.unquiesced.cause is Cause.UNCONFIRMED
        if unsure and self.quiesce is Quiesce.REQUIRE:
            raise ManagerError(f"the snapshot of {self.vm.name}: {frozen.unquiesced}", trouble=Trouble.QUIESCE)
        return frozen


def _switched_on(frozen: VmSnapshot) -> bool:
    return frozen.unquiesced is not None and frozen.unquiesced.cause is Cause.SWITCHED_ON
