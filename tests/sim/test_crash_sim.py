"""The process dies, again and again, in backups, forgets, prunes and changes of tags: nothing that is listed is lost.

Each seed is a history of jobs, some of which die before, in the midst of, or after one of their changes to the storage.
After each death: the repository checks without an error, every listed restore point restores bit for bit, none that was
listed before is gone (but for those that were to be forgotten), and the jobs that follow succeed. At the end a prune
leaves nothing that nobody needs. Stock restic checks every 25th.

VCBPROXY_CRASH_SEEDS asks for more than 500 of them; a failing one tells its story.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.stock_restic import Restic, programs
from tests.repository.repositories import PASSWORD
from tests.sim.world import World

SEEDS = int(os.environ.get("VCBPROXY_CRASH_SEEDS", "500"))
BLOCK = 50
JOBS = 2
CHECKED_BY_RESTIC = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_whenever_the_process_dies(first: int, record_property: Callable[[str, object], None]) -> None:
    seeds = range(first, min(first + BLOCK, SEEDS))
    deaths = sum(history(seed).deaths for seed in seeds)
    record_property("crash simulation", (len(seeds), deaths))
    assert deaths > len(seeds), "hardly any job died: what was tested?"


def history(seed: int) -> World:
    """Play one to its end."""
    world = World(seed)
    world.done(world.full())
    for _ in range(JOBS):
        job = world.any_job()
        if world.draw.random() < 0.85:
            world.killed(job)
        else:
            world.done(job)
    world.done(world.full())
    world.done(world.incremental())
    world.done(world.thorough_prune())
    world.hold_sound(set(world.points), world.points)
    world.hold_no_garbage()
    return world


@pytest.mark.real
@pytest.mark.parametrize("program", programs()[:1])
@pytest.mark.parametrize("first", range(0, SEEDS, 100))
def test_stock_restic_finds_nothing_either(program: str, first: int, tmp_path: Path) -> None:
    """Right after a death, with what it left lying about; and after the prune that tidied up."""
    for seed in range(first, min(first + 100, SEEDS), CHECKED_BY_RESTIC):
        world = World(seed)
        world.done(world.full())
        world.done(world.incremental())
        world.killed(world.any_job())
        restic_checks(program, world, tmp_path / f"{seed}-dead")
        world.done(world.thorough_prune())
        restic_checks(program, world, tmp_path / f"{seed}-pruned")


def restic_checks(program: str, world: World, scratch: Path) -> None:
    scratch.mkdir()
    restic = Restic(program, world.saved_to(scratch / "repo"), PASSWORD, scratch)
    done = restic.run("check", "--read-data")
    assert done.returncode == 0, f"{world}\n{done.stdout.decode()}\n{done.stderr.decode()}"
