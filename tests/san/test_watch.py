"""Changes of the list of LUNs: what is told, and when it is looked; by scripted notices, in no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vcbproxy.clock import ManualClock
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.watch import Change, Event, changes, compare
from vcbproxy.units import GiB

ONE = LunInfo("/dev/sdb", "sdb", LunKind.DISK, GiB, 512, wwn="600144f01")
TWO = LunInfo("/dev/sdc", "sdc", LunKind.DISK, GiB, 512, wwn="600144f02")


class Script:
    """Notices at given times; waiting passes the clock's time at once, and counts itself as a look would."""

    def __init__(self, clock: ManualClock, *at_s: float) -> None:
        self._clock = clock
        self._at_s = list(at_s)

    def wait(self, timeout_s: float) -> bool:
        now = self._clock.monotonic()
        if self._at_s and self._at_s[0] <= now + timeout_s:
            self._clock.sleep(max(0.0, self._at_s.pop(0) - now))
            return True
        self._clock.sleep(timeout_s)
        return False


def watched(at_s: Sequence[float], looks: dict[float, list[LunInfo]], for_s: float) -> list[tuple[float, list[Change]]]:
    """What is told, with the time; ``looks``: what is there from a time on."""
    clock = ManualClock()

    def look() -> list[LunInfo]:
        return next(luns for since, luns in sorted(looks.items(), reverse=True) if since <= clock.monotonic())

    script = Script(clock, *at_s)
    told = changes(script, look, clock, settle_s=0.5, for_s=for_s)
    return [(round(clock.monotonic(), 3), found) for found in told]


def test_what_is_there_is_told_first() -> None:
    assert watched([], {0: [ONE, TWO]}, for_s=0) == [(0, [Change(Event.PRESENT, ONE), Change(Event.PRESENT, TWO)])]
    assert watched([], {0: []}, for_s=5) == [(0, [])]


def test_a_burst_of_notices_is_one_look_when_it_has_settled() -> None:
    told = watched([3, 3.1, 3.4, 3.8], {0: [ONE], 3.05: [ONE, TWO]}, for_s=20)
    assert told[1:] == [(4.3, [Change(Event.ADDED, TWO)])]


def test_a_fabric_that_never_rests_is_looked_at_all_the_same() -> None:
    told = watched([1 + number / 10 for number in range(400)], {0: [ONE], 2: [TWO]}, for_s=60)
    [(at_s, found)] = told[1:]
    assert 11 <= at_s <= 11.2
    assert found == [Change(Event.REMOVED, ONE), Change(Event.ADDED, TWO)]


def test_a_lost_notice_costs_time_and_not_truth() -> None:
    assert watched([], {0: [ONE], 7: []}, for_s=130)[1:] == [(60, [Change(Event.REMOVED, ONE)])]
    assert watched([], {0: [ONE], 7: []}, for_s=10)[1:] == [(10, [Change(Event.REMOVED, ONE)])], "at its end, too"


def test_a_blink_is_not_told() -> None:
    assert watched([3, 3.2], {0: [ONE], 3: [], 3.2: [ONE]}, for_s=20)[1:] == []


def test_what_differs_is_named() -> None:
    grown = replace(ONE, size_bytes=2 * GiB, read_only=True)
    assert compare([ONE, TWO], [grown, TWO]) == [Change(Event.CHANGED, grown, ("size_bytes", "read_only"))]
    assert compare([ONE], [ONE]) == []


def test_another_lun_under_the_same_path_is_not_the_same_one_changed() -> None:
    other = replace(ONE, wwn="600144f03")
    assert compare([ONE], [other]) == [Change(Event.REMOVED, ONE), Change(Event.ADDED, other)]
