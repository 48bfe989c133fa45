"""Sizes: the constants, and the one way to print and to parse them."""

from __future__ import annotations

import re

from vcbproxy.errors import UsageError

SECTOR = 512
KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30
TiB = 1 << 40

_SUFFIXES = {"": 1, "K": KiB, "M": MiB, "G": GiB, "T": TiB}


def human(size_bytes: int) -> str:
    """Print a size for people: ``1.5 GiB``, ``512 B``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def parse_size(text: str) -> int:
    """Read ``4096``, ``64K``, ``1.5GiB`` or ``2 TB`` (binary units) as bytes.

    Raises:
        UsageError: not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"not a size: {text!r}; write it like 512M or 2GiB")
    return int(float(match[1]) * _SUFFIXES[match[2].upper()])


def align_down(offset: int, step: int) -> int:
    """The largest multiple of ``step`` not above ``offset``."""
    return offset - offset % step


def align_up(offset: int, step: int) -> int:
    """The smallest multiple of ``step`` not below ``offset``."""
    return -(-offset // step) * step
