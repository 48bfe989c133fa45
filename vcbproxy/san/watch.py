"""LUNs that come and go: notices of the kernel or of udev in, changes of the list of LUNs out.

    notices   ─┬┬─┬──┬┬┬───────────────────────┬─┬─────────        one rescan of a fabric makes hundreds
    looks                └ settle_s ┘ look            └ settle_s ┘ look
                                        ╰── compared with the look before: added, removed, changed

A notice only says when to look; what is there, the look says. So a notice that is lost costs time, not truth, and every
``RELOOK_S`` there is a look without one. No thread: whoever asks for changes waits for them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pyudev

from vcbproxy.clock import Clock
from vcbproxy.san.info import LunInfo

SETTLE_S = 0.5
_SETTLE_MAX_S = 10.0  # a fabric that never comes to rest is looked at all the same
RELOOK_S = 60.0


class Event(Enum):
    """What became of a LUN."""

    PRESENT = "present"
    """It was there when the watch began."""
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One LUN, and what became of it; ``lun`` is as it is now, or as it last was.

    Attributes:
        changed: names of the attributes of LunInfo that differ.
    """

    event: Event
    lun: LunInfo
    changed: tuple[str, ...] = ()


class Notices(Protocol):
    """Something that says when it is worth looking."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notice, at most so long; whether there was one."""


class UdevNotices:
    """Block devices that come, go or change: as udev tells once its rules are done, or the kernel where no udevd runs.

    Begins to listen when it is made, so that nothing is missed between that and the first look.
    """

    def __init__(self) -> None:
        source = "udev" if Path("/run/udev/control").exists() else "kernel"
        self._monitor: pyudev.Monitor | None = pyudev.Monitor.from_netlink(pyudev.Context(), source)
        self._monitor.filter_by("block")
        self._monitor.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notice, at most so long; whether there was one."""
        assert self._monitor is not None, "closed"
        try:
            return self._monitor.poll(timeout_s) is not None
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # there were more than the kernel keeps
                raise
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor = None  # pyudev closes the socket with its last reference


def changes(
    notices: Notices,
    look: Callable[[], Sequence[LunInfo]],
    clock: Clock,
    *,
    settle_s: float = SETTLE_S,
    for_s: float | None = None,
) -> Iterator[list[Change]]:
    """Yield what is there, then what changes, all of one look together.

    Args:
        notices: say when to look; they must already listen.
        look: lists whole LUNs.
        clock: measures, and never sleeps.
        settle_s: look when no notice has come for so long.
        for_s: end after this time, with a last look; never, when None.
    """
    end_s = None if for_s is None else clock.monotonic() + for_s
    known = list(look())
    yield [Change(Event.PRESENT, lun) for lun in known]
    ended = False
    while not ended:
        left_s = RELOOK_S if end_s is None else min(RELOOK_S, max(0.0, end_s - clock.monotonic()))
        if notices.wait(left_s):
            _settle(notices, clock, settle_s)
        now = list(look())
        found = compare(known, now)
        if found:
            yield found
        known = now
        ended = end_s is not None and clock.monotonic() >= end_s


def _settle(notices: Notices, clock: Clock, settle_s: float) -> None:
    began_s = clock.monotonic()
    while notices.wait(settle_s) and clock.monotonic() - began_s < _SETTLE_MAX_S:
        pass


def compare(before: Sequence[LunInfo], now: Sequence[LunInfo]) -> list[Change]:
    """What became of the LUNs between two looks: those that went, then the others as they are listed now.

    Another LUN under the same path is one that went and one that came.
    """
    old = {(lun.path, lun.wwn): lun for lun in before}
    new = {(lun.path, lun.wwn): lun for lun in now}
    found = [Change(Event.REMOVED, lun) for key, lun in old.items() if key not in new]
    for key, lun in new.items():
        if key not in old:
            found.append(Change(Event.ADDED, lun))
        elif lun != old[key]:
            found.append(Change(Event.CHANGED, lun, _differences(old[key], lun)))
    return found


def _differences(one: LunInfo, other: LunInfo) -> tuple[str, ...]:
    names = (field.name for field in fields(LunInfo))
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))
