"""Blobs too long to be held as plaintext: the content list of a huge disk, sealed and opened by bites.

    text ─▶ digest                                         the text is made anew for every pass
    text ─▶ zstd ─▶ cipher ─▶ mac ─▶ the pack's buffer
    the pack's buffer ─▶ mac ─▶ cipher ─▶ zstd ─▶ digest   before it may be written

What lies in the pack is the same, bit for bit, as if it had been done at once; only the sealed bytes are held whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import compression, crypto
from vcbproxy.units import MiB

LONG_BYTES = 8 * MiB
_STEP_BYTES = 1 * MiB


class Text(Protocol):
    """Plaintext that can be had again and again, by bites."""

    @property
    def size_bytes(self) -> int:
        """How long all of it is."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The bites."""


def digest(text: Text) -> bytes:
    """The id."""
    found = hashlib.sha256()
    for piece in text:
        found.update(piece)
    return found.digest()


def sealed_size_max(text: Text) -> int:
    """Room enough for it, compressed and sealed: zstd adds at most one part in 256, and a little."""
    return crypto.sealed_size(text.size_bytes + text.size_bytes // 256 + 64 * 1024)


def seal_into(key: crypto.Key, text: Text, out: memoryview) -> int:
    """Compress and seal into the beginning of ``out``; returns how many bytes of it that takes."""
    sealer = crypto.LongSealer(key, out)
    chunker = compression.chunker(text.size_bytes, _STEP_BYTES)
    for piece in text:
        for frame_part in chunker.compress(piece):
            sealer.write(frame_part)
    for frame_part in chunker.finish():
        sealer.write(frame_part)
    return sealer.finish()


def holds(key: crypto.Key, sealed: memoryview, plain_bytes: int, blob_id: bytes) -> bool:
    """Whether a sealed message opens to a text of this length and id.

    The text was made once for its id and once for its seal. That what opens has the id holds both against each other:
    making it a third time, only to compare, would tell nothing more.

    Raises:
        IntegrityError: it does not open.
    """
    stream = Opened(key, sealed, plain_bytes)
    found = hashlib.sha256()
    while plain := stream.read(_STEP_BYTES):
        found.update(plain)
    return found.digest() == blob_id


class Opened:
    """The plaintext of a sealed zstd blob, read by bites; its mac has been checked as a whole before."""

    def __init__(self, key: crypto.Key, sealed: memoryview, plain_bytes: int) -> None:
        """Check the mac.

        Raises:
            IntegrityError: it is wrong.
        """
        self._stream = compression.stream(crypto.LongOpener(key, sealed))
        self._left = plain_bytes

    def read(self, size_bytes: int) -> bytes:
        """The next bytes, just as many; fewer only at the end. Never more in all than one beyond what was announced.

        Raises:
            IntegrityError: not zstd, or longer than announced.
        """
        parts: list[bytes] = []
        try:
            while size_bytes and (part := self._stream.read(min(size_bytes, _STEP_BYTES))):
                parts.append(part)
                size_bytes -= len(part)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"damaged zstd data: {error}") from error
        self._left -= sum(map(len, parts))
        if self._left < 0:
            raise IntegrityError("it decompresses to more than it should")
        return b"".join(parts)


def opened(key: crypto.Key, sealed: memoryview, plain_bytes: int, blob_id: bytes) -> Iterator[bytes]:
    """The plaintext by bites. Only when all have been taken without an error do they match the id: trust none before.

    Raises:
        IntegrityError: damaged.
    """
    stream = Opened(key, sealed, plain_bytes)
    found = hashlib.sha256()
    size_bytes = 0
    while piece := stream.read(_STEP_BYTES):
        found.update(piece)
        size_bytes += len(piece)
        yield piece
    if size_bytes != plain_bytes:
        raise IntegrityError(f"decompresses to {size_bytes} bytes, where {plain_bytes} bytes belong")
    if found.digest() != blob_id:
        raise IntegrityError("its content does not match its id")


def hold_in_range(size_bytes: int, what: str) -> None:
    """Refuse a text that no blob can hold.

    Raises:
        IntegrityError: four gigabytes or more.
    """
    if size_bytes >= 1 << 32:
        raise IntegrityError(
            f"{what}: its list of chunks takes {size_bytes} bytes, and restic's format holds less than 4 GiB; "
            "a repository with a larger --window cuts larger chunks"
        )
