"""Forgetting restore points: by rule, or by name; under the repository's exclusive lock.

    lock ─▶ list ─▶ decide: a verdict for each point ─▶ remove the records of those that go ─▶ unlock

What is decided and what is done come from one listing under one lock, so that no point is judged by others that are
gone. A point that needs what was found damaged in the repository is taken for suspect: it stands for no good one. A
VM's last good restore point goes only when it is named, and the VM is named once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from jobs import retention
from jobs.retention import Rule, Verdict
from vcbproxy.errors import Cancelled, Error, UsageError
from vcbproxy.manager.pattern import Pattern
from vcbproxy.pointname import some_of
from vcbproxy.repository import hurt as damage
from vcbproxy.repository import points, records
from vcbproxy.repository.lock import HeldLock
from vcbproxy.repository.points import PointSummary
from vcbproxy.repository.repository import Repository

ALL = "@all"
Decision = Callable[[Sequence[PointSummary]], list[Verdict]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        verdicts: what was decided, oldest first.
        forgotten: ids of the points that are gone.
        hurt: ids of the points that need what is known to be damaged.
        error: what ended it early; the points that were to go and are not among the forgotten are still there.
    """

    verdicts: tuple[Verdict, ...]
    forgotten: frozenset[str]
    hurt: frozenset[str]
    error: Error | Cancelled | None = None


def by_rule(rule: Rule, vms: Sequence[str], *, now: datetime, zone: tzinfo) -> Decision:
    """Decide by a rule, about VMs that are named by name, pattern or instance UUID; about all when none is.

    Raises:
        UsageError: (the decision) the rule is empty, or there is no restore point of a VM that is named.
    """

    def decide(listed: Sequence[PointSummary]) -> list[Verdict]:
        return retention.judge(of_vms(listed, vms), rule, now=now, zone=zone)

    return decide


def by_name(texts: Sequence[str], even_the_last: Collection[str], *, now: datetime) -> Decision:
    """Decide that these restore points go.

    Args:
        texts: points as ``points.choose`` takes them; ``web01@all`` means all of the VM.
        even_the_last: VMs, by name or instance UUID, that may lose their last good point.
        now: points that are later do not count as good ones that are left.

    Raises:
        UsageError: (the decision) there is no such point, it is pinned, or the last of a VM that is not named again.
    """

    def decide(listed: Sequence[PointSummary]) -> list[Verdict]:
        named = {point.id: point for text in texts for point in _named(listed, text)}
        for point in named.values():
            if point.pinned:
                because = f" ({point.pinned_because})" if point.pinned_because else ""
                raise UsageError(f"{point.name} is pinned{because}; `vcbproxy points unpin {point.short_id}` first")
        _refuse_the_last(listed, named, even_the_last, now)
        return [Verdict(point, keep=False, reasons=("named",)) for point in listed if point.id in named]

    return decide


def of_vms(listed: Sequence[PointSummary], vms: Sequence[str]) -> list[PointSummary]:
    """The restore points of VMs given by name, pattern or instance UUID; all when none is given.

    Raises:
        UsageError: one means no VM.
    """
    if not vms:
        return list(listed)
    meant: set[str] = set()
    for text in vms:
        pattern = Pattern.parse(text)
        found = {one.id for one in listed if text == one.instance_uuid or pattern.fits(one.vm)}
        if not found:
            known = some_of({one.vm for one in listed}, text)
            raise UsageError(f"no restore points of {text!r}; there are some of: {known}")
        meant |= found
    return [point for point in listed if point.id in meant]


def dry_run(repository: Repository, decide: Decision) -> Outcome:
    """Decide and change nothing; no lock is needed.

    Raises:
        UsageError: from the decision.
        IntegrityError: a snapshot record or the index is damaged.
    """
    listed, hurt = _surveyed(repository)
    return Outcome(tuple(_held_back(repository, decide(listed))), frozenset(), hurt)


def carry_out(repository: Repository, held: HeldLock, decide: Decision) -> Outcome:
    """Decide, and remove what goes.

    Args:
        repository: an open one.
        held: an exclusive lock.
        decide: told all restore points there are, oldest first.

    Raises:
        UsageError: from the decision; nothing was removed.
        IntegrityError: a snapshot record or the index is damaged; nothing was removed.
    """
    listed, hurt = _surveyed(repository)
    verdicts = _held_back(repository, decide(listed))
    forgotten: set[str] = set()
    error: Error | Cancelled | None = None
    try:
        going = [verdict.point for verdict in verdicts if not verdict.keep]
        records.forget(repository, held, going, lambda point: forgotten.add(point.id))
    except (Error, Cancelled) as caught:
        error = caught
    return Outcome(tuple(verdicts), frozenset(forgotten), hurt, error)


def _held_back(repository: Repository, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Let what the storage locks against removal stay until it may go: a lock outranks every rule."""
    found: list[Verdict] = []
    for verdict in verdicts:
        until = None if verdict.keep else records.locked_until(repository, verdict.point)
        why = f"locked until {until:%Y-%m-%d %H:%M} UTC" if until is not None else ""
        found.append(Verdict(verdict.point, keep=True, reasons=(why,)) if why else verdict)
    return found


def _surveyed(repository: Repository) -> tuple[list[PointSummary], frozenset[str]]:
    """All restore points, oldest first, and which of them are hurt; these bear the tag of the suspect here."""
    listed = points.listed(repository.snapshots())
    hurt = damage.hurt(repository, listed)
    marked = [replace(one, tags=(*one.tags, points.SUSPECT_TAG)) if one.id in hurt else one for one in listed]
    return marked, hurt


def _named(listed: Sequence[PointSummary], text: str) -> list[PointSummary]:
    if not text.endswith(ALL):
        return [points.choose(listed, text)]
    newest = points.choose(listed, f"{text.removesuffix(ALL)}@latest")
    return [point for point in listed if point.vm_key == newest.vm_key]


def _refuse_the_last(
    listed: Sequence[PointSummary], named: Collection[str], even_the_last: Collection[str], now: datetime
) -> None:
    left = retention.last_good([point for point in listed if point.id not in named], now)
    for key, best in retention.last_good(listed, now).items():
        if best.id not in named or {best.vm, best.instance_uuid} & set(even_the_last):
            continue
        remaining = left.get(key)
        if remaining is None or _is_better(best, remaining, now):
            kind = "good restore point" if best.good else "restore point"
            raise UsageError(
                f"{best.short_id} {best.name} is the last {kind} of this VM; "
                f"if it is to go all the same, add --even-the-last {best.vm}"
            )


def _is_better(one: PointSummary, other: PointSummary, now: datetime) -> bool:
    return (retention.counts(one, now), one.good) > (retention.counts(other, now), other.good)
