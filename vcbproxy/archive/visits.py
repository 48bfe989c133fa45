"""In which order cartridges are read, so that whoever needs several things in a certain order gets them in that.

    wanted    base on TAP1 ─▶ delta on TAP2 ─▶ delta on TAP1, as two drives that take turns leave them
    visits    TAP1: base        TAP2: delta        TAP1: delta

A cartridge is visited once wherever that can be, and a second time only when nothing else goes on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from vcbproxy.errors import IntegrityError

Item = TypeVar("Item", bound=Hashable)


def visits(wanted: Iterable[Sequence[tuple[str, Item]]]) -> list[tuple[str, list[Item]]]:
    """Which cartridge after which, and what is read of it each time.

    Args:
        wanted: sequences of (cartridge, item); what comes earlier in one of them is read before what comes later.

    Raises:
        IntegrityError: there is no such order.
    """
    sorter: TopologicalSorter[tuple[str, Item]] = TopologicalSorter()
    before: dict[tuple[str, Item], set[tuple[str, Item]]] = {}
    for sequence in wanted:
        for number, one in enumerate(sequence):
            earlier = sequence[number - 1 : number] if number else ()
            sorter.add(one, *earlier)
            before.setdefault(one, set()).update(earlier)
    try:
        ordered = list(sorter.static_order())
    except CycleError as error:
        raise IntegrityError("what is to be read builds upon itself: it was not written by us") from error
    left: dict[str, list[tuple[str, Item]]] = {}
    for one in ordered:
        left.setdefault(one[0], []).append(one)
    done: set[tuple[str, Item]] = set()
    found: list[tuple[str, list[Item]]] = []
    while left:
        barcode, readable = _next(left, before, done)
        found.append((barcode, [item for _, item in readable]))
        done.update(readable)
        left[barcode] = [one for one in left[barcode] if one not in done]
        if not left[barcode]:
            del left[barcode]
    return found


def _next(
    left: dict[str, list[tuple[str, Item]]],
    before: dict[tuple[str, Item], set[tuple[str, Item]]],
    done: set[tuple[str, Item]],
) -> tuple[str, list[tuple[str, Item]]]:
    """The next cartridge: one of which all can be read that is left of it, or else the one of which most can."""
    best: tuple[str, list[tuple[str, Item]]] = "", []
    for barcode, items in left.items():
        readable: dict[tuple[str, Item], None] = {}
        for one in items:
            if all(earlier in done or earlier in readable for earlier in before[one]):
                readable[one] = None
        if len(readable) == len(items):
            return barcode, items
        if len(readable) > len(best[1]):
            best = barcode, list(readable)
    return best
