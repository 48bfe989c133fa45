"""A disk that compresses 2:1 at the fastest level: a guest's programs, mixed with what is packed already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench import image
from vcbproxy.archive.appetite import LEVELS
from vcbproxy.archive.frames import FRAME_BYTES, Encoder

SIZE_BYTES = 1536 << 20


def steps() -> Iterator[bytes]:
    """The disk, four megabytes at a time; none of it is a hole."""
    encoder, plain_bytes, image_bytes = Encoder(), 0, 0
    guest = full_steps(image.guest_disk())
    while plain_bytes < SIZE_BYTES:
        too_good = 2 * image_bytes < plain_bytes
        step = os.urandom(FRAME_BYTES) if too_good else next(guest)
        plain_bytes += len(step)
        image_bytes += len(encoder.encode(memoryview(step), LEVELS[0]))
        yield step


def full_steps(path: Path) -> Iterator[bytes]:
    """Those of a guest's disk that are full of data; once more from the beginning when they are used up."""
    with path.open("rb") as disk:
        while True:
            disk.seek(0)
            while len(step := disk.read(FRAME_BYTES)) == FRAME_BYTES:
                empty = sum(not any(step[at : at + 64]) for at in range(0, FRAME_BYTES, 65536))
                if empty < 8:
                    yield step
