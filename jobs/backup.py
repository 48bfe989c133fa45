"""A backup job run over many VMs: one after the other, each on its own; what fails fails alone.

SourceError, NothingProtected  of one VM: noted, the next VM follows
TargetError, IntegrityError    the repository is in trouble: the job run ends
Cancelled                      the job run ends; snapshot and lock are gone
a mistake in the program        at one VM: noted with its traceback, the next VM follows
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from jobs.bases import History
from jobs.choices import Choices, Surroundings
from jobs.cleanup import Action, Cleanup, Rules
from jobs.lanes import deal, onto_another
from jobs.outcome import Outcome, Report, VmResult
from jobs.target import Lane
from jobs.vmbackup import back_up_vm
from vcbproxy.errors import (
    BaseGone,
    Cancelled,
    CartridgeFailed,
    Error,
    ManagerError,
    NothingProtected,
    SnapshotLeft,
    SourceError,
    UsageError,
)
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.choice import refuse
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Vm, VmSummary
from vcbproxy.pipeline.crew import Cancel

log = logging.getLogger(__name__)

# What mistakes in a program look like. Whatever else is none of our errors, as the tape's and the operating system's
# are, is about what all VMs share.
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_TEMPLATE_REMEDY = "convert it to a virtual machine first, or leave templates out with `and any:`"
_CLUSTER_SERVICE_REMEDY = "there is nothing to protect; leave such VMs out with `and any:`"


def run(
    around: Surroundings,
    selectors: Sequence[str],
    choices: Choices,
    *,
    finished: Callable[[VmResult], None] = lambda result: None,
) -> Report:
    """Back up every VM that is selected; with no selector, all workloads.

    ``finished`` is told what became of each VM at once: whatever ends the job run later, those that are safe are known.

    Raises:
        NothingProtected: there is no VM, or none is left.
        UsageError: a selector is none, or means no VM, or several where it must be one; with ``keep_going`` only when
            none means any.
        Error: whatever ends the whole job run.
    """
    results: list[VmResult] = []

    def unmet(selector: str, error: UsageError) -> None:
        results.append(VmResult(selector, Outcome.FAILED, error=_with_exit_code(error)))
        around.watcher.said(str(error))

    chosen = inventory.chosen(around.session, selectors, unmet=unmet if choices.keep_going else refuse)
    left = _clean_up(around, {vm.moref for vm in chosen})
    history = History(around.target)
    run_all = _Run(around, choices, history, chosen, left, finished)
    return Report((*results, *run_all.results()))


class _Run:
    """The VMs of one job run, in as many lanes as the target has; each lane takes the next VM when it is free."""

    def __init__(
        self,
        around: Surroundings,
        choices: Choices,
        history: History,
        chosen: Sequence[VmSummary],
        left: Mapping[str, str],
        finished: Callable[[VmResult], None],
    ) -> None:
        self._around = around
        self._finished = finished
        self._choices = choices
        self._history = history
        self._chosen = chosen
        self._left = left
        self._results: dict[int, VmResult] = {}
        self._lock = threading.Lock()

    def results(self) -> list[VmResult]:
        """Back them up; what became of each, in their order.

        Raises:
            Error: whatever ends the whole job run; it says what had become of the others.
        """
        numbered = self._in_order()
        try:
            deal(self._around.target, numbered, self._in_lane, said=self._around.watcher.said, interrupt=self._wake)
        except (Error, Cancelled) as error:
            if self._results:
                error.add_note(_before_that(list(self._results.values()), self._chosen))
            raise
        return [self._results[number] for number in sorted(self._results)]

    def _in_order(self) -> list[tuple[int, VmSummary]]:
        """With several lanes the largest first: else the last one might keep one drive busy while the others idle."""
        numbered = list(enumerate(self._chosen))
        if min(self._around.target.lanes, len(numbered)) > 1:
            with suppress(ManagerError):  # then in the order asked for
                sizes = overview.committed_bytes(self._around.session)
                numbered.sort(key=lambda one: -sizes.get(one[1].moref, 0))
        return numbered

    def _wake(self, _lanes: Collection[int]) -> None:
        """A lane fails, or the operator wants an end: whoever works for any of them reads for nothing by now."""
        self._around.storage.patience.interrupt()

    def _in_lane(self, lane: Lane, numbered: tuple[int, VmSummary], stop: Cancel | None) -> None:
        number, vm = numbered
        result = self._one(replace(self._around, stop=stop), lane, number, vm)
        with self._lock:
            self._results[number] = result
            self._finished(result)

    def _one(self, around: Surroundings, lane: Lane, number: int, vm: VmSummary) -> VmResult:
        several = len(self._chosen) > 1
        if several:
            around.watcher.step(f"{vm.name}: {number + 1} of {len(self._chosen)}")
        result = _with_leftover(self._tried(around, lane, vm), self._left.get(vm.moref))
        if result.error is not None and several:  # a lone VM's error is what the whole job run ends with
            for line in (str(result.error), *result.warnings):
                around.watcher.said(about(vm.name, line))
        return result

    def _tried(self, around: Surroundings, lane: Lane, vm: VmSummary) -> VmResult:
        """One VM; once more when a cartridge fails, or what it grows out of is given up meanwhile.

        Either way nothing more is to grow out of what is on that cartridge: which points there are is asked anew.
        """

        def attempt() -> VmResult:
            result = _one(around, lane, vm, self._choices, self._history)
            if isinstance(result.error, BaseGone):
                around.watcher.said(f"{vm.name} is backed up once more: {result.error}")
                self._history = History(around.target)
                result = _one(around, lane, vm, self._choices, self._history)
            return result

        def failed(error: CartridgeFailed) -> None:
            around.watcher.said(f"{vm.name} is backed up once more, onto another cartridge: {error}")
            self._history = History(around.target)

        return onto_another(lane, attempt, failed)


def _clean_up(around: Surroundings, morefs: Collection[str]) -> Mapping[str, str]:
    """Remove what dead job runs left on these VMs, so that a night after a crash mends itself; and say so.

    Returns:
        Why it is still there, by moref, where it could not be removed. The backup goes on above it.

    Raises:
        ManagerError: the manager does not answer.
    """
    cleanup = Cleanup(around.session, around.registry, Rules(morefs=frozenset(morefs)), around.clock)
    failed: dict[str, str] = {}
    cleanup.settle()
    try:
        findings = cleanup.survey()
    except ManagerError as error:
        if trouble_of(error) is Trouble.CONNECTION:
            raise
        # It is told of all VMs at once, of those that are not meant, too: one must not cost the others their night.
        around.watcher.said(f"what earlier backups may have left is not known, `vcbproxy cleanup` looks again: {error}")
        return failed
    for done in cleanup.carry_out(findings):
        what = "the disks" if done.snapshot is None else f"the snapshot {done.snapshot.name!r}"
        match done.action:
            case Action.REMOVED | Action.CONSOLIDATED:
                around.watcher.said(f"{done.vm}: {what} that a backup had left behind: {done.action.value}")
            case Action.FAILED:
                failed[done.moref] = done.reason
                around.watcher.said(about(done.vm, done.reason))
            case _:
                around.watcher.said(f"{done.vm}: {what} of another backup is there: {done.reason}")
    return failed


def _with_leftover(result: VmResult, reason: str | None) -> VmResult:
    """A VM on which an older snapshot of ours grows on is not simply OK."""
    if reason is None:
        return result
    outcome = Outcome.PARTIAL if result.outcome in (Outcome.OK, Outcome.ALARM) else result.outcome
    return replace(result, outcome=outcome, snapshot_left=result.snapshot_left or reason)


def about(vm: str, sentence: str) -> str:
    """The sentence, with the VM's name before it unless it begins with that anyway."""
    return sentence if sentence.startswith(vm) else f"{vm}: {sentence}"


def _before_that(results: Sequence[VmResult], chosen: Sequence[VmSummary]) -> str:
    """What had become of the VMs before the job run broke off: their points stay."""
    kept = [result.vm for result in results if result.point is not None]
    return f"before that, restore points were made of {len(kept)} of {len(chosen)}: {', '.join(kept) or 'none'}"


def _one(around: Surroundings, lane: Lane, vm: VmSummary, choices: Choices, history: History) -> VmResult:
    started = around.clock.monotonic()
    try:
        return back_up_vm(around, lane, described(around.session, vm), choices, history)
    except (SourceError, NothingProtected, UsageError) as error:
        return VmResult(
            vm=vm.name,
            outcome=Outcome.FAILED,
            error=_with_exit_code(error),
            snapshot_left=_left(error),
            warnings=tuple(getattr(error, "__notes__", ())),
            seconds=around.clock.monotonic() - started,
        )
    except _BUGS as error:  # a fault of our own that this VM has brought to light: the others are none the worse
        log.exception("%s: an error that nobody has thought of", vm.name)
        told = f"{vm.name}: an error that nobody has thought of; please report it with what was logged: {error!r}"
        return VmResult(
            vm=vm.name,
            outcome=Outcome.FAILED,
            error=SourceError(told),
            warnings=tuple(getattr(error, "__notes__", ())),
            seconds=around.clock.monotonic() - started,
        )


def _left(error: Error) -> str | None:
    """Why our VM snapshot could not be removed either; None when it is gone."""
    left = str(error) if isinstance(error, SnapshotLeft) else error.facts.get("snapshot_left")
    return None if left is None else str(left)


def described(session: Session, vm: VmSummary) -> Vm:
    """A chosen VM in full.

    Raises:
        SourceError: it cannot be backed up: a template, or a VM that the manager has lost.
    """
    if vm.template:
        raise SourceError(f"{vm.name} is a template, and those take no snapshot: {_TEMPLATE_REMEDY}")
    if vm.cluster_service:
        raise SourceError(f"{vm.name} is vCenter's own (vCLS), which makes it anew: {_CLUSTER_SERVICE_REMEDY}")
    return inventory.get(session, vm.moref)


def _with_exit_code(error: Error) -> Error:
    """A selector that is refused deep inside is still this VM's failure, not the operator's usage."""
    if not isinstance(error, UsageError):
        return error
    ours = SourceError(str(error))
    for note in getattr(error, "__notes__", ()):
        ours.add_note(note)
    return ours
