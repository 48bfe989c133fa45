"""The hash by which VMFS-6 directories find names. Pure."""

from __future__ import annotations

import struct

_SALT = (0x739A75C28E61B017).to_bytes(8, "little")
_MASK = (1 << 64) - 1


def lookup8(quads: tuple[int, ...], level: int) -> int:
    """Bob Jenkins' 64-bit hash of 1997 (public domain) over whole words; the length is added in words."""
    a = b = level
    c = 0x9E3779B97F4A7C13
    position = 0
    while len(quads) - position >= 3:
        a, b, c = (
            (a + quads[position]) & _MASK,
            (b + quads[position + 1]) & _MASK,
            (c + quads[position + 2]) & _MASK,
        )
        a, b, c = _mix(a, b, c)
        position += 3
    rest = quads[position:]
    c = (c + len(quads)) & _MASK
    if len(rest) == 2:
        b = (b + rest[1]) & _MASK
    if rest:
        a = (a + rest[0]) & _MASK
    return _mix(a, b, c)[2]


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right_a, left_b, right_c in ((43, 9, 8), (38, 23, 5), (35, 49, 11), (12, 18, 22)):
        a = ((a - b - c) & _MASK) ^ (c >> right_a)
        b = ((b - c - a) & _MASK) ^ ((a << left_b) & _MASK)
        c = ((c - a - b) & _MASK) ^ (b >> right_c)
    return a, b, c


def name_hash(name: str) -> int:
    """The hash of a name: its bytes, then salt up to 128, then zeroes up to 256."""
    raw = name.encode("utf-8", "surrogateescape")
    key = bytearray(256)
    key[: len(raw)] = raw
    for position in range((len(raw) + 8) & ~7, 127, 8):
        key[position : position + 8] = _SALT
    return lookup8(struct.unpack("<32Q", key), 42)
