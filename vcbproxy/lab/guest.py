"""The guests at work: seeded patterns, at random places of the running VMs' disks, while others read the LUNs."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from vcbproxy.lab.machine import Machine
from vcbproxy.units import SECTOR, KiB

_PAGE_BYTES = 4 * KiB
_PAGES_MAX = 16


def write_once(machine: Machine, chance: random.Random) -> tuple[str, int, int]:
    """One write of a guest, somewhere: (node, offset, length)."""
    with machine.still:
        return _write_once(machine, chance)


def _write_once(machine: Machine, chance: random.Random) -> tuple[str, int, int]:
    disk = chance.choice(machine.state.disks)
    pages = disk.size_bytes // _PAGE_BYTES
    page = chance.randrange(pages)
    length = min(chance.randint(1, _PAGES_MAX), pages - page) * _PAGE_BYTES
    offset = page * _PAGE_BYTES
    if chance.random() < 0.1:
        # Erased, by a file system that discards: on a delta that can say so, no bytes are written at all.
        machine.guest_zero(disk.node, offset, length)
        return disk.node, offset, length
    if chance.random() < 0.2:
        # Guests may write single sectors too.
        offset += chance.randrange(_PAGE_BYTES // SECTOR) * SECTOR
        length = SECTOR
    machine.guest_write(disk.node, offset, _pattern(chance, offset, length))
    return disk.node, offset, length


def burst(machine: Machine, chance: random.Random, writes: int) -> None:
    """So many writes, one after the other."""
    for _ in range(writes):
        write_once(machine, chance)


def _pattern(chance: random.Random, offset: int, length: int) -> bytes:
    """Half of it compresses; each says where it was meant to go."""
    if chance.random() < 0.5:
        return chance.randbytes(length)
    stamp = f"guest @{offset:#014x} {chance.getrandbits(64):016x} ".encode()
    return (stamp * (length // len(stamp) + 1))[:length]


class GuestWriter:
    """A thread that writes, to the running ones of some VMs, until it is stopped."""

    def __init__(self, machines: Sequence[Machine], *, writes_per_s: float = 50, seed: int = 1) -> None:
        self._machines = tuple(machines)
        self._pause_s = 1 / writes_per_s
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab guest writer")
        self._error: BaseException | None = None
        self.writes = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; raises what ended it early, if anything did."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._pause_s):
                running = [machine for machine in self._machines if machine.state.running]
                if running:
                    write_once(self._chance.choice(running), self._chance)
                    self.writes += 1
        except BaseException as error:  # noqa: BLE001  # handed to the thread that stops us
            self._error = error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except Exception as own:
            if error is None:
                raise
            error.add_note(f"and the guest writer had ended: {own!r}")
