"""Small disks for tests of the pipeline, drawn as text or by hypothesis."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from hypothesis import strategies as st

from vcbproxy.device import MemoryDevice
from vcbproxy.extent import Extent, Kind, merged

GRANULE = 65536
SEED = b"2f1a3c5b7d9e11"


def noise(seed: int, length: int) -> bytes:
    """Bytes that no version of any library draws otherwise."""
    return hashlib.shake_128(seed.to_bytes(4, "little")).digest(length)


def data(text: str, step: int = GRANULE) -> bytes:
    """``"A-bz"``: each letter one granule.

    ``-`` and ``0`` are zeroes, a capital is noise, a small letter noise with zero blocks between (never a hole); any
    other digit is one block again and again: pieces of data without any cut.
    """
    return b"".join(_letter(letter, step) for letter in text)


def _letter(letter: str, step: int) -> bytes:
    if letter in "-0":
        return bytes(step)
    if letter.isdigit():
        return (noise(ord(letter), 4096) * -(-step // 4096))[:step]
    content = bytearray(noise(ord(letter.upper()), step))
    if letter.islower():
        for at in range(0, step, 8192):
            content[at : at + 4096] = bytes(min(4096, step - at))
    return bytes(content)


class MappedMemory(MemoryDevice):
    """A disk in memory with a map drawn like ``"D-DD"`` (D data, - zero), one letter for ``step`` bytes.

    Reading what the map calls zero fails the test: the pipeline must not.
    """

    def __init__(self, content: bytes, drawing: str, step: int = GRANULE, name: str = "disk") -> None:
        super().__init__(content, name)
        self._kinds = [Kind.ZERO if letter == "-" else Kind.DATA for letter in drawing]
        self._step = step
        self.bytes_read = 0

    def read_into(self, offset: int, buf: memoryview) -> None:
        for extent in self.extents():
            if extent.kind is Kind.ZERO:
                assert offset + len(buf) <= extent.start or offset >= extent.end, f"read the zeroes of {extent}"
        self.bytes_read += len(buf)
        super().read_into(offset, buf)

    def extents(self) -> Iterator[Extent]:
        step, size = self._step, self.size_bytes
        return merged(
            Extent(at * step, min(step, size - at * step), kind)
            for at, kind in enumerate(self._kinds)
            if at * step < size
        )


@st.composite
def contents(draw: st.DrawFn, granules_max: int = 40) -> bytes:
    """Disks of noise, repetition, zero blocks and holes; the last granule may be cut anywhere."""
    text = draw(st.text("ABCDEabc-----", max_size=granules_max))
    tail = draw(st.one_of(st.just(0), st.integers(1, GRANULE - 1)))
    return data(text) + data(draw(st.sampled_from("A-a")))[:tail]
