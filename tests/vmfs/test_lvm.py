"""The volume manager on devices whose bytes say where they lie: any order of extents, several tables, old entries."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.device import check_range, read
from vcbproxy.errors import LvmError
from vcbproxy.units import MiB, TiB
from vcbproxy.vmfs import lvm, span

PE = 256 * MiB
HEADER = MiB
DATA = 17 * MiB
TABLE = 8192 * 128
UUID = bytes(range(16))


@dataclass
class Telltale:
    """A device of which every eight bytes say their own device and place, but for what is written over them."""

    number: int
    size_bytes: int
    parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"lun{self.number}"

    def read_into(self, offset: int, buf: memoryview) -> None:
        check_range(self, offset, len(buf))
        first, last = offset // 8, -(-(offset + len(buf)) // 8)
        words = np.arange(first, last, dtype=np.uint64) << np.uint64(8) | np.uint64(self.number + 1)
        buf[:] = words.tobytes()[offset - first * 8 :][: len(buf)]
        for start, data in self.parts.items():
            low, high = max(offset, start), min(offset + len(buf), start + len(data))
            if low < high:
                buf[low - offset : high - offset] = data[low - start : high - start]


def said(volume: span.LogicalVolume, offset: int) -> tuple[int, int]:
    """Which device and place on it the byte at a multiple of eight comes from."""
    word = int.from_bytes(read(volume, offset, 8), "little")
    return (word & 0xFF) - 1, (word >> 8) * 8


def entry(logical: int, physical: int, length: int = PE, *, used: int = 1, volume: int = 0) -> bytes:
    return struct.pack("<BIIQQQ", used, 0, volume, physical, logical, length).ljust(128, b"\0")


def device(
    number: int,
    entries: list[bytes],
    *,
    size: int,
    devices: int = 1,
    device_bytes: int = 0,
    major: int = 5,
    count: int | None = None,
    maps: int = 1,
    extended: int = 0,
    volume_id: int = 0,
    generation: int = 1,
) -> Telltale:
    made = Telltale(number, device_bytes or DATA + 64 * PE)
    alignment = 4096 if major == 6 else 0
    header = bytearray(512)
    struct.pack_into("<III", header, 0, 0xC001D00D, major, 21)
    struct.pack_into("<II", header, 0x66, 1, len(entries) if count is None else count)
    struct.pack_into("<IQI", header, 0xBE, maps, extended, alignment)
    volume = bytearray(512)
    struct.pack_into("<QQI", volume, 0, size, generation, 1)
    volume[0x54:0x64] = UUID
    struct.pack_into("<I", volume, 0x70, volume_id)
    struct.pack_into("<I", volume, 0x90, devices)
    made.parts[HEADER] = bytes(header)
    made.parts[HEADER + (alignment or 512)] = bytes(volume)
    tables(made, HEADER, entries, maps, alignment)
    return made


def tables(made: Telltale, region: int, entries: list[bytes], maps: int, alignment: int = 0) -> None:
    bitmap = max(alignment, 0x400)
    at = region + (alignment or 512) + 0x80000
    for number in range(maps):
        part = b"".join(entries[number * 8192 : (number + 1) * 8192]).ljust(TABLE, b"\0")
        made.parts[at + number * (bitmap + TABLE) + bitmap] = part


def opened(*devices: Telltale) -> span.LogicalVolume:
    members = [lvm.find(device) for device in devices]
    return span.assemble([member for member in members if member is not None])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_extents_in_any_order_on_any_device(data: st.DataObject) -> None:
    """Physical extents shuffled over devices and places: every byte of the volume from where the tables say."""
    count = data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=2)) if count > 1 else [])
    major = data.draw(st.sampled_from([3, 5, 6]))
    owners = [sum(number >= cut for cut in cuts) for number in range(count)]
    places = [DATA + slot * PE for slot in data.draw(st.permutations(range(16)))[:count]]
    made = []
    for number in range(len(cuts) + 1):
        mine = [entry(pe * PE, places[pe]) for pe in range(count) if owners[pe] == number]
        mine = data.draw(st.permutations(mine))
        foreign = entry(0, DATA + 20 * PE, volume=9)
        unused = entry(0, DATA + 21 * PE, used=0)
        entries = [foreign, *mine, unused] if data.draw(st.booleans()) else mine
        stale = [entry(PE * pe, DATA + 30 * PE) for pe in range(2)]
        made.append(
            device(number, [*entries, *stale], size=count * PE, devices=len(cuts) + 1, major=major, count=len(entries))
        )
    volume = opened(*data.draw(st.permutations(made)))
    for pe in range(count):
        for inside in (0, 8 * 1000, PE - 8):
            assert said(volume, pe * PE + inside) == (owners[pe], places[pe] + inside)
    whole = read(volume, PE - 4096, 8192) if count > 1 else b""
    assert whole[:8] == (read(volume, PE - 4096, 8) if whole else b"")
    assert whole[4096:4104] == (read(volume, PE, 8) if whole else b"")


def test_several_tables_and_an_extended_region() -> None:
    """Beyond a region's tables physical places jump; tables of the next region are found by the chain."""
    entries = [entry(pe * PE, DATA + pe * PE) for pe in range(3 * 8192)]
    far = DATA + 2 * 8192 * PE
    beyond = [entry((2 * 8192 + pe) * PE, far + 16 * MiB + pe * PE) for pe in range(8192)]
    size = 3 * 8192 * PE
    made = device(0, entries[: 2 * 8192], size=size, device_bytes=7 * TiB, count=3 * 8192, maps=2, extended=far)
    made.parts[far] = struct.pack("<IIQQ", 0xC001D00D, 1, far + 16 * MiB, 0)
    tables(made, far, beyond, 1)
    volume = opened(made)
    assert len(volume.runs()) == 2
    assert said(volume, 2 * 8192 * PE - 8) == (0, far - 8)
    assert said(volume, 2 * 8192 * PE) == (0, far + 16 * MiB)
    assert said(volume, size - 8) == (0, far + 16 * MiB + 8192 * PE - 8)
    made.parts[far] = bytes(24)
    with pytest.raises(LvmError, match="no extended LVM metadata"):
        opened(made)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(0, DATA), entry(2 * PE, DATA + PE)], "leave a gap at volume offset 0x10000000"),
        ([entry(PE, DATA), entry(2 * PE, DATA + PE)], "leave a gap at volume offset 0x0"),
        ([entry(0, DATA), entry(PE // 2, DATA + PE)], "overlap at volume offset"),
        ([entry(0, DATA), entry(PE, DATA + PE // 2)], "two of its physical extents overlap"),
        ([entry(0, DATA + 2 * PE), entry(PE, 0)], "lies over the LVM header"),
        ([entry(0, DATA), entry(PE, DATA + 64 * PE)], "it is cut short"),
        ([entry(0, DATA), entry(PE, (1 << 64) - PE)], "impossible values"),
        ([entry(0, DATA), entry(PE, DATA + PE, (1 << 64) - 1)], "impossible values"),
        ([entry(0, DATA), entry(PE, DATA + PE, 0)], "impossible values"),
        ([entry(0, DATA)], "hold 268435456 bytes of 536870912"),
        ([entry(0, DATA), entry(PE, DATA + PE, used=0)], "hold 268435456 bytes of 536870912"),
        ([], "its physical extent table is empty"),
    ],
)
def test_extents_that_cannot_be(entries: list[bytes], message: str) -> None:
    with pytest.raises(LvmError, match=message):
        opened(device(0, entries, size=2 * PE))


def test_devices_of_different_times() -> None:
    one = device(0, [entry(0, DATA)], size=2 * PE, devices=2)
    for changed in (
        device(1, [entry(PE, DATA)], size=3 * PE, devices=2),
        device(1, [entry(PE, DATA)], size=2 * PE, devices=3),
        device(1, [entry(PE, DATA)], size=2 * PE, devices=2, major=3),
        device(1, [entry(PE, DATA)], size=2 * PE, devices=2, generation=2),
    ):
        with pytest.raises(LvmError, match="they are not of one time"):
            opened(one, changed)


def test_one_device_twice_is_no_second_part() -> None:
    one = device(0, [entry(0, DATA)], size=2 * PE, devices=2)
    other = device(1, [entry(PE, DATA)], size=2 * PE, devices=2)
    assert said(opened(other, one), PE) == (1, DATA)
    for given_twice in ([one, one], [one, other, other], [other, one, one]):
        with pytest.raises(LvmError, match="holds the same part"):
            opened(*given_twice)


def test_in_a_partition_places_are_from_its_start() -> None:
    made = device(0, [entry(0, DATA)], size=PE)
    member = lvm.find(made)
    assert member is not None
    start = 63 * 512
    moved = Telltale(0, made.size_bytes + start, {start + at: data for at, data in made.parts.items()})
    extents = lvm.extents_of(lvm.parse(moved, start, made.size_bytes))
    assert extents.physical.tolist() == [start + DATA]
    with pytest.raises(LvmError, match="it is cut short"):
        lvm.extents_of(lvm.parse(moved, start, DATA + PE - 1))
