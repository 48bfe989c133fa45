"""Cases that can be seen, and bytes that know their address.

``layout("A0-b", 4096)`` is four grains of 4096 bytes, one a letter:

    A-Z  data of this layer: bytes that know the letter and their own address
    a-z  likewise, by convention of another layer or generation
    0    zeroes that are promised by a map
    -    nothing: a hole, or "ask the parent"

so that ``data("A0C-", 4096)`` is what must be read where the lower layer says ``C`` and nobody the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from vcbproxy.device import Device
from vcbproxy.extent import Extent, Kind


def pattern(offset: int, length: int, seed: int | str = 0) -> bytes:
    """Bytes that know where they belong: each 8-byte word mixes its own address with the seed; never all zero.

    A read that is shifted, torn, or of another disk cannot pass for the right one.
    """
    key = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "little")
    first, last = offset // 8, -(-(offset + length) // 8)
    words = np.arange(first, last, dtype=np.uint64)
    with np.errstate(over="ignore"):
        words = (words + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(key)
        words = (words ^ (words >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(1)
    return words.tobytes()[offset - first * 8 : offset - first * 8 + length]


@dataclass(frozen=True, slots=True)
class Cell:
    """One grain of a layout."""

    letter: str
    start: int
    length: int

    @property
    def is_data(self) -> bool:
        """A letter: it has bytes of its own."""
        return self.letter.isalpha()

    @property
    def content(self) -> bytes:
        """Its bytes; zeroes for ``0`` and ``-``."""
        return pattern(self.start, self.length, self.letter) if self.is_data else bytes(self.length)


def layout(text: str, grain: int) -> list[Cell]:
    """The cells of a layout like ``A0-b``."""
    assert all(letter in "0-" or letter.isalpha() for letter in text), text
    return [Cell(letter, index * grain, grain) for index, letter in enumerate(text)]


def data(text: str, grain: int) -> bytes:
    """What a layout reads as."""
    return b"".join(cell.content for cell in layout(text, grain))


def extents(text: str, grain: int) -> list[Extent]:
    """The extents of a layout, merged: letters are DATA, ``0`` and ``-`` are ZERO."""

    def runs() -> Iterator[Extent]:
        for is_data, cells in groupby(layout(text, grain), key=lambda cell: cell.is_data):
            run = list(cells)
            yield Extent(run[0].start, sum(cell.length for cell in run), Kind.DATA if is_data else Kind.ZERO)

    return list(runs())


def over(*layers: str) -> str:
    """Lay layouts over each other, newest first; ``-`` lets the next through: ``over("A0--", "--C-")`` is ``A0C-``."""
    return "".join(next((letter for letter in column if letter != "-"), "-") for column in zip(*layers, strict=True))


def read_over(device: Device, offset: int, length: int) -> bytes:
    """Read into a buffer that is full of something else: a reader that forgets to write zeroes is caught."""
    buf = bytearray(b"\xa5" * length)
    device.read_into(offset, memoryview(buf))
    return bytes(buf)
