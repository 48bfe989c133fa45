"""What the kernel counts of block devices, and the cables that carry it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.guest.inside import array
from tests.guest.inside.suite import say
from vcbproxy.units import MiB

_SECTOR = 512


def bytes_read(device: str) -> int:
    """How much was read from a device since it appeared; Documentation/block/stat.rst tells the fields."""
    return int(Path(f"/sys/block/{device}/stat").read_text().split()[2]) * _SECTOR


def by_cable() -> dict[int, str]:
    """The single path of LUN 1 that each cable carries, by its kernel name."""
    links = {
        cable: Path(f"/dev/disk/by-path/ip-{array.portal(cable)}:3260-iscsi-{array.TARGET}-lun-1")
        for cable in array.CABLES
    }
    return {cable: link.resolve().name for cable, link in links.items() if link.exists()}


def read_by_cable() -> dict[int, int]:
    return {cable: bytes_read(device) for cable, device in by_cable().items()}


@dataclass(slots=True)
class Cut:
    """What happened around the moment at which cables were pulled."""

    cables: tuple[int, ...] = ()
    at_s: float = 0.0
    read_before: dict[int, int] = field(default_factory=dict)
    counters: dict[int, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def read_since(self) -> dict[int, int]:
        """How much each cable has carried since the cut."""
        return {cable: count - self.counters[cable] for cable, count in read_by_cable().items()}

    def note(self, text: str) -> None:
        say(text)
        self.lines.append(f"[{time.monotonic():7.2f}] {text}")


@contextmanager
def cut_during_read(after_bytes: int, *, all_cables: bool) -> Iterator[Cut]:
    """Pull the cable that carries the reads, or all of them, once so much more has been read of LUN 1."""
    cut, stop = Cut(), threading.Event()
    start = read_by_cable()

    def watch() -> None:
        while not stop.wait(0.02):
            counters = read_by_cable()
            now = {cable: count - start[cable] for cable, count in counters.items()}
            if sum(now.values()) < after_bytes:
                continue
            busiest = max(now, key=lambda cable: now[cable])
            cut.cables = array.CABLES if all_cables else (busiest,)
            array.pull(*cut.cables)
            cut.at_s = time.monotonic()
            cut.read_before, cut.counters = now, counters
            told = ", ".join(
                f"cable {cable} ({by_cable()[cable]}) {count / MiB:.1f} MiB" for cable, count in now.items()
            )
            cut.note(f"read so far: {told}; PULLED {' and '.join(f'cable {cable}' for cable in cut.cables)}")
            return

    watcher = threading.Thread(target=watch, name="cable cutter")
    watcher.start()
    try:
        yield cut
    finally:
        stop.set()
        watcher.join()
