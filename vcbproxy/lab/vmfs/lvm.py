"""The volume manager's metadata, written on each device once and for all.

    device   0         1 MiB                              17 MiB                            17 MiB + 16 TiB
             ├─ label ─┼─ header, PE bitmaps and tables ──┼─ data ───────────────────────── ┼─ 16 MiB more ─┼─ data ...
                                                                                              PE tables

A region describes at most eight tables of 8192 physical extents of 256 MiB, 16 TiB; a larger device has another region
behind that, so physical offsets jump there. Before LVM-6 every extent is 256 MiB; in LVM-6 one covers up to 16 TiB and
one table does. Offsets as on devices made by ESXi, two of them of 64 TiB.
"""

from __future__ import annotations

import random
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vcbproxy.errors import UsageError
from vcbproxy.lab.vmfs.geometry import Geometry, device_bytes
from vcbproxy.lab.vmfs.identity import Identity, disk_id
from vcbproxy.lab.vmfs.image import Segment
from vcbproxy.lab.vmfs.spec import PE_BYTES, Partition, VolumeSpec
from vcbproxy.units import MiB, TiB

MAGIC = 0xC001D00D
HEADER = MiB
DATA = 17 * MiB
REGION_BYTES = 16 * TiB
REGION_METADATA = 16 * MiB
PES_PER_TABLE = 8192
PE_ENTRY = 128
PARTITION_START = {Partition.NONE: 0, Partition.MBR: 128 * 512, Partition.GPT: 2048 * 512}
_GPT_TAIL = MiB
_VMFS_TYPE = uuid.UUID("AA31E02A-400F-11DB-9590-000C2911D1B8")


@dataclass(frozen=True, slots=True)
class Extent:
    """One physical extent: device offset, volume offset, length."""

    physical: int
    logical: int
    length: int


def segments(spec: VolumeSpec, devices: int) -> list[Segment]:
    """Where the volume's bytes lie in the image files; needs nothing but the spec."""
    start = PARTITION_START[spec.partition]
    return [
        Segment(extent.logical, extent.length, device, start + extent.physical)
        for device in range(devices)
        for extent in _joined(_extents(spec, device))
    ]


def _joined(extents: Iterable[Extent]) -> Iterator[Extent]:
    held: Extent | None = None
    for extent in extents:
        if held is not None and held.physical + held.length == extent.physical:
            held = Extent(held.physical, held.logical, held.length + extent.length)
            continue
        if held is not None:
            yield held
        held = extent
    if held is not None:
        yield held


def format_devices(paths: Sequence[Path], spec: VolumeSpec, geometry: Geometry, who: Identity, now_us: int) -> None:
    """Create the image files and write all that is not the volume itself.

    Raises:
        UsageError: a file exists already, or cannot be made.
    """
    made: list[Path] = []
    try:
        for number, path in enumerate(paths):
            with path.open("xb") as out:
                made.append(path)
                _format_device(out, spec, geometry, who, number, now_us)
    except OSError as error:
        for path in made:
            path.unlink()
        raise UsageError(f"cannot make the image {error.filename}: {error.strerror}; choose another place") from error


def _format_device(
    out: BinaryIO, spec: VolumeSpec, geometry: Geometry, who: Identity, number: int, now_us: int
) -> None:
    start, size_bytes = PARTITION_START[spec.partition], _partition_bytes(spec)
    out.truncate(start + size_bytes + _tail(spec))
    for offset, data in _partition_table(spec, size_bytes):
        out.seek(offset)
        out.write(data)
    for offset, data in _metadata(spec, geometry, who, number, now_us):
        out.seek(start + offset)
        out.write(data)


def _tail(spec: VolumeSpec) -> int:
    return _GPT_TAIL if spec.partition is Partition.GPT else 0


def _partition_bytes(spec: VolumeSpec) -> int:
    regions = -(-device_bytes(spec) // REGION_BYTES)
    return DATA + device_bytes(spec) + (regions - 1) * REGION_METADATA + 512


def _extents(spec: VolumeSpec, number: int) -> list[Extent]:
    """A device's physical extents, in the order of the volume."""
    size_bytes = device_bytes(spec)
    step = REGION_BYTES if spec.version == 6 else PE_BYTES
    offsets = list(range(0, size_bytes, step))
    places = [DATA + offset + offset // REGION_BYTES * REGION_METADATA for offset in offsets]
    if spec.shuffle_extents and spec.version != 6:
        random.Random(f"{spec.seed}/{number}").shuffle(places)
    return [
        Extent(place, number * size_bytes + offset, min(step, size_bytes - offset))
        for offset, place in zip(offsets, places, strict=True)
    ]


def _metadata(
    spec: VolumeSpec, geometry: Geometry, who: Identity, number: int, now_us: int
) -> Iterator[tuple[int, bytes]]:
    """(device offset, bytes) of headers, volume entry, device names and extent tables."""
    six = geometry.lvm_major >= 6
    extents = _extents(spec, number)
    tables = -(-len(extents) // PES_PER_TABLE)
    regions = [HEADER] + [DATA + n * REGION_BYTES + (n - 1) * REGION_METADATA for n in range(1, -(-tables // 8))]
    yield HEADER, _header(spec, geometry, who, number, len(extents), min(tables, 8), (*regions, 0)[1], now_us)
    yield HEADER + (0x1000 if six else 0x200), _volume_entry(spec, geometry, who, number, now_us)
    if number == 0 and geometry.lvm_major >= 5:
        names = b"".join(f"naa.{wwn}:1".encode().ljust(256, b"\0") for wwn in who.wwns)
        yield HEADER + (0x7F000 if six else 0x7E200), names
    for index, (region, following) in enumerate(zip(regions, [*regions[1:], 0], strict=True)):
        if index:
            data_offset = region + REGION_METADATA
            maps = min(tables - index * 8, 8)
            yield region, struct.pack("<IIQQ", MAGIC, maps, data_offset, following)
        bitmap_bytes = 0x1000 if six else 0x400
        bitmap = region + (0x81000 if six else 0x80200)
        for table in range(8):
            first = (index * 8 + table) * PES_PER_TABLE
            members = extents[first : first + PES_PER_TABLE]
            if members:
                at = bitmap + table * (bitmap_bytes + PES_PER_TABLE * PE_ENTRY)
                yield at, ((1 << len(members)) - 1).to_bytes(bitmap_bytes, "little")
                yield at + bitmap_bytes, b"".join(_entry(first + n, pe) for n, pe in enumerate(members))


def _entry(number: int, extent: Extent) -> bytes:
    entry = struct.pack("<BIIQQQI", 1, number, 0, extent.physical, extent.logical, extent.length, 1)
    return entry.ljust(PE_ENTRY, b"\0")


def _header(
    spec: VolumeSpec,
    geometry: Geometry,
    who: Identity,
    number: int,
    extents: int,
    tables: int,
    extended: int,
    now_us: int,
) -> bytes:
    six = geometry.lvm_major >= 6
    block = bytearray(512)
    minor = 21 if geometry.lvm_major >= 5 else 16
    struct.pack_into("<III", block, 0, MAGIC, geometry.lvm_major, minor)
    block[0x0C:0x5A] = disk_id(who.wwns[number], number)
    struct.pack_into("<IQIII", block, 0x5A, 512, _partition_bytes(spec), 1, extents, extents - 1)
    struct.pack_into("<QQ", block, 0x72, 3, DATA)
    block[0x82:0x92] = who.devices[number].raw
    struct.pack_into("<QQ", block, 0x92, now_us, now_us)
    struct.pack_into("<IQII", block, 0xBE, 0 if six else tables, extended, geometry.alignment, 0)
    if six:
        struct.pack_into("<I", block, 0xCE, device_bytes(spec) // PE_BYTES)
    return bytes(block)


def _volume_entry(spec: VolumeSpec, geometry: Geometry, who: Identity, number: int, now_us: int) -> bytes:
    extents = device_bytes(spec) // PE_BYTES
    entry = bytearray(512)
    struct.pack_into("<QQI", entry, 0, geometry.size_bytes, 2, 1)
    entry[0x14:0x54] = str(who.lvm).encode().ljust(64, b"\0")
    entry[0x54:0x64] = who.lvm.raw
    struct.pack_into("<IQII", entry, 0x64, 1, now_us, 0, extents)
    struct.pack_into("<QQQI", entry, 0x78, number * extents, (number + 1) * extents - 1, now_us, len(who.wwns))
    struct.pack_into("<I", entry, 0x110, 1 if geometry.lvm_major >= 6 else 0)
    return bytes(entry)


def _partition_table(spec: VolumeSpec, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    first = PARTITION_START[spec.partition] // 512
    sectors = size_bytes // 512
    if spec.partition is Partition.MBR:
        yield 0, _mbr(0xFB, first, min(sectors, 0xFFFFFFFF))
    elif spec.partition is Partition.GPT:
        yield from _gpt(spec, first, sectors)


def _mbr(kind: int, first: int, sectors: int) -> bytes:
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _gpt(spec: VolumeSpec, first: int, sectors: int) -> Iterator[tuple[int, bytes]]:
    """A protective MBR, then the table twice: at the start and, with its header last, at the end (UEFI 2.10, 5.3)."""
    disk_sectors = first + sectors + _GPT_TAIL // 512
    last = disk_sectors - 1
    unique = uuid.uuid5(uuid.NAMESPACE_DNS, f"{spec.label}/{spec.seed}")
    entry = _VMFS_TYPE.bytes_le + unique.bytes_le + struct.pack("<QQQ", first, first + sectors - 1, 0) + bytes(72)
    table = entry.ljust(128 * 128, b"\0")
    disk = uuid.uuid5(unique, "disk").bytes_le

    def header(own: int, other: int, table_at: int) -> bytes:
        def fields(checksum: int) -> bytes:
            start = struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, checksum, 0)
            ranges = struct.pack("<QQQQ", own, other, 34, last - 33)
            return start + ranges + disk + struct.pack("<QIII", table_at, 128, 128, zlib.crc32(table))

        return fields(zlib.crc32(fields(0))).ljust(512, b"\0")

    yield 0, _mbr(0xEE, 1, min(last, 0xFFFFFFFF))
    yield 512, header(1, last, 2)
    yield 1024, table
    yield (last - 32) * 512, table
    yield last * 512, header(last, 1, last - 32)
