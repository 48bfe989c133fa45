"""zstd frames, each with its size before and its checksum behind: made, taken apart, and found in a stream.

    frame    │ magic │ header: plain bytes │ block │ block │ … │ last block │ XXH64, low half │

Each is complete in itself, so that any of them is read without the others, and damage to one is damage to one only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import zstandard

from vcbproxy.archive.seektable import FRAME_PLAIN_BYTES_MAX, Frame
from vcbproxy.errors import IntegrityError
from vcbproxy.units import MiB

FRAME_BYTES = 4 * MiB  # plain; larger ones compress no better, and damage more when they are damaged
CHECKSUM_BYTES = 4

Octets = bytes | memoryview

MAGIC = b"\x28\xb5\x2f\xfd"
_HEADER_BYTES_MAX = 18
_BLOCK_BYTES_MAX = 128 << 10
_SKIPPABLE_BYTES_MAX = 2 << 30  # a seek table of 512 TiB
_WINDOW_BYTES_MAX = 128 << 20
_STRANGE_BYTES = MiB  # by which nobody's frame is longer than twice what is in it
_UNKNOWN = -1


class Encoder:
    """Makes frames; for one thread."""

    def __init__(self) -> None:
        self._level: int | None = None
        self._context = zstandard.ZstdCompressor()

    def encode(self, plain: memoryview, level: int) -> bytes:
        """One frame. Levels are zstd's; those below zero are ours: faster, by our own parameters."""
        if level != self._level:  # one context only: those of high levels take much memory
            self._context = _context(level)
            self._level = level
        # zstd gives it in memory for the worst case. Cut off there, it leaves holes: a ring of 256 MiB took 100 more.
        # Copied, they lie close, and the memory for the worst case is always the same and warm: it costs 3 %.
        return bytes(memoryview(self._context.compress(plain)))


def _context(level: int) -> zstandard.ZstdCompressor:
    if level >= 0:
        return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    # Matches of seven bytes or more, found in a table that the first-level cache holds: against zstd's own negative
    # levels of the same ratio 13 % faster (programs and libraries: 2.91 at 1240 MB/s, theirs 2.86 at 1092).
    table_log = 13 if level <= -5 else 14
    fast = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=FRAME_BYTES.bit_length() - 1,
        hash_log=table_log,
        chain_log=table_log,
        search_log=1,
        min_match=7,
        target_length=-level,
        write_checksum=True,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=fast)


def checksum_of(frame: Octets) -> int:
    """The checksum that ends a frame of ours."""
    return int.from_bytes(frame[-CHECKSUM_BYTES:], "little")


@lru_cache(maxsize=8)
def zero_frame(plain_bytes: int) -> bytes:
    """The frame of so many zeroes."""
    return _context(1).compress(bytes(plain_bytes))


def is_zero_frame(frame: Octets, plain_bytes: int) -> bool:
    """Whether it is just that."""
    return len(frame) <= _zero_frame_bytes_max(plain_bytes) and frame == zero_frame(plain_bytes)


def _zero_frame_bytes_max(plain_bytes: int) -> int:
    return _HEADER_BYTES_MAX + CHECKSUM_BYTES + 4 * (plain_bytes // _BLOCK_BYTES_MAX + 2)


def all_zero(plain: memoryview) -> bool:
    """Whether no byte is set. Nearly always the first page tells."""
    octets = np.frombuffer(plain, np.uint8)
    return not octets[:4096].any() and not octets.any()


def plain_checksum(plain: Octets) -> int:
    """The low half of the XXH64 of plain bytes; zstd computes it, so let it."""
    return checksum_of(_context(-1000).compress(plain))


class Decoder:
    """Takes frames apart; for one thread."""

    def __init__(self, name: str) -> None:
        """``name``: what messages call the image."""
        self._name = name
        self._context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)

    def decode(self, frame: Frame, data: Octets) -> bytes:
        """The frame's plain bytes, checked: their length, the checksum in the frame, and the one in the table.

        Raises:
            IntegrityError: they are damaged; names the frame and where on the disk its bytes belong.
        """
        try:
            claimed = zstandard.frame_content_size(data)
            if claimed not in (_UNKNOWN, frame.plain_bytes):
                raise self.damaged(frame, f"it claims {claimed} bytes")
            plain = (
                self._context.decompress(data, frame.plain_bytes, allow_extra_data=False) if frame.plain_bytes else b""
            )
            has_checksum = bool(zstandard.get_frame_parameters(data).has_checksum) if frame.plain_bytes else True
        except zstandard.ZstdError as error:
            raise self.damaged(frame, str(error)) from error
        if len(plain) != frame.plain_bytes:
            raise self.damaged(frame, f"it has {len(plain)} bytes")
        if frame.checksum is not None and frame.plain_bytes:
            found = checksum_of(data) if has_checksum else plain_checksum(plain)
            if found != frame.checksum:
                raise self.damaged(frame, f"its checksum is {found:08x}, by the seek table {frame.checksum:08x}")
        return plain

    def damaged(self, frame: Frame, reason: str) -> IntegrityError:
        """The error for a damaged frame."""
        return IntegrityError(
            f"{self._name}: frame {frame.number} is damaged: {reason} "
            f"({frame.plain_bytes} bytes at disk offset {frame.start})",
            frame=frame.number,
            offset=frame.start,
            length=frame.plain_bytes,
        )


@dataclass(frozen=True, slots=True)
class Skippable:
    """A frame that zstd skips: the seek table, or what somebody else left there."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Whole:
    """A frame of a stream, whole, and what is known of it; ``frame.checksum`` is the one that it ends with."""

    frame: Frame
    data: Octets


class Splitter:
    """Finds the frames of a stream by walking over their blocks, without taking them apart.

    Args:
        pieces: of the stream, cut anywhere.
        name: what messages call it.
    """

    def __init__(self, pieces: Iterable[Octets], name: str) -> None:
        self._pieces = iter(pieces)
        self._name = name
        self._held = bytearray()
        self._ended = False
        self._number = 0
        self._at = 0
        self._plain_at = 0

    @property
    def at(self) -> int:
        """Where in the stream the next frame begins, or the one that could not be taken."""
        return self._at

    def is_of_frames(self) -> bool:
        """Whether the stream begins with a frame that says how large it is, and is not too large to be held.

        Raises:
            IntegrityError: it is no zstd stream.
        """
        if not self._want(4):
            return True  # nothing, or too little: whoever walks says so
        if self._is_skippable():
            return True
        size = self._parameters().content_size
        return bool(size != zstandard.CONTENTSIZE_UNKNOWN and size <= FRAME_PLAIN_BYTES_MAX)

    def blocks(self) -> Iterator[Octets]:
        """The stream as it is, block by block: for frames that are too large to be held.

        Raises:
            IntegrityError: what comes is no frame, or is cut off; says where.
        """
        while self._want(1):
            self._hold(4)
            if self._is_skippable():
                yield self._take(self._skippable_bytes())
                continue
            parameters = self._parameters()
            yield self._take(self._header_bytes())
            last = False
            while not last:
                end, last = self._block(0)
                yield self._take(end)
            if parameters.has_checksum:
                self._hold(CHECKSUM_BYTES)
                yield self._take(CHECKSUM_BYTES)
            self._number += 1

    def __iter__(self) -> Iterator[Whole | Skippable]:
        """The frames, in order.

        Raises:
            IntegrityError: what comes is no frame, or is cut off; says where.
        """
        while self._want(1):
            self._hold(4)
            if self._is_skippable():
                yield Skippable(bytes(self._take(self._skippable_bytes())))
                continue
            parameters = self._parameters()
            if (
                parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN
                or parameters.content_size > FRAME_PLAIN_BYTES_MAX
            ):
                raise self._damaged("a frame of unknown or too large a size among others")
            checksum_bytes = CHECKSUM_BYTES if parameters.has_checksum else 0
            end = self._walk(checksum_bytes, 2 * parameters.content_size + _STRANGE_BYTES)
            at = self._at
            data = self._take(end)
            checksum = checksum_of(data) if parameters.has_checksum else None
            frame = Frame(self._number, at, end, self._plain_at, parameters.content_size, checksum)
            self._number += 1
            self._plain_at += frame.plain_bytes
            yield Whole(frame, data)

    def _walk(self, checksum_bytes: int, bytes_max: int) -> int:
        """Where the frame that is held from 0 on ends; all of it is held then."""
        at, last = self._header_bytes(), False
        while not last:
            at, last = self._block(at)
            if at > bytes_max:
                raise self._damaged("it is far longer than what it claims to hold")
        self._hold(at + checksum_bytes)
        return at + checksum_bytes

    def _header_bytes(self) -> int:
        return zstandard.frame_header_size(bytes(self._held[:_HEADER_BYTES_MAX]))

    def _block(self, at: int) -> tuple[int, bool]:
        """Hold the block at ``at``; gives where it ends, and whether it is the last."""
        self._hold(at + 3)
        header = int.from_bytes(self._held[at : at + 3], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > _BLOCK_BYTES_MAX:
            raise self._damaged("a block of an unknown kind or size")
        end = at + 3 + (1 if kind == 1 else size)  # a byte that is repeated is stored once
        self._hold(end)
        return end, bool(header & 1)

    def _is_skippable(self) -> bool:
        return self._held[0] & 0xF0 == 0x50 and self._held[1:4] == b"\x2a\x4d\x18"

    def _skippable_bytes(self) -> int:
        self._hold(8)
        size = 8 + int.from_bytes(self._held[4:8], "little")
        if size > _SKIPPABLE_BYTES_MAX:
            raise self._damaged(f"a skippable frame of {size} bytes")
        self._hold(size)
        return size

    def _parameters(self) -> zstandard.FrameParameters:
        self._want(_HEADER_BYTES_MAX)
        if self._held[:4] != MAGIC:
            raise self._damaged(f"no zstd frame begins with {self._held[:4].hex()}")
        try:
            return zstandard.get_frame_parameters(bytes(self._held[:_HEADER_BYTES_MAX]))
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error

    def _take(self, count: int) -> Octets:
        """The first bytes of what is held; only the smaller part of that is copied."""
        self._at += count
        if 2 * count < len(self._held):
            taken = bytes(memoryview(self._held)[:count])
            del self._held[:count]
            return taken
        whole = memoryview(self._held)
        self._held = bytearray(whole[count:])
        return whole[:count]

    def _hold(self, count: int) -> None:
        if not self._want(count):
            raise self._damaged("the stream ends in the middle of it")

    def _want(self, count: int) -> bool:
        """Hold so many bytes, if there are."""
        while len(self._held) < count and not self._ended:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                self._held += piece
        return len(self._held) >= count

    def _damaged(self, reason: str) -> IntegrityError:
        return IntegrityError(
            f"{self._name}: frame {self._number}, at byte {self._at} of the image: {reason} "
            f"(disk offset {self._plain_at})",
            frame=self._number,
            offset=self._plain_at,
        )
