"""A job on a repository in a directory, whose process kills itself at one of its changes. Run as a program by a test.

The job is drawn anew from the seed, just as the test drew it: the same points, the same letters, the same times.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.repository.repositories import ME, PASSWORD
from tests.sim.world import Job, World
from vcbproxy.repository.backend.base import FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.ids import Buffer
from vcbproxy.repository.repository import Repository


def history(seed: int, kind: str) -> tuple[World, Job]:
    """Three points, and the job that is to die."""
    world = World(seed)
    world.done(world.full("web01"))
    world.done(world.incremental())
    world.done(world.full("db01"))
    if kind == "prune":
        job = world.forget()
        while not job.forgets:
            job = world.forget()
        world.done(job)
    drawn: dict[str, Callable[[], Job]] = {
        "backup": lambda: world.full("web01"),
        "incremental": world.incremental,
        "forget": world.forget,
        "prune": world.thorough_prune,
    }
    return world, drawn[kind]()


class SuicidalDirectory(DirectoryBackend):
    """Kills its process at a change: when it is done, or (``midst``) while the next file is half written."""

    def __init__(self, root: Path, at: int, midst: bool) -> None:
        super().__init__(root)
        self._left = at
        self._midst = midst

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        self._left -= 1
        if self._left <= 0 and self._midst:
            temporary = self._open_temporary(self._root / name.path)
            temporary.chmod(0o600)
            temporary.write_bytes(b"".join(parts)[:100])
            os.kill(os.getpid(), signal.SIGKILL)
        super().save(name, parts)
        self._die_if_due()

    def remove(self, name: FileName) -> None:
        self._left -= 1
        super().remove(name)
        self._die_if_due()

    def _die_if_due(self) -> None:
        if not self._left and not self._midst:
            os.kill(os.getpid(), signal.SIGKILL)


def main(path: str, seed: str, kind: str, at: str, midst: str) -> None:
    """Run the job; it should not return."""
    world, job = history(int(seed), kind)
    backend = SuicidalDirectory(Path(path), int(at), midst == "midst")
    job.run(Repository.open(backend, PASSWORD, clock=world.clock, me=ME))


if __name__ == "__main__":
    main(*sys.argv[1:])
