"""Finds where on a device a VMFS volume may start: GPT, MBR, or no table at all.

    LUN      MBR  GPT ...    │ partition: 1 MiB unused │ LVM header ...
    offset   0    512|4096   start                     start + 1 MiB

In: a device (whole LUN, partition or image). Out: candidate starts, most likely first. Promised: only places inside
the device, however mad the table; a fixed number of small reads. A table alone proves nothing (VMFS leaves the
first MiB of a LUN alone, so an old one survives there): whoever asks looks for the LVM magic at each candidate.

Facts: UEFI specification (GPT); partition types seen on LUNs partitioned by ESXi.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vcbproxy.device import Device, read
from vcbproxy.errors import SourceError
from vcbproxy.units import KiB

GPT_VMFS = bytes.fromhex("2ae031aa0f40db119590000c2911d1b8")  # AA31E02A-400F-11DB-9590-000C2911D1B8
GPT_VMFSL = bytes.fromhex("39eab24e55789047a79efae495e21f8d")  # 4EB2EA39-7855-4790-A79E-FAE495E21F8D: system storage
MBR_VMFS = 0xFB
_MBR_EXTENDED = (0x05, 0x0F, 0x85)
_MBR_PROTECTIVE = 0xEE
_SECTOR_SIZES = (512, 4096)
_GPT_ENTRIES_MAX = 1024
_GPT_ENTRY_MAX = 4096
_EBR_MAX = 128
_HEAD_BYTES = 24 * KiB  # GPT with 4096-byte sectors and 128 entries ends there


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``[start, start + length)`` of a device that may hold one device of a volume."""

    start: int
    length: int


def candidates(device: Device) -> list[Range]:
    """Partitions of a VMFS type first, then the whole device as if it had no table.

    Partitions go first because a header may survive at 1 MiB from a time before the LUN was partitioned.
    """
    found: dict[Range, None] = {}
    device = _Head(device)
    for found_range in itertools.chain(_gpt(device), _mbr(device)):
        if 0 < found_range.start < device.size_bytes and found_range.length > 0:
            length = min(found_range.length, device.size_bytes - found_range.start)
            found[Range(found_range.start, length)] = None
    found[Range(0, device.size_bytes)] = None
    return list(found)


class _Head:
    """A device whose first bytes, where the tables lie, are read at once: probing hundreds of LUNs is all small reads.

    Where that large read fails, each small one is tried by itself: a bad sector nobody needs must hide no table.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.name = device.name
        self.size_bytes = device.size_bytes
        try:
            self._head = read(device, 0, min(_HEAD_BYTES, device.size_bytes))
        except SourceError:
            self._head = b""

    def read_into(self, offset: int, buf: memoryview) -> None:
        if offset + len(buf) <= len(self._head):
            buf[:] = self._head[offset : offset + len(buf)]
        else:
            self._device.read_into(offset, buf)


def _gpt(device: Device) -> Iterator[Range]:
    """The table, or its copy at the end of the device where the MBR says that there was one."""
    places = [(sector_bytes, sector_bytes) for sector_bytes in _SECTOR_SIZES]
    if any(kind == _MBR_PROTECTIVE for kind, _, _ in _mbr_entries(device, 0)):
        places += [(device.size_bytes // size * size - size, size) for size in _SECTOR_SIZES]
    for at, sector_bytes in places:
        ranges = list(_gpt_entries(device, at, sector_bytes))
        if ranges:
            yield from ranges
            return


def _gpt_entries(device: Device, at: int, sector_bytes: int) -> Iterator[Range]:
    if at < 0 or at + 512 > device.size_bytes:
        return
    header = read(device, at, 512)
    if header[:8] != b"EFI PART":
        return
    lba, count, entry_bytes = struct.unpack_from("<QII", header, 72)
    start = lba * sector_bytes
    if not 128 <= entry_bytes <= _GPT_ENTRY_MAX or start + count * entry_bytes > device.size_bytes:
        return
    table = read(device, start, min(count, _GPT_ENTRIES_MAX) * entry_bytes)
    for kind in (GPT_VMFS, GPT_VMFSL):
        for offset in range(0, len(table) - 127, entry_bytes):
            first, last = struct.unpack_from("<QQ", table, offset + 32)
            if table[offset : offset + 16] == kind and last >= first:
                yield Range(first * sector_bytes, (last - first + 1) * sector_bytes)


def _mbr(device: Device) -> Iterator[Range]:
    for sector_bytes in _SECTOR_SIZES:
        yield from _mbr_table(device, sector_bytes)


def _mbr_table(device: Device, sector_bytes: int) -> Iterator[Range]:
    """The four primary partitions, then the chain of logical ones inside an extended one."""
    extended = 0
    for kind, first, count in _mbr_entries(device, 0):
        if kind == MBR_VMFS:
            yield Range(first * sector_bytes, count * sector_bytes)
        elif kind in _MBR_EXTENDED:
            extended = first
        elif kind == _MBR_PROTECTIVE:
            return
    at = extended
    for _ in range(_EBR_MAX):
        if at == 0:
            return
        following = 0
        for kind, first, count in _mbr_entries(device, at * sector_bytes):
            if kind == MBR_VMFS:
                yield Range((at + first) * sector_bytes, count * sector_bytes)
            elif kind in _MBR_EXTENDED:
                following = extended + first
        at = following


def _mbr_entries(device: Device, at: int) -> list[tuple[int, int, int]]:
    if at + 512 > device.size_bytes:
        return []
    sector = read(device, at, 512)
    if sector[510:512] != b"\x55\xaa":
        return []
    entries = (struct.unpack_from("<4xB3xII", sector, 446 + 16 * index) for index in range(4))
    return [(kind, first, count) for kind, first, count in entries if kind and first and count]
