"""zstd, bounded on both sides: how blobs and JSON are made small, and how they are read back without trusting them.

A frame comes from whoever could write to the repository and knows its key; still its claimed size is never believed
beyond what the caller expects, so that no frame can make us allocate more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Protocol, cast

import zstandard

from vcbproxy.config import Compression
from vcbproxy.errors import IntegrityError
from vcbproxy.repository.ids import Buffer

_WINDOW_BYTES_MAX = 128 << 20  # restic's own limit: window log 27
_STEP_BYTES = 1 << 20


_LEVELS = {Compression.OFF: None, Compression.FASTEST: -3, Compression.AUTO: 1, Compression.MAX: 12}


def level_of(compression: Compression) -> int | None:
    """Zstd's level; None stores as it is.

    Level 1 gives some 95 % of what level 3 gives on disks' content, for two thirds of its time.
    """
    return _LEVELS[compression]


class Compressor(Protocol):
    """What compresses one buffer; not shared between threads."""

    def compress(self, data: Buffer) -> bytes:
        """One whole frame."""


def compressor(level: int) -> Compressor:
    """A compressor to be reused for many buffers by one thread."""
    if level != 1:
        made: Compressor = zstandard.ZstdCompressor(level=level, write_checksum=False)
        return made
    return zstandard.ZstdCompressor(compression_params=_LEVEL_1)


class Chunker(Protocol):
    """What compresses a stream, and gives the frame in pieces of one size."""

    def compress(self, data: Buffer) -> Iterable[bytes]:
        """The next bytes; gives what is ready."""

    def finish(self) -> Iterable[bytes]:
        """The end of the frame."""


def chunker(plain_bytes: int, piece_bytes: int) -> Chunker:
    """Compress a stream of known length."""
    made: Chunker = zstandard.ZstdCompressor(compression_params=_LEVEL_1).chunker(plain_bytes, piece_bytes)
    return made


class Source(Protocol):
    """What frames are read from."""

    def read(self, size_bytes: int) -> bytes:
        """The next bytes; none at the end."""


def stream(source: Source) -> zstandard.ZstdDecompressionReader:
    """Decompress a stream; the reader raises ``ZstdError``."""
    context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
    return context.stream_reader(cast("IO[bytes]", source), read_across_frames=True)  # it wants no more than read


# Level 1 with a table of half the size, which the first-level cache holds, and a window that the second-level cache
# holds: 11 % faster for 2.3 % more bytes.
_LEVEL_1 = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST,
    window_log=18,
    hash_log=13,
    chain_log=13,
    search_log=1,
    min_match=7,
    target_length=0,
    write_content_size=True,
    write_checksum=False,
)


class Decompressor:
    """Reads frames back; reused for many, by one thread."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)

    def decompress(self, frames: Buffer, plain_bytes: int) -> bytes:
        """Decompress what must become exactly ``plain_bytes``.

        Raises:
            IntegrityError: not zstd, or another length.
        """
        if not len(frames):
            raise IntegrityError("an empty zstd stream")
        try:
            if zstandard.frame_content_size(frames) == plain_bytes and plain_bytes:
                return self._context.decompress(frames, allow_extra_data=False)
        except zstandard.ZstdError:
            pass  # damaged, or several frames; the slow way tells
        plain = self._stream(frames, plain_bytes + 1)
        if len(plain) != plain_bytes:
            raise IntegrityError(f"decompresses to {_about(plain, plain_bytes)}, where {plain_bytes} bytes belong")
        return plain

    def decompress_at_most(self, frames: Buffer, plain_bytes_max: int) -> bytes:
        """Decompress what has no known size.

        Raises:
            IntegrityError: not zstd, cut short, or longer than allowed.
        """
        plain = self._stream(frames, plain_bytes_max + 1)
        if len(plain) > plain_bytes_max:
            raise IntegrityError(f"decompresses to more than {plain_bytes_max} bytes")
        return plain

    def _stream(self, frames: Buffer, size_max: int) -> bytes:
        """Up to ``size_max`` bytes of what any number of frames hold; never more, whatever they claim."""
        pieces: list[bytes] = []
        left = size_max
        try:
            with self._context.stream_reader(frames, read_across_frames=True) as stream:
                while left and (piece := stream.read(min(left, _STEP_BYTES))):
                    pieces.append(piece)
                    left -= len(piece)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"damaged zstd data: {error}") from error
        return b"".join(pieces)


def _about(plain: bytes, expected: int) -> str:
    return f"more than {expected} bytes" if len(plain) > expected else f"{len(plain)} bytes"
