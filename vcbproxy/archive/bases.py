"""Restore points together with those that their delta images build on."""

from __future__ import annotations

from collections.abc import Sequence

from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import IntegrityError

_DEPTH_MAX = 10_000


def chain(point: ArchivedPoint, known: Sequence[ArchivedPoint]) -> list[ArchivedPoint]:
    """A restore point and all that it builds on, the oldest first.

    Raises:
        IntegrityError: one of them is not in the catalog any more.
    """
    by_id = {one.id: one for one in known}
    found = [point]
    while found[-1].base is not None:
        base = by_id.get(found[-1].base or "")
        if base is None or len(found) > _DEPTH_MAX:
            raise IntegrityError(
                f"{point.name} builds on restore point {found[-1].base}, which is not in the catalog: its cartridges "
                "expired, or `vcbproxy tape catalog rebuild` has not seen them"
            )
        found.append(base)
    return found[::-1]


def suspect_with(point: ArchivedPoint, known: Sequence[ArchivedPoint]) -> list[str]:
    """The ids of what is suspect when a restore point is: it, and the deltas below it. A full image was read whole.

    Raises:
        IntegrityError: one of them is not in the catalog any more.
    """
    return [one.id for one in chain(point, known) if one.base is not None or one.id == point.id]


def with_bases(points: Sequence[ArchivedPoint], known: Sequence[ArchivedPoint]) -> list[ArchivedPoint]:
    """These and all that they build on, each once, bases before what builds on them.

    Raises:
        IntegrityError: one of them is not in the catalog any more.
    """
    return list({one.id: one for point in points for one in chain(point, known)}.values())
