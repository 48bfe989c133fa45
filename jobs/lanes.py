"""Work dealt out to the lanes of a target: each takes the next item when it is free.

    items ─┬─▶ lane 0   item ── item ──────────── item      a drive each; or just one, without any thread
           └─▶ lane 1   item ──────── item ── item
                                        └ its cartridge failed: once more, onto another

The first error of any lane ends all of them, and so does the operator. But a lane that finds no drive, or no cartridge,
to begin with leaves the work to the others, as long as there are any: a drive in service does not cost the night. And
one that finds no further cartridge ends alone: what the others still have room for is done before that is raised.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from jobs.target import Lane, Target
from vcbproxy.errors import CartridgeFailed, CartridgeWanted, Error
from vcbproxy.pipeline.crew import Cancel, Crew, Interrupt

CARTRIDGES_MAX = 3
"""So many cartridges are tried for one restore point before the job run ends: then it is the drive."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def deal(
    target: Target,
    items: Sequence[Item],
    work: Callable[[Lane, Item, Cancel | None], None],
    *,
    said: Callable[[str], None],
    interrupt: Interrupt | None = None,
) -> None:
    """Have all of these done, in as many lanes as the target has.

    Args:
        target: where to.
        items: one after the other begun, in their order.
        work: on one of them, in a lane. Its last argument is set once another lane wants an end; None: there is none.
        said: is told of lanes that there are not.
        interrupt: called at the first error of any lane: wakes those that wait where nobody else would wake them.

    Raises:
        CartridgeWanted: some lane found none any more; the others have done what they could.
        Error: the first of any lane; or why there is none.
    """
    lanes = min(target.lanes, len(items))
    dealing = _Dealing(target, items, work, said, max(lanes, 1))
    if lanes <= 1:
        dealing.in_lane(None)
        return
    with Crew("lane", interrupt=interrupt) as crew:
        stop = _Stop(crew)
        for _ in range(lanes):
            crew.start(dealing.in_lane, stop)
        crew.join()  # here, where an interrupt tells the lanes to end
    dealing.raise_wanted()


def onto_another(lane: Lane, attempt: Callable[[], Result], failed: Callable[[CartridgeFailed], None]) -> Result:
    """One item; a cartridge that does not take it costs another reading, not the night.

    Args:
        lane: where to.
        attempt: writes it from its beginning on.
        failed: is told of a cartridge that was given up, before it is written once more.

    Raises:
        CartridgeFailed: so many failed that it must be the drive.
    """
    for _ in range(CARTRIDGES_MAX - 1):
        try:
            return attempt()
        except CartridgeFailed as error:
            lane.give_up(error)
            failed(error)
    return attempt()


class _Dealing(Generic[Item]):
    """What nobody has begun yet, and how many lanes there may be for it."""

    def __init__(
        self,
        target: Target,
        items: Sequence[Item],
        work: Callable[[Lane, Item, Cancel | None], None],
        said: Callable[[str], None],
        lanes: int,
    ) -> None:
        self._target = target
        self._work = work
        self._said = said
        self._lock = threading.Lock()
        self._items = deque(items)
        self._lanes = lanes
        self._wanted: CartridgeWanted | None = None

    def in_lane(self, stop: Cancel | None) -> None:
        """Work, until all is begun."""
        if not self._items:  # the others were quick: no cartridge is begun for nothing
            return
        with ExitStack() as held:
            try:
                lane = held.enter_context(self._target.lane())
            except Error as error:
                if self._is_last():
                    raise
                self._said(f"one drive less than wanted: {error}")
                return
            try:
                while not (stop is not None and stop.is_set()) and (found := self._take()):
                    self._work(lane, found[0], stop)
            except CartridgeWanted as error:
                if self._is_last():
                    raise
                self._said(f"what the other drives have room for goes on: {error}")
                self._wanted = self._wanted or error

    def raise_wanted(self) -> None:
        """All lanes have ended.

        Raises:
            CartridgeWanted: one of them for that.
        """
        if self._wanted is not None:
            raise self._wanted

    def _is_last(self) -> bool:
        """One lane less: whether there is no other."""
        with self._lock:
            self._lanes -= 1
            return not self._lanes

    def _take(self) -> list[Item]:
        """The next; none: it was the last."""
        with self._lock:
            return [self._items.popleft()] if self._items else []


@dataclass(frozen=True, slots=True)
class _Stop:
    """Says to the other lanes that one of them has failed, or that the operator wants an end."""

    crew: Crew

    def is_set(self) -> bool:
        return self.crew.stopping
