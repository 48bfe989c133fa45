"""Reads the LVM header of one device: which volume it belongs to, and where its part of the volume lies.

    device (from the partition's start)
    0        1 MiB                                                             17 MiB
    ├ unused ┼ metadata │ volume table │ device names │ PE bitmap │ PE table ... ┼ physical extents (PEs) ...
             └ region: up to 8 pairs of bitmap and table, 8192 PEs each ─────────┘

One region serves 16 TiB. A larger device carries further regions between its PEs, chained by offset, so that
physical offsets jump: only the PE table knows where a byte is. LVM-3 to -5 have PEs of 256 MiB; on LVM-6 one PE may
be 16 TiB.

In: a device and where the partition starts. Out: ``Member``, and ``extents_of(member)``. Promised: bounded reads; a
table that contradicts itself or reaches past the device raises ``LvmError``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vcbproxy.device import Device, read
from vcbproxy.errors import LvmError
from vcbproxy.vmfs import c_lvm, layout, partition
from vcbproxy.vmfs.c_lvm import LVM_DEV_HEADER_OFFSET

_ALIGNMENTS = tuple(512 << shift for shift in range(8))
_HEADER_BYTES = 0x2000
_DEVICE_NAME = re.compile(rb"(?P<name>[a-z0-9]+\.[!-~]{1,200}):\d+\0")


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a volume, as its own header describes it."""

    device: Device
    start: int  # where the partition starts on the device
    length: int
    major: int  # 3 to 6
    minor: int
    alignment: int  # of metadata; 512 before LVM-6
    device_uuid: str
    maps: int  # PE tables in the first region
    next_region: int  # 0: none
    volume_uuid: str
    volume_name: str
    volume_size_bytes: int
    volume_generation: int
    volume_id: int
    pe_count: int
    pe_first: int  # of the volume, in units of 256 MiB
    pe_last: int
    devices: int  # how many the volume has


@dataclass(frozen=True, slots=True)
class PhysicalExtents:
    """Columns, one row per used PE: where in the volume, where on the device (not the partition), how long."""

    logical: layout.Offsets
    physical: layout.Offsets
    length: layout.Offsets

    @property
    def first(self) -> int:
        """The first byte of the volume that lies here."""
        return int(self.logical[0])

    @property
    def end(self) -> int:
        """One past the last byte of the volume that lies here."""
        return int((self.logical + self.length).max())


def find(device: Device) -> Member | None:
    """The first VMFS member on a device, or None when there is none."""
    return next(members(device), None)


def members(device: Device) -> Iterator[Member]:
    """Every VMFS member on a device: one for each partition that holds an LVM header, else the bare device."""
    found = False
    for where in partition.candidates(device):
        if where.start == 0 and found:
            return  # what looks like a header there is older than the partition table
        if is_member(device, where.start):
            found = True
            yield parse(device, where.start, where.length)


def is_member(device: Device, start: int = 0) -> bool:
    """Whether there is an LVM header 1 MiB behind ``start``."""
    at = start + LVM_DEV_HEADER_OFFSET
    if at + c_lvm.LVM_SECTOR_SIZE > device.size_bytes:
        return False
    return int.from_bytes(read(device, at, c_lvm.LVM_SECTOR_SIZE)[:4], "little") == c_lvm.LVM_MAGIC_NUMBER


def parse(device: Device, start: int, length: int) -> Member:
    """Decode header and volume table.

    Raises:
        LvmError: a version we do not know, or no usable volume on it.
    """
    header, volume, alignment = _fields(device, start)
    return Member(
        device=device,
        start=start,
        length=length,
        major=header["majorVersion"],
        minor=header["minorVersion"],
        alignment=alignment,
        device_uuid=layout.uuid_text(header.raw("deviceUUID")),
        maps=header["numPEMaps"] or 1,
        next_region=header["extDevMetadataOffset"],
        volume_uuid=layout.uuid_text(volume.raw("uuid")),
        volume_name=layout.text(volume.raw("name")),
        volume_size_bytes=volume["size"],
        volume_generation=volume["generation"],
        volume_id=volume["id"],
        pe_count=header["numPEs"],
        pe_first=volume["firstPE"],
        pe_last=volume["lastPE"],
        devices=volume["numDevs"],
    )


def _fields(device: Device, start: int) -> tuple[layout.Fields, layout.Fields, int]:
    """Header and volume table, held to sense, and the alignment of the metadata.

    Raises:
        LvmError: a version we do not know, or no usable volume on it.
    """

    def fail(reason: str) -> LvmError:
        return LvmError(device=device.name, reason=reason)

    at = start + LVM_DEV_HEADER_OFFSET
    if at + _HEADER_BYTES > device.size_bytes:
        raise fail("the device ends inside its LVM header")
    raw = read(device, at, _HEADER_BYTES)
    header = layout.Fields(c_lvm.LVM_DeviceMetadata, raw)
    major = header["majorVersion"]
    if major not in c_lvm.LVM_MAJORS:
        raise fail(f"LVM version {major}.{header['minorVersion']} is unknown; known are 3 to 6")
    alignment = header["mdAlignment"] if major >= 6 else c_lvm.LVM_SECTOR_SIZE
    if alignment not in _ALIGNMENTS:
        raise fail(f"its LVM header gives a metadata alignment of {alignment} bytes")
    if alignment + 512 > _HEADER_BYTES:
        if at + alignment + 512 > device.size_bytes:
            raise fail("the device ends inside its LVM header")
        raw = read(device, at, alignment + 512)
    volume = layout.Fields(c_lvm.LVM_VolumeDescriptor, raw, alignment)
    if header["numVolumes"] != 1:
        raise fail(f"its LVM header names {header['numVolumes']} volumes; exactly 1 is understood")
    size_bytes, devices = volume["size"], volume["numDevs"]
    if not 0 < size_bytes < 1 << 56:
        raise fail(f"its LVM header gives the volume an impossible size of {size_bytes} bytes")
    if not 1 <= devices <= 1024:
        raise fail(f"its LVM header says the volume has {devices} devices")
    return header, volume, alignment


def extents_of(member: Member) -> PhysicalExtents:
    """Read the PE tables of every region of a device; rows in logical order.

    Raises:
        LvmError: a table outside the device, a PE outside the device, PEs that overlap.
    """
    rows = np.concatenate(list(_tables(member)))[: member.pe_count]  # what lies behind is of an earlier format
    rows = rows[rows["used"] != 0]
    rows = rows[rows["volumeId"] == member.volume_id]
    order = np.argsort(rows["logicalOffset"], kind="stable")
    rows = rows[order]
    logical, physical, length = (rows[name] for name in ("logicalOffset", "physicalOffset", "length"))
    limit = np.uint64(1 << 56)
    if np.any(logical >= limit) or np.any(physical >= limit) or np.any(length >= limit) or np.any(length == 0):
        raise _error(member, "its physical extent table holds impossible values")
    extents = PhysicalExtents(
        logical.astype(np.int64), physical.astype(np.int64) + member.start, length.astype(np.int64)
    )
    _check(member, extents)
    return extents


def first_extent(member: Member) -> int | None:
    """Where on the device volume offset 0 lies, if its first PE says so; one small read, for probing."""
    at = member.start + LVM_DEV_HEADER_OFFSET + member.alignment + c_lvm.LVM_SD_TABLE_SIZE + _bitmap_bytes(member)
    if at + 512 > member.device.size_bytes:
        return None
    entry = layout.Fields(c_lvm.LVM_PEDescriptor, read(member.device, at, 512))
    usable = entry["used"] and entry["volumeId"] == member.volume_id and entry["logicalOffset"] == 0
    return member.start + entry["physicalOffset"] if usable else None


def device_names(member: Member) -> tuple[str, ...]:
    """What the hosts called the volume's devices, in the volume's order, when it was made or extended: ``naa.…``.

    Only the first device of an LVM-5 or -6 volume says; empty elsewhere. A hint, not a proof: an array's copy of the
    device still has the names of the original.
    """
    if member.pe_first or member.major < 5:
        return ()
    size = c_lvm.LVM_SD_NAME_SIZE
    at = member.start + LVM_DEV_HEADER_OFFSET + member.alignment + c_lvm.LVM_SD_NAMES_OFFSET
    length = min(member.devices, c_lvm.LVM_SD_NAMES_MAX) * size
    if at + length > member.device.size_bytes:
        return ()
    raw = read(member.device, at, length)
    found = [_DEVICE_NAME.match(raw[start : start + size]) for start in range(0, length, size)]
    return tuple(match["name"].decode() if match else "" for match in found)


def _bitmap_bytes(member: Member) -> int:
    return max(member.alignment, c_lvm.LVM_PE_BITMAP_SIZE_LVM5)


def _check(member: Member, extents: PhysicalExtents) -> None:
    if len(extents.logical) == 0:
        raise _error(member, "its physical extent table is empty")
    ends = extents.physical + extents.length
    outside = np.flatnonzero(ends > member.start + member.length)
    if len(outside):
        needed = int(ends[outside[0]]) - member.start
        raise _error(
            member,
            f"it is cut short: a physical extent ends at {needed}, the device at {member.length}; "
            "check that the whole LUN is presented",
        )
    by_place = np.argsort(extents.physical, kind="stable")
    if np.any(ends[by_place][:-1] > extents.physical[by_place][1:]):
        raise _error(member, "two of its physical extents overlap")
    if int(extents.physical.min()) < member.start + LVM_DEV_HEADER_OFFSET:
        raise _error(member, "a physical extent lies over the LVM header")


def _tables(member: Member) -> Iterator[np.ndarray[tuple[int], layout.Structure]]:
    """Each PE table, region after region."""
    bitmap_bytes = _bitmap_bytes(member)
    table_bytes = c_lvm.LVM_PES_PER_MAP * c_lvm.LVM_PEDescriptor.itemsize
    to_bitmap = member.alignment + c_lvm.LVM_SD_TABLE_SIZE
    region, maps, following = LVM_DEV_HEADER_OFFSET, member.maps, member.next_region
    for _ in range(c_lvm.LVM_MAX_REGIONS):
        if not 1 <= maps <= c_lvm.LVM_MAX_MAPS_PER_REGION:
            raise _error(
                member, f"{maps} physical extent tables in the metadata region at {region:#x}; 1 to 8 are possible"
            )
        for index in range(maps):
            at = region + to_bitmap + index * (bitmap_bytes + table_bytes) + bitmap_bytes
            yield np.frombuffer(_read(member, at, table_bytes, "physical extent table"), dtype=c_lvm.LVM_PEDescriptor)
        if following == 0:
            return
        if following <= region:
            raise _error(member, f"the metadata region at {region:#x} points back to {following:#x}")
        raw = _read(member, following, c_lvm.LVM_SECTOR_SIZE, "extended LVM metadata")
        header = layout.Fields(c_lvm.LVM_ExtDevMetadata, raw)
        if header["magic"] != c_lvm.LVM_MAGIC_NUMBER:
            raise _error(member, f"no extended LVM metadata at {following:#x}, where its header points")
        region, maps, following = following, header["numPEMaps"], header["nextOffset"]
    raise _error(member, f"more than {c_lvm.LVM_MAX_REGIONS} metadata regions")


def _read(member: Member, at: int, length: int, what: str) -> bytes:
    if at + length > member.length:
        raise _error(member, f"it is cut short: its {what} at {at:#x} lies past the end of the device")
    return read(member.device, member.start + at, length)


def _error(member: Member, reason: str) -> LvmError:
    return LvmError(device=member.device.name, reason=reason)
