"""A disk that compresses 2:1 at the fastest level: a guest's programs, something packed, something empty."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import image
from vcbproxy.archive.appetite import LEVELS
from vcbproxy.archive.frames import FRAME_BYTES, Encoder

SIZE_BYTES = 1536 << 20
ROOM_BYTES = 8 << 30
"""What a bench takes: the disk, a LUN with it, images of it, and a restored one."""


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory with room for all of it; skips aloud where there is none."""
    if shutil.disk_usage("/dev/shm").free < ROOM_BYTES:
        pytest.skip(f"/dev/shm has no {ROOM_BYTES >> 30} GiB left")
    return tempfile.TemporaryDirectory(dir="/dev/shm", prefix="vcbproxy-bench-")


def steps() -> Iterator[bytes]:
    """The disk, four megabytes at a time; none of it is a hole."""
    encoder, plain_bytes, image_bytes = Encoder(), 0, 0
    guest = full_steps(image.guest_disk())
    while plain_bytes < SIZE_BYTES:
        if 2 * image_bytes < 0.99 * plain_bytes:
            step = os.urandom(FRAME_BYTES)
        else:
            step = next(guest)
            if 2 * image_bytes > 1.01 * plain_bytes:
                step = with_empty_pages(step)
        plain_bytes += len(step)
        image_bytes += len(encoder.encode(memoryview(step), LEVELS[0]))
        yield step


def with_empty_pages(step: bytes) -> bytes:
    """Every fourth page of a database is not filled yet."""
    page = 16384
    pages = [step[at : at + page] for at in range(0, len(step), page)]
    return b"".join(bytes(page) if number % 4 == 0 else content for number, content in enumerate(pages))


def full_steps(path: Path) -> Iterator[bytes]:
    """Those of a guest's disk that are full of data; once more from the beginning when they are used up."""
    with path.open("rb") as disk:
        while True:
            disk.seek(0)
            while len(step := disk.read(FRAME_BYTES)) == FRAME_BYTES:
                empty = sum(not any(step[at : at + 64]) for at in range(0, FRAME_BYTES, 65536))
                if empty < 8:
                    yield step
