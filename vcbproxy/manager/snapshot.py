"""A VM snapshot of ours, which is gone again on every exit.

    with held(session, vm, name=…, marker=…, quiesce=…, clock=…) as frozen:
        … read frozen.disks: the files that the *snapshot* names, nothing else stands still …

Whatever ends the block (its end, an error, Ctrl-C, SIGTERM, also while the snapshot is only being created), the marker
is looked for afterwards and what carries it is removed, retried as long as that makes sense. The first error is the one
that is raised; what went wrong with the removal is a note on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyVmomi import vim

from vcbproxy.clock import Clock
from vcbproxy.config import Quiesce
from vcbproxy.errors import Cancelled, Error, ManagerError, TaskFailed
from vcbproxy.manager import convert, properties, task
from vcbproxy.manager.disk import Disk, refusal
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.marker import Marker
from vcbproxy.manager.removal import PAUSE_MAX_S, Limits, OurSnapshot, find_ours, pause, remove_marked
from vcbproxy.manager.session import Session
from vcbproxy.manager.shield import Interrupts, to_the_end
from vcbproxy.manager.vm import Power, Vm
from vcbproxy.manager.wire import moref_of

__all__ = ["Limits", "Marker", "OurSnapshot", "Quiesce", "VmSnapshot", "find_ours", "held", "remove_marked"]

log = logging.getLogger(__name__)

_QUIESCED_ATTEMPTS = 3
_QUIESCE_PAUSE_S = 5.0
_NO_TOOLS = "VMware Tools do not run in the guest"
_REFUSED = (Trouble.BUSY, Trouble.QUIESCE, Trouble.PERMISSION, Trouble.TRUST)  # anything else may have been heard


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    """A VM frozen at one moment.

    Attributes:
        created: when, by the manager's clock.
        quiesced: the guest had come to rest; else ``not_quiesced_because`` says why not.
        disks: what may be read: the snapshot's own backings.
        config: the VM's configuration at that moment, as plain data.
    """

    moref: str
    name: str
    created: datetime
    quiesced: bool
    not_quiesced_because: str | None
    disks: tuple[Disk, ...]
    config: dict[str, Any]


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
        ManagerError: it could not be created, does not freeze the disks, or could not be removed.
        Cancelled: ``cancelled`` said so.
    """
    _refuse(vm, quiesce)
    creation = _Creation(session, vm, name, marker, quiesce, clock, limits, cancelled)
    try:
        yield to_the_end(creation.run, f"the end of the snapshot's creation on {vm.name}")
    except BaseException as first:
        creation.undo_after(first)
        raise
    creation.undo()


def _refuse(vm: Vm, quiesce: Quiesce) -> None:
    """Refuse before anything is touched.

    Raises:
        ManagerError: a snapshot of this VM cannot be taken, or not in the way asked for.
    """
    if vm.template:
        raise ManagerError(f"{vm.name} is a template: it takes no snapshots; convert it to a virtual machine first")
    if not vm.connected:
        raise ManagerError(f"{vm.name}: the manager has lost its host; try when it is connected again")
    if quiesce is Quiesce.REQUIRE and vm.power_state is Power.ON and not vm.tools_running:
        raise ManagerError(f"{vm.name} cannot be quiesced: {_NO_TOOLS}", trouble=Trouble.QUIESCE)


def _from_quiescing(error: ManagerError) -> bool:
    """Whether a failed attempt may be the guest's doing: managers say so by several faults, some of them general."""
    trouble = trouble_of(error)
    return trouble is Trouble.QUIESCE or (isinstance(error, TaskFailed) and trouble is Trouble.OTHER)


@dataclass(slots=True)
class _Creation:
    """One snapshot from the first request to its disappearance."""

    session: Session
    vm: Vm
    name: str
    marker: Marker
    quiesce: Quiesce
    clock: Clock
    limits: Limits
    cancelled: Callable[[], bool]
    interrupts: Interrupts = field(default_factory=Interrupts)
    requested: bool = False
    removing: bool = False
    outcome_known: bool = True

    def run(self, interrupts: Interrupts) -> VmSnapshot:
        """Create it, quiesced if it can be, and read what it froze."""
        self.interrupts = interrupts
        why_not = self._why_not_quiesced()
        for attempt in range(_QUIESCED_ATTEMPTS if why_not is None else 0):
            try:
                return self._frozen(self._create(quiesced=True), None)
            except ManagerError as error:
                last = self.quiesce is Quiesce.REQUIRE and attempt + 1 == _QUIESCED_ATTEMPTS
                if last or not _from_quiescing(error):
                    raise
                log.warning("attempt %d: %s", attempt + 1, error)
                why_not = str(error)
            self._remove(interrupts)
            pause(self.clock, _QUIESCE_PAUSE_S, self._ended)
        return self._frozen(self._create(quiesced=False), why_not)

    def undo(self) -> None:
        """Remove whatever carries the marker, if anything was ever requested."""
        if self.requested:
            to_the_end(self._remove, f"the removal of the snapshot of {self.vm.name}")
            self.requested = False

    def undo_after(self, first: BaseException) -> None:
        """Remove it, and let the first error be the one that is raised; only an interrupt comes before it."""
        try:
            self.undo()
        except (KeyboardInterrupt, Cancelled) as interrupt:
            if not self.removing:  # it came a moment before signals were held back
                self.undo()
            if not isinstance(first, KeyboardInterrupt | Cancelled):
                raise interrupt from first
        except Error as second:
            log.exception("the clean-up failed as well")
            first.add_note(f"and then: {second}")

    def _remove(self, interrupts: Interrupts) -> None:
        """Remove; twice with a pause between, when a lost request may still be on its way through the manager."""
        self.removing = True
        for look in range(1 if self.outcome_known else 2):
            if look > 0:
                pause(self.clock, self.limits.settle_s, interrupts.given_up)
            remove_marked(
                self.session,
                self.vm,
                self.marker,
                clock=self.clock,
                limits=self.limits,
                unsure=not self.outcome_known,
                given_up=interrupts.given_up,
            )

    def _ended(self) -> bool:
        return self.interrupts.asked() or self.cancelled()

    def _why_not_quiesced(self) -> str | None:
        """Why there is no point in asking the guest, or None."""
        if self.quiesce is Quiesce.OFF:
            return "not asked for"
        if self.vm.power_state is not Power.ON:
            return f"the VM is {'off' if self.vm.power_state is Power.OFF else 'suspended'}"
        if not self.vm.tools_running:
            return _NO_TOOLS
        return None

    def _create(self, *, quiesced: bool) -> str:
        """Create it once, waiting while the VM is busy; return its moref."""
        deadline = self.clock.monotonic() + self.limits.busy_s
        pause_s = self.limits.pause_s
        while True:
            if self._ended():
                raise Cancelled
            try:
                return self._ask(quiesced=quiesced)
            except ManagerError as error:
                if trouble_of(error) is not Trouble.BUSY or self.clock.monotonic() >= deadline:
                    raise
                log.info("waiting: %s", error)
            pause(self.clock, pause_s, self._ended)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _ask(self, *, quiesced: bool) -> str:
        def create(wire: Any) -> Any:
            machine = wire.object(vim.VirtualMachine, self.vm.moref)
            return machine.CreateSnapshot_Task(self.name, self.marker.description, memory=False, quiesce=quiesced)

        self.requested = True
        self.removing = False
        self.outcome_known = False
        try:
            started = task.start(self.session, "CreateSnapshot", self.vm.name, create)
        except ManagerError as error:
            self.outcome_known = trouble_of(error) in _REFUSED
            raise
        try:
            snapshot = task.wait(
                self.session,
                started,
                clock=self.clock,
                limit_s=self.limits.create_s,
                cancelled=self._ended,
                given_up=self.interrupts.given_up,
            )
        except TaskFailed:
            self.outcome_known = True
            raise
        self.outcome_known = True  # any other error of the wait leaves it open: the task may well go on
        if self._ended():
            raise Cancelled
        if not isinstance(snapshot, vim.vm.Snapshot):
            raise ManagerError(f"{self.session}: a snapshot of {self.vm.name} was created, and not named")
        return moref_of(snapshot)

    def _frozen(self, moref: str, why_not: str | None) -> VmSnapshot:
        """Read what the snapshot froze, and make sure that the VM has moved on to other files."""
        config = self.session.read(
            lambda wire: properties.of_one(wire, wire.object(vim.vm.Snapshot, moref), ["config"])
        ).need("config")
        live = self.session.read(
            lambda wire: properties.of_one(wire, wire.object(vim.VirtualMachine, self.vm.moref), ["config", "snapshot"])
        )
        trees = properties.snapshot_trees(live.get("snapshot"))
        tree = next((tree for tree in trees if moref_of(tree.snapshot) == moref), None)
        if tree is None:
            raise ManagerError(f"the new snapshot of {self.vm.name} is not among its snapshots")
        disks = convert.disks(config)
        written = {disk.path for disk in convert.disks(live.need("config"))}
        for disk in disks:
            if refusal(disk) is None and disk.path in written:
                raise ManagerError(f"{self.vm.name}: {disk.key} is not frozen: the snapshot left {disk.path} in use")
        if why_not is None and not tree.quiesced:
            why_not = "the manager says that it is not quiesced, although that was asked for"
            if self.quiesce is Quiesce.REQUIRE:
                raise ManagerError(f"the snapshot of {self.vm.name}: {why_not}", trouble=Trouble.QUIESCE)
        return VmSnapshot(
            moref=moref,
            name=tree.name,
            created=convert.utc(tree.createTime),
            quiesced=why_not is None,
            not_quiesced_because=why_not,
            disks=disks,
            config=convert.plain(config),
        )
