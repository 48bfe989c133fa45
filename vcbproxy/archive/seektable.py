"""The seek table: which frame of an image holds which bytes of the disk. It is the image's last, skippable frame.

    image    │ frame 0 │ frame 1 │ … │ frame n-1 │ 184D2A5E, length │ n entries │ n │ flags │ 8F92EAB1 │
                                                                    │ compressed bytes │ plain bytes │ checksum │

As zstd's own specification has it (contrib/seekable_format, 0.1.0), so that whoever knows only zstd skips the table and
whoever knows the specification reads any part of an image. All numbers are little-endian u32. The checksum is the low
half of the plain bytes' XXH64: the same four bytes that end a zstd frame. 12 bytes for a frame: 3 MiB for a TiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcbproxy.device import Device, read
from vcbproxy.errors import IntegrityError

SKIPPABLE_MAGIC = 0x184D2A5E
FOOTER_MAGIC = 0x8F92EAB1
FRAME_PLAIN_BYTES_MAX = 256 << 20  # of foreign images; the specification's own program stops at 1 GiB

_HEADER = struct.Struct("<II")
_FOOTER = struct.Struct("<IBI")
_ENTRY = struct.Struct("<III")
_HAS_CHECKSUMS = 0x80
_RESERVED = 0x7C
_FRAMES_MAX = 0x8000000  # the reference program's limit; 512 TiB of frames of 4 MiB
_STRIDE = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of an image.

    Attributes:
        number: from 0.
        at: where it begins in the image.
        compressed_bytes: how long it is there.
        start: where its bytes belong on the disk.
        plain_bytes: how many they are.
        checksum: the low half of their XXH64; None in a table without.
    """

    number: int
    at: int
    compressed_bytes: int
    start: int
    plain_bytes: int
    checksum: int | None

    @property
    def end(self) -> int:
        """One past its last byte, on the disk."""
        return self.start + self.plain_bytes


class SeekTableBuilder:
    """Takes down frames as they are written."""

    def __init__(self) -> None:
        self._entries = bytearray()
        self.plain_bytes = 0
        self.compressed_bytes = 0

    @property
    def frames(self) -> int:
        """How many there are so far."""
        return len(self._entries) // _ENTRY.size

    def add(self, compressed_bytes: int, plain_bytes: int, checksum: int, count: int = 1) -> None:
        """The next frame, or so many that are alike."""
        self._entries += _ENTRY.pack(compressed_bytes, plain_bytes, checksum) * count
        self.compressed_bytes += compressed_bytes * count
        self.plain_bytes += plain_bytes * count
        assert self.frames <= _FRAMES_MAX, f"{self.frames} frames; nobody would read that table"

    def encode(self) -> bytes:
        """The skippable frame that ends the image."""
        length = len(self._entries) + _FOOTER.size
        footer = _FOOTER.pack(self.frames, _HAS_CHECKSUMS, FOOTER_MAGIC)
        return b"".join((_HEADER.pack(SKIPPABLE_MAGIC, length), self._entries, footer))


class SeekTable:
    """A table that was read: finds frames by number and by place."""

    def __init__(self, entries: NDArray[np.uint32], name: str) -> None:
        """``entries``: uint32[n, 2 or 3], as in the image."""
        self.name = name
        self._entries = entries
        firsts = np.arange(0, len(entries), _STRIDE)
        sums = (
            np.add.reduceat(entries[:, :2], firsts, axis=0, dtype=np.int64) if len(entries) else np.zeros((0, 2), "i8")
        )
        self._sums: NDArray[np.int64] = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(sums, axis=0)])

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def has_checksums(self) -> bool:
        """Whether it has the frames' checksums."""
        return bool(self._entries.shape[1] == 3)

    @property
    def plain_bytes(self) -> int:
        """The disk's size."""
        return int(self._sums[-1, 1])

    @property
    def compressed_bytes(self) -> int:
        """The image's size, without the table."""
        return int(self._sums[-1, 0])

    def frames(self, start: int = 0, end: int | None = None) -> Iterator[Frame]:
        """Those that hold any byte of [start, end) of the disk, in order."""
        end = self.plain_bytes if end is None else end
        if start >= end:
            return
        stride = int(np.searchsorted(self._sums[:, 1], start, side="right")) - 1
        at, plain_at = self._sums[stride].tolist()
        for number in range(stride * _STRIDE, len(self)):
            compressed, plain, *checksum = self._entries[number].tolist()
            if plain_at >= end:
                return
            if plain_at + plain > start:
                yield Frame(number, at, compressed, plain_at, plain, checksum[0] if checksum else None)
            at, plain_at = at + compressed, plain_at + plain


def read_table(image: Device) -> SeekTable | None:
    """The seek table that ends an image; None when it ends otherwise: a plain zstd stream, or one that was cut off.

    Raises:
        IntegrityError: there is one, and it does not fit the image.
        SourceError: the image cannot be read.
    """
    size = image.size_bytes
    if size < _HEADER.size + _FOOTER.size:
        return None
    footer = read(image, size - _FOOTER.size, _FOOTER.size)
    count, flags, magic = _FOOTER.unpack(footer)
    if magic != FOOTER_MAGIC:
        return None
    length = count * _entry_bytes(flags) + _FOOTER.size
    if count > _FRAMES_MAX or length + _HEADER.size > size:
        raise _damaged(image.name, f"it claims {count} frames, of an image of {size} bytes")
    table = parse_table(read(image, size - length - _HEADER.size, length + _HEADER.size), image.name)
    if table.compressed_bytes + length + _HEADER.size != size:
        raise _damaged(image.name, f"its frames have {table.compressed_bytes} bytes, the image {size}")
    return table


def table_bytes(frames: int) -> int:
    """How long the table of so many frames is, with checksums."""
    return _HEADER.size + frames * _ENTRY.size + _FOOTER.size


def is_table(skippable: bytes) -> bool:
    """Whether a whole skippable frame is a seek table, or what damage left of one."""
    head, tail = SKIPPABLE_MAGIC.to_bytes(4, "little"), FOOTER_MAGIC.to_bytes(4, "little")
    return skippable.startswith(head) or skippable.endswith(tail)


def parse_table(skippable: bytes, name: str) -> SeekTable:
    """Read a table's whole skippable frame.

    Raises:
        IntegrityError: it contradicts itself.
    """
    if len(skippable) < _HEADER.size + _FOOTER.size:
        raise _damaged(name, f"it has {len(skippable)} bytes")
    magic, length = _HEADER.unpack_from(skippable)
    count, flags, footer_magic = _FOOTER.unpack_from(skippable, len(skippable) - _FOOTER.size)
    if magic != SKIPPABLE_MAGIC or footer_magic != FOOTER_MAGIC:
        raise _damaged(name, "it has no header of one")
    if length != len(skippable) - _HEADER.size or count * _entry_bytes(flags) + _FOOTER.size != length:
        raise _damaged(name, f"{count} frames in {length} bytes")
    if flags & _RESERVED:
        raise _damaged(name, f"its flags are {flags:#04x}; this version does not know them")
    body = np.frombuffer(skippable, "<u4", count * _entry_bytes(flags) // 4, _HEADER.size)
    entries = body.reshape(count, _entry_bytes(flags) // 4)
    if count and int(entries[:, 1].max()) > FRAME_PLAIN_BYTES_MAX:
        raise _damaged(name, f"a frame of {int(entries[:, 1].max())} bytes")
    return SeekTable(entries, name)


def _entry_bytes(flags: int) -> int:
    return 12 if flags & _HAS_CHECKSUMS else 8


def _damaged(name: str, reason: str) -> IntegrityError:
    return IntegrityError(f"{name}: damaged seek table: {reason}")
