"""The level follows the drive: rehearsed with a virtual clock, on machines, disks and drives of several speeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive.appetite import LEVELS, Appetite, begin, decide

MB = 1e6
FRAME = 4.194304 * MB
RING = 256 * MB
STEP_S = 0.002

# Of each level: MB/s of one core, and what it makes of a disk's bytes.
SPEED = dict(zip(LEVELS, (1650, 1290, 1080, 850, 700, 420, 220, 170, 95), strict=True))
RATIO = dict(zip(LEVELS, (1.58, 1.74, 1.91, 2.14, 2.42, 2.62, 2.69, 2.73, 2.78), strict=True))


@dataclass
class Rehearsal:
    """Workers fill a ring, a drive empties it; time is counted, not waited for."""

    drive: Callable[[float], float]  # MB/s of the tape, at a time
    source: Callable[[float], float] = lambda _now: 1e9  # MB/s of the disk
    workers: int = 4
    noise: random.Random = field(default_factory=lambda: random.Random(1))

    def __post_init__(self) -> None:
        self.now_s = 0.0
        self.ring = 0.0
        self.read = 0.0
        self.left = [0.0] * self.workers
        self.level = [LEVELS[0]] * self.workers
        self.starved_s: list[float] = []
        self.levels: list[tuple[float, int]] = []
        self.written = 0.0
        self.appetite = Appetite(lambda: self.ring / RING, monotonic=lambda: self.now_s)

    def run(self, seconds: float) -> Rehearsal:
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s += STEP_S
            self.read = min(self.read + self.source(self.now_s) * MB * STEP_S, 16 * FRAME)
            self.compress()
            wanted = self.drive(self.now_s) * MB * STEP_S
            if self.ring < wanted and self.written:
                self.starved_s.append(self.now_s)
            got = min(self.ring, wanted)
            self.ring -= got
            self.written += got
        return self

    def compress(self) -> None:
        for worker in range(self.workers):
            if self.left[worker] > 0:
                self.left[worker] -= STEP_S
                if self.left[worker] > 0:
                    continue
                self.ring += FRAME / RATIO[self.level[worker]]
            if self.ring < RING and self.read >= FRAME:
                self.read -= FRAME
                level = self.appetite.level()
                self.level[worker] = level
                self.levels.append((self.now_s, level))
                self.left[worker] += FRAME / (SPEED[level] * MB) * self.noise.uniform(0.8, 1.25)

    def starved_after(self, since_s: float) -> float:
        return STEP_S * sum(at > since_s for at in self.starved_s)

    def mean_ratio(self, since_s: float) -> float:
        chosen = [RATIO[level] for at, level in self.levels if at > since_s]
        return sum(chosen) / len(chosen)


def sustainable(drive: float, workers: int) -> list[int]:
    """The levels that feed such a drive."""
    return [level for level in LEVELS if workers * SPEED[level] / RATIO[level] >= drive]


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("drive", [80, 140, 300, 360, 400, 700])
def test_never_starves_the_drive_and_compresses_as_hard_as_that_allows(drive: float, workers: int) -> None:
    rehearsal = Rehearsal(lambda _now: drive, workers=workers).run(120)
    assert rehearsal.starved_after(2) == 0
    hardest = sustainable(drive, workers)[-1]
    below = LEVELS[max(LEVELS.index(hardest) - 1, 0)]
    assert rehearsal.mean_ratio(30) >= RATIO[below] - 0.05


def test_a_drive_faster_than_everything_gets_the_fastest() -> None:
    rehearsal = Rehearsal(lambda _now: 5000.0, workers=2).run(30)
    assert {level for _, level in rehearsal.levels} == {LEVELS[0]}


def test_a_slow_source_gets_the_fastest() -> None:
    rehearsal = Rehearsal(lambda _now: 300.0, source=lambda _now: 200.0).run(30)
    assert {level for _, level in rehearsal.levels} == {LEVELS[0]}


def test_a_source_that_falters_is_made_up_for() -> None:
    """Half a second without anything, each ten seconds: the ring bears it, once it is filled."""
    faltering = Rehearsal(lambda _now: 300.0, source=lambda now: 0.0 if now % 10 > 9.6 else 3000.0, workers=8)
    assert faltering.run(120).starved_after(2) == 0


def test_a_drive_that_speeds_up_is_followed() -> None:
    rehearsal = Rehearsal(lambda now: 100.0 if now < 60 else 400.0, workers=4).run(120)
    assert rehearsal.starved_after(2) == 0
    assert rehearsal.mean_ratio(0) > RATIO[1]


def test_a_level_that_was_too_slow_is_tried_more_and_more_seldom() -> None:
    rehearsal = Rehearsal(lambda _now: 400.0, workers=4).run(600)
    too_hard = set(LEVELS) - set(sustainable(400, 4))
    early = sum(level in too_hard for at, level in rehearsal.levels if at < 100)
    late = sum(level in too_hard for at, level in rehearsal.levels if at >= 500)
    assert late < early / 2
    assert rehearsal.starved_after(2) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), max_size=200), st.integers(1, 9))
def test_always_one_of_the_levels(course: list[tuple[float, float]], rungs: int) -> None:
    now_s = 0.0
    state = begin(now_s)
    for fill, wait_s in course:
        now_s += wait_s
        before, state = state, decide(state, fill, now_s, rungs)
        assert 0 <= state.rung < rungs
        assert state.rung <= before.rung + 1
        if fill < 0.25:
            assert state.rung == 0


def test_nothing_is_learned_between_two_files() -> None:
    fills = iter([1.0, 1.0, None, 1.0])
    times = iter([0.0, 0.0, 2.0, 2.5])
    appetite = Appetite(lambda: next(fills), monotonic=lambda: next(times))
    assert [appetite.level() for _ in range(4)] == [LEVELS[0], LEVELS[1], LEVELS[1], LEVELS[1]]
    assert appetite.chosen[LEVELS[1]] == 3
