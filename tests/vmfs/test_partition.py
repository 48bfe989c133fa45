"""Where a volume may start on a device: tables of every kind, damaged ones, and none."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.device import MemoryDevice
from vcbproxy.units import MiB
from vcbproxy.vmfs import lvm, partition
from vcbproxy.vmfs.partition import Range, candidates

SIZE = 4 * MiB


def gpt(sector: int, parts: list[tuple[bytes, int, int]], *, backup: bool = False) -> bytearray:
    disk = bytearray(SIZE)
    table = sector * 2
    at = SIZE - sector if backup else sector
    header = struct.pack(
        "<8sIIIIQQQQ16sQII", b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 34, 0, b"", table // sector, 128, 128
    )
    disk[at : at + len(header)] = header
    for number, (kind, first, last) in enumerate(parts):
        struct.pack_into("<16s16sQQ", disk, table + 128 * number, kind, b"unique", first, last)
    return disk


def mbr(parts: list[tuple[int, int, int]]) -> bytearray:
    disk = bytearray(SIZE)
    put_mbr(disk, 0, parts)
    return disk


def put_mbr(disk: bytearray, at: int, parts: list[tuple[int, int, int]]) -> None:
    for number, (kind, first, count) in enumerate(parts):
        struct.pack_into("<4xB3xII", disk, at + 446 + 16 * number, kind, first, count)
    disk[at + 510 : at + 512] = b"\x55\xaa"


def found(disk: bytes | bytearray) -> list[tuple[int, int]]:
    return [(part.start, part.length) for part in candidates(MemoryDevice(disk))]


def test_no_table() -> None:
    assert found(bytes(SIZE)) == [(0, SIZE)]


def test_gpt_in_either_sector_size() -> None:
    other = bytes(range(16))
    for sector in (512, 4096):
        first = MiB // sector
        disk = gpt(sector, [(other, 8, 9), (partition.GPT_VMFS, first, 2 * first - 1)])
        assert found(disk) == [(MiB, MiB), (0, SIZE)]


def test_vmfs_goes_before_system_storage() -> None:
    disk = gpt(512, [(partition.GPT_VMFSL, 2048, 4095), (partition.GPT_VMFS, 4096, 6143)])
    assert found(disk) == [(2 * MiB, MiB), (MiB, MiB), (0, SIZE)]


def test_backup_table_of_a_gpt() -> None:
    disk = gpt(512, [(partition.GPT_VMFS, 2048, 4095)], backup=True)
    put_mbr(disk, 0, [(0xEE, 1, 8191)])
    assert found(disk) == [(MiB, MiB), (0, SIZE)]


def test_mbr() -> None:
    """VMFS-3 began at LBA 63 or 128."""
    assert (63 * 512, 1000 * 512) in found(mbr([(0x83, 1, 2), (0xFB, 63, 1000)]))


def test_logical_partition() -> None:
    disk = mbr([(0x0F, 100, 3000)])
    put_mbr(disk, 100 * 512, [(0x83, 1, 10), (0x05, 50, 100)])
    put_mbr(disk, 150 * 512, [(0xFB, 2, 60)])
    assert (152 * 512, 60 * 512) in found(disk)


def test_logical_partitions_in_a_circle() -> None:
    disk = mbr([(0x0F, 100, 3000)])
    put_mbr(disk, 100 * 512, [(0x83, 1, 10), (0x05, 50, 100)])
    put_mbr(disk, 150 * 512, [(0x83, 1, 10), (0x05, 50, 100)])
    assert found(disk) == [(0, SIZE)]


def test_protective_mbr_is_no_table() -> None:
    disk = mbr([(0xEE, 1, 4000), (0xFB, 63, 100)])
    assert found(disk)[-1] == (0, SIZE)


def test_old_header_behind_a_table() -> None:
    """A LUN once used whole, then partitioned: the header that survived at 1 MiB is not the volume's."""
    disk = gpt(512, [(partition.GPT_VMFS, 2048, 6143)])
    for at in (MiB, 2 * MiB):
        disk[at : at + 4] = (0xC001D00D).to_bytes(4, "little")
    device = MemoryDevice(disk)
    assert candidates(device)[0] == Range(MiB, 2 * MiB)
    assert [lvm.is_member(device, part.start) for part in candidates(device)] == [True, True]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_table_gives_places_inside(data: st.DataObject) -> None:
    disk = (
        gpt(512, [(partition.GPT_VMFS, 2048, 4095)]) if data.draw(st.booleans()) else mbr([(0x0F, 3, 9), (0xFB, 5, 9)])
    )
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, 2048))
        patch = data.draw(st.binary(min_size=1, max_size=16))
        disk[at : at + len(patch)] = patch
    parts = candidates(MemoryDevice(disk))
    assert parts[-1] == Range(0, SIZE)
    assert all(0 <= part.start < SIZE and 0 < part.length <= SIZE - part.start for part in parts)


@given(st.binary(max_size=600))
def test_tiny_devices(data: bytes) -> None:
    assert candidates(MemoryDevice(data)) == [Range(0, len(data))]
    assert lvm.find(MemoryDevice(data)) is None
