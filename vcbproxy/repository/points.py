"""Restore points in a list. How one of them is named on a command line: ``pointname``.

A restore point is what it was made as: its time, its tree, the id of its first record. Changing a tag, by us or by
stock ``restic tag``, stores a new record and then removes the old one. A crash between leaves both; they are one
restore point here, with the tags of both, so that a pin that was on its way holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vcbproxy import pointname
from vcbproxy.errors import UsageError
from vcbproxy.repository import times
from vcbproxy.repository.snapshot import Snapshot

TAG = "vcbproxy"
PARTIAL_TAG = "partial"
SUSPECT_TAG = "suspect"
PINNED_TAG = "pinned"
_PINNED_BECAUSE = "pinned:"
_METHOD_TAG = "method:"
_VM_TAG = "vm:"
_POLICY_TAG = "policy:"


@dataclass(frozen=True, slots=True)
class PointSummary:
    """One restore point in a list.

    Attributes:
        id: of its snapshot record, 64 hex digits.
        original: of its first record, where stock restic replaced that; else equal to ``id``.
        vm: the VM's name.
        instance_uuid: which VM, whatever it is called.
        time: when it was as it was.
        tags: all of them.
        size_bytes: disks and files together; None where stock restic dropped the number.
        added_bytes: what it added to the repository; None likewise.
        tree: the root tree.
        path: ``/<directory in the tree>``.
        records: the ids of all its snapshot records: ``id``, and what a crash left beside it.
    """

    id: str
    original: str
    vm: str
    instance_uuid: str
    time: datetime
    tags: tuple[str, ...]
    size_bytes: int | None
    added_bytes: int | None
    tree: bytes
    path: str
    records: tuple[str, ...]

    @property
    def short_id(self) -> str:
        """What people are shown and may type."""
        return self.id[:8]

    @property
    def ids(self) -> tuple[str, ...]:
        """All that it goes by: of its records, and of the first one, which may be gone."""
        return tuple(dict.fromkeys((self.id, *self.records, self.original)))

    @property
    def name(self) -> str:
        """``web01@2026-11-22T01:00:00Z``."""
        return f"{self.vm}@{times.canonical(self.time)}"

    @property
    def policy(self) -> str:
        """The policy it was made for, or nothing."""
        return _tagged(self.tags, _POLICY_TAG)

    @property
    def partial(self) -> bool:
        """Whether some disk of the VM is not in it; its manifest says which, and why."""
        return PARTIAL_TAG in self.tags

    @property
    def suspect(self) -> bool:
        """Whether it was found to differ from the disk it was made of."""
        return SUSPECT_TAG in self.tags

    @property
    def good(self) -> bool:
        """Whether it holds all disks of its VM, and nothing is known against it."""
        return not (self.partial or self.suspect)

    @property
    def pinned(self) -> bool:
        """Whether no rule may remove it."""
        return PINNED_TAG in self.tags or bool(self.pinned_because)

    @property
    def pinned_because(self) -> str:
        """Why it is pinned, where somebody said so."""
        return _tagged(self.tags, _PINNED_BECAUSE)

    @property
    def method(self) -> str:
        """How it was read, ``full`` or ``incremental``; nothing where its record does not say."""
        return _tagged(self.tags, _METHOD_TAG)

    @property
    def vm_key(self) -> str:
        """Which VM it is of, whatever that is called by now."""
        return self.instance_uuid or self.vm


def pin_tags(reason: str) -> frozenset[str]:
    """The tags that pin a restore point.

    Raises:
        UsageError: the reason has a comma, which stock restic's command line cannot express.
    """
    return frozenset(_checked((PINNED_TAG, *([_PINNED_BECAUSE + reason] if reason else []))))


def pins_among(tags: Iterable[str]) -> frozenset[str]:
    """Those of the tags that pin."""
    return frozenset(tag for tag in tags if tag == PINNED_TAG or tag.startswith(_PINNED_BECAUSE))


def method_tag(method: str) -> str:
    """The tag that says how a restore point was read, so that lists can tell without opening it."""
    return _METHOD_TAG + method


def tags_of(instance_uuid: str, policy: str, more: Sequence[str]) -> tuple[str, ...]:
    """The tags of a new restore point.

    Raises:
        UsageError: one of them has a comma, which stock restic's command line cannot express.
    """
    return _checked((TAG, _VM_TAG + instance_uuid, *([_POLICY_TAG + policy] if policy else []), *more))


def _checked(tags: Iterable[str]) -> tuple[str, ...]:
    for tag in tags:
        if "," in tag or not tag.isprintable():
            raise UsageError(f"tag {tag!r}: commas and control characters cannot be in it")
    return tuple(dict.fromkeys(tags))


def of_snapshot(snapshot: Snapshot) -> PointSummary | None:
    """A snapshot as a restore point; None when it is none of ours."""
    if TAG not in snapshot.tags or len(snapshot.paths) != 1:
        return None
    return PointSummary(
        id=snapshot.snapshot_id,
        original=snapshot.original or snapshot.snapshot_id,
        vm=snapshot.hostname,
        instance_uuid=_tagged(snapshot.tags, _VM_TAG),
        time=snapshot.time,
        tags=snapshot.tags,
        size_bytes=snapshot.total_bytes,
        added_bytes=snapshot.added_bytes,
        tree=snapshot.tree,
        path=snapshot.paths[0],
        records=(snapshot.snapshot_id,),
    )


def listed(snapshots: Iterable[Snapshot]) -> list[PointSummary]:
    """The restore points among snapshots, in their order; the records of one point are taken together."""
    together: dict[tuple[str, bytes, datetime], PointSummary] = {}
    for snapshot in snapshots:
        if (point := of_snapshot(snapshot)) is not None:
            identity = (point.original, point.tree, point.time)
            known = together.get(identity)
            together[identity] = point if known is None else _merged(known, point)
    return list(together.values())


def _merged(one: PointSummary, other: PointSummary) -> PointSummary:
    """Two records of one restore point. The rewritten one is shown; the first was about to be removed."""
    shown, left = sorted((one, other), key=lambda point: (point.id == point.original, point.id))
    return replace(
        shown,
        tags=tuple(dict.fromkeys(shown.tags + left.tags)),
        records=tuple(dict.fromkeys(shown.records + left.records)),
    )


def choose(points: Sequence[PointSummary], text: str, now: datetime | None = None) -> PointSummary:
    """The one restore point that ``text`` names; see ``pointname``.

    Raises:
        UsageError: none or several; the message lists what there is.
    """
    return pointname.choose(points, text, "in the repository", now)


def _tagged(tags: Iterable[str], prefix: str) -> str:
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), "")
