"""Backups, prunes, forgets and an operator's `repo unlock` at the same time, on hosts whose clocks disagree.

Every call to the storage is made in an order drawn from the seed; some have a bad line, where every ninth call is lost
on its way there or back and tried again; sometimes one of the processes dies in the midst of it all. Whatever happens:
the locks let nobody pull the ground from under another, nothing that is listed is damaged, what was done is there, and
what was refused left no trace.

VCBPROXY_TURN_SEEDS asks for more of them; a failing one tells its story.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.sim.turns import TakingTurns, Turns
from tests.sim.world import Job, World
from vcbproxy.clock import ManualClock
from vcbproxy.errors import Busy, TargetError, UsageError
from vcbproxy.repository import lockfile
from vcbproxy.repository.backend import faults
from vcbproxy.repository.backend.base import FileMissing
from vcbproxy.repository.backend.faults import Died, FaultyBackend, Order, What, When
from vcbproxy.repository.backend.retry import RetryingBackend
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.repository import Repository

_BAD_LINE = 0.04
SEEDS = int(os.environ.get("VCBPROXY_TURN_SEEDS", "60"))
BLOCK = 20
SKEW_S = 20 * 60  # a live lock is refreshed within 5 minutes, and stale after 30: the clocks may differ by 25
TRIES = 3


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_whoever_is_next(first: int, record_property: Callable[[str, object], None]) -> None:
    told = [together(seed) for seed in range(first, min(first + BLOCK, SEEDS))]
    done, busy = sum(done for done, _ in told), sum(busy for _, busy in told)
    record_property("interleavings", (len(told), done, busy))
    assert done
    assert busy, "nobody ever stood in another's way: what was tested?"


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_a_careless_operator(first: int) -> None:
    """He unlocks all, forgets and prunes, while backups run: they fail, or what they commit is whole."""
    seeds = range(first, min(first + BLOCK, SEEDS))
    failed = sum(beside_the_careless(seed) for seed in seeds)
    assert 0 < failed < 2 * len(seeds)


def beside_the_careless(seed: int) -> int:
    """Play one; gives how many backups failed because their lock was gone."""
    world = World(seed)
    world.done(world.full("web01"))
    world.done(world.incremental())
    draw = random.Random(seed)
    jobs = {"backup": world.full("web01"), "incremental": world.incremental(), "forget": world.forget()}
    prune = world.thorough_prune()
    turns = Turns(seed, sticky=draw.choice([0.5, 0.9, 0.97]))
    files = Files(TakingTurns(world.store, turns, "careless"), world.key)
    clock, me = _skewed(world, draw), Identity("host-careless", "root", 1)

    def careless() -> None:
        for job in (jobs["forget"], prune):
            lockfile.remove_stale(files, everything=True, clock=clock, me=me)
            with contextlib.suppress(Busy):
                job.run(Repository.of(files, clock=clock, me=me))

    backups = {name: _process(world, turns, name, jobs[name], draw, False) for name in ("backup", "incremental")}
    ends = turns.run({**backups, "careless": careless})
    world.story += [f"{name}: {ends.get(name)!r}" for name in ("backup", "incremental", "careless")]
    # His prune may miss an index file that was withdrawn, and an incremental its base that he pruned: both say so.
    assert isinstance(ends["careless"], FileMissing | None), world
    lost = [end for end in ends.values() if isinstance(end, TargetError) and "lock was removed" in str(end)]
    told = TargetError | Busy | UsageError | None
    assert all(isinstance(end, told) or "no file data/" in str(end) for end in ends.values()), world
    may = {**world.points, **jobs["backup"].makes, **jobs["incremental"].makes}
    must = {*world.points, *(name for done in backups if ends[done] is None for name in jobs[done].makes)}
    if any("may list packs that were pruned" in note for end in lost for note in getattr(end, "__notes__", ())):
        world.unlock()
        world.done(world.thorough_prune())
    world.hold_sound(must - jobs["forget"].forgets, may)
    return len(lost)


def together(seed: int) -> tuple[int, int]:
    """Play one; gives how many processes came to their ends, and how many found the repository locked."""
    world = World(seed)
    world.done(world.full("web01"))
    world.done(world.incremental())
    draw = random.Random(seed)
    jobs = {
        "backup": world.full("web01"),
        "incremental": world.incremental(),
        "prune": world.prune(),
        "other": world.draw.choice([world.forget, world.retag, world.prune, world.incremental])(),
    }
    turns = Turns(seed, sticky=draw.choice([0.0, 0.5, 0.9]))
    dying = draw.choice(["", "", *jobs])
    processes = {name: _process(world, turns, name, job, draw, name == dying) for name, job in jobs.items()}
    processes["unlock"] = _unlock(world, turns, draw)
    ends = turns.run(processes)
    world.story += [f"{name}: {job.name}: {ends[name]!r}" for name, job in jobs.items()]
    _hold(world, jobs, ends)
    return sum(end is None for end in ends.values()), sum(isinstance(end, Busy) for end in ends.values())


def _hold(world: World, jobs: dict[str, Job], ends: dict[str, BaseException | None]) -> None:
    assert ends.pop("unlock") is None, world
    must, may = dict(world.points), dict(world.points)
    for name, job in jobs.items():
        end = ends[name]
        may |= job.makes
        if end is None:
            must |= job.makes
        else:
            assert isinstance(end, Busy | Died | UsageError), world
            assert not isinstance(end, UsageError) or "no restore point" in str(end), world
    going = {gone for job in jobs.values() for gone in job.forgets}
    gone = {gone for name, job in jobs.items() if ends[name] is None for gone in job.forgets}
    world.hold_sound(must.keys() - going, {name: disks for name, disks in may.items() if name not in gone})
    world.clock.sleep(SKEW_S)  # the dead one's clock may have been ahead
    world.unlock()
    world.done(world.thorough_prune())
    world.hold_no_garbage()


def _process(world: World, turns: Turns, name: str, job: Job, draw: random.Random, dies: bool) -> Callable[[], None]:
    """A job on a host of its own; it tries again a few times when the repository is locked."""
    orders = [Order(What.LOST, when, chance=_BAD_LINE, times=0) for when in When] if draw.random() < 0.5 else []
    if dies:
        orders.insert(0, Order(What.DEATH, draw.choice(list(When)), faults.CHANGES, after=draw.randrange(1, 12)))
    clock, me = _skewed(world, draw), Identity(f"host-{name}", "backup", 1)
    storage = TakingTurns(FaultyBackend(world.store, orders, draw.randrange(1 << 30)), turns, name)
    files = Files(RetryingBackend(storage, clock, random.Random(draw.random())), world.key)

    def run() -> None:
        for left in reversed(range(TRIES)):
            try:
                job.run(Repository.of(files, clock=clock, me=me))
            except Busy:
                if not left:
                    raise
            else:
                return

    return run


def _unlock(world: World, turns: Turns, draw: random.Random) -> Callable[[], None]:
    """An impatient operator: whatever his clock says, a lock that is held is not stale."""
    files = Files(TakingTurns(world.store, turns, "unlock"), world.key)
    clock, me = _skewed(world, draw), Identity("host-unlock", "root", 1)

    def run() -> None:
        for _ in range(TRIES):
            assert lockfile.remove_stale(files, everything=False, clock=clock, me=me) == []

    return run


def _skewed(world: World, draw: random.Random) -> ManualClock:
    return ManualClock(world.clock.now() + timedelta(seconds=draw.uniform(-SKEW_S, SKEW_S) / 2))
