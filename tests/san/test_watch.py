"""Changes of the list of LUNs: what is told, and when it is looked; by scripted notices, in no time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.beside import until
from tests.program import Program
from tests.san import loops
from vcbproxy.clock import ManualClock
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.watch import Change, Event, changes, compare
from vcbproxy.units import GiB, MiB

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


_LOOP_CTL_REMOVE = 0x4C81  # linux/loop.h


@contextmanager
def attached_as(number: int, image: Path) -> Iterator[None]:
    """A loop device of a given number, which did not exist before and does not exist afterwards."""
    node = f"/dev/loop{number}"
    done = subprocess.run(["losetup", "--read-only", node, str(image)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this kernel gives no {node}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["losetup", "--detach", node], check=True)


@pytest.fixture
def number() -> Iterator[int]:
    chosen = 1000 + os.getpid() % 10_000
    yield chosen
    with Path("/dev/loop-control").open("rb") as control:
        until(
            lambda: not Path(f"/sys/block/loop{chosen}/loop").exists(), "the loop device to be detached", timeout_s=10
        )
        fcntl.ioctl(control, _LOOP_CTL_REMOVE, chosen)


@pytest.mark.root
@pytest.mark.xdist_group("udev")
def test_the_kernel_s_own_notices_do_where_no_udevd_runs(tmp_path: Path, number: int) -> None:
    """A device that the configuration names, and that is not there yet, is waited for."""
    loops.need_root("losetup")
    (tmp_path / "lun.img").write_bytes(bytes(MiB))
    (tmp_path / "already.img").write_bytes(bytes(MiB))
    entries = f'{{ path = "already.img" }}, {{ path = "/dev/loop{number}" }}'
    config = tmp_path / "vcbproxy.toml"
    config.write_text(f"[san]\ndiscover = false\nimages = [{entries}]\n")
    with loops.without_udev():
        process = Program(config).start("lun", "watch", "--json", "--settle", "0.1", "--for", "40")
        assert process.stdout is not None
        try:
            seen = [json.loads(process.stdout.readline())]
            with attached_as(number, tmp_path / "lun.img"):
                seen.append(json.loads(process.stdout.readline()))
            seen.append(json.loads(process.stdout.readline()))
        finally:
            process.kill()
            process.communicate()
    assert [row["event"] for row in seen] == ["present", "added", "removed"]
    assert [row["lun"] for row in seen[1:]] == [f"/dev/loop{number}"] * 2
