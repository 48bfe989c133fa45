"""Declares on-disk structures as tables of (offset, format), and decodes bytes by them.

In: bytes as they lie on disk, little-endian, fields at odd offsets. Out: plain ints and bytes. What the fields mean
is said where they are used; the tables in ``c_lvm`` and ``c_vmfs`` hold places only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Structure = np.dtype[np.void]
Offsets = npt.NDArray[np.int64]


def structure(size_bytes: int, /, **fields: tuple[int, str]) -> Structure:
    """Declare a structure: ``name=(offset, format)``, formats as NumPy writes them (``<u4``, ``(16,)u1``)."""
    names = list(fields)
    offsets = [fields[name][0] for name in names]
    formats = [fields[name][1] for name in names]
    return np.dtype({"names": names, "offsets": offsets, "formats": formats, "itemsize": size_bytes})


class Fields:
    """One decoded structure; ``fields["name"]`` is an int, ``fields.raw("name")`` the bytes of an array field."""

    __slots__ = ("_record",)

    def __init__(self, kind: Structure, buf: bytes | bytearray | memoryview, offset: int = 0) -> None:
        self._record: Any = np.frombuffer(buf, dtype=kind, count=1, offset=offset)[0]

    def __getitem__(self, name: str) -> int:
        return int(self._record[name])

    def raw(self, name: str) -> bytes:
        """The bytes of an array field."""
        value: bytes = self._record[name].tobytes()
        return value


def text(raw: bytes) -> str:
    """A NUL-padded name as text; bytes that are not UTF-8 survive as surrogates."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def uuid_text(raw: bytes) -> str:
    """A UUID the way VMware prints it: two u32, a u16, six bytes of MAC address."""
    low, high = int.from_bytes(raw[0:4], "little"), int.from_bytes(raw[4:8], "little")
    return f"{low:08x}-{high:08x}-{int.from_bytes(raw[8:10], 'little'):04x}-{raw[10:16].hex()}"
