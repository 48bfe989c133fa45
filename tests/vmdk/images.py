"""Sparse extents from a model: which grain holds which bytes. Of any capacity, grain and table size.

A model is a dictionary: grain number to its bytes, or to ``ZEROED``; grains it does not name are the parent's. The last
grain may reach over the end of the disk: what lies there is nobody's, and is filled with bytes that no disk has.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTOR = 512
ZEROED = b""
_NOBODYS = b"\xee"

Model = Mapping[int, bytes]


def overlaid(below: bytes, model: Model, grain_bytes: int) -> bytes:
    """What a disk reads as when a model lies over it."""
    out = bytearray(below)
    for grain, content in model.items():
        start = grain * grain_bytes
        length = min(grain_bytes, len(below) - start)
        out[start : start + length] = content[:length] if content else bytes(length)
    return bytes(out)


@dataclass
class _Image:
    """A file that grows: pieces are laid where the next free sector is, or wherever there is room for them."""

    rng: random.Random
    data: bytearray = field(default_factory=bytearray)

    def reserve(self, size_bytes: int, align: int = SECTOR) -> int:
        """Room at the end, often with a gap before it; zeroed."""
        gap = self.rng.choice([0, 0, 1, 3]) * align
        start = -(-len(self.data) // align) * align + gap
        self.data += bytes(start + size_bytes - len(self.data))
        self.data += bytes(-len(self.data) % SECTOR)
        return start

    def put(self, layout: str, at: int, *values: object) -> None:
        struct.pack_into(layout, self.data, at, *values)

    def grain(self, at: int, content: bytes, grain_bytes: int) -> None:
        self.data[at : at + grain_bytes] = content.ljust(grain_bytes, _NOBODYS)


def _shuffled(model: Model, rng: random.Random) -> list[int]:
    grains = [grain for grain, content in model.items() if content]
    rng.shuffle(grains)
    return grains


def cowd(sectors: int, model: Model, grain_sectors: int, seed: int) -> bytes:
    """As ESXi lays vmfsSparse out: tables come when they are first needed, between the grains."""
    image = _Image(random.Random(seed), bytearray(4 * SECTOR))
    table_count = -(-sectors // (4096 * grain_sectors))
    image.put("<4s7I", 0, b"COWD", 1, 3, sectors, grain_sectors, 4, table_count, 0)
    image.data += bytes(-(-table_count * 4 // SECTOR) * SECTOR)
    tables: dict[int, int] = {}
    for grain in _shuffled(model, image.rng):
        number = grain // 4096
        if number not in tables:
            tables[number] = image.reserve(4096 * 4)
            image.put("<I", 4 * SECTOR + number * 4, tables[number] // SECTOR)
        at = image.reserve(grain_sectors * SECTOR)
        image.grain(at, model[grain], grain_sectors * SECTOR)
        image.put("<I", tables[number] + grain % 4096 * 4, at // SECTOR)
    image.put("<I", 28, len(image.data) // SECTOR)
    return bytes(image.data)


def sesparse(sectors: int, model: Model, seed: int) -> bytes:
    """As ESXi lays seSparse out, regions 1 MiB apart or close together; tables in the order of their first grain."""
    rng = random.Random(seed)
    image = _Image(rng, bytearray(2 * SECTOR))
    align = rng.choice([SECTOR, 2048 * SECTOR])
    table_count = -(-sectors // (4096 * 8))
    order: list[int] = []
    for grain in rng.sample(sorted(model), len(model)):
        if grain // 4096 not in order:
            order.append(grain // 4096)
    slots = [*range(len(_shuffled(model, rng)) + 3)]
    rng.shuffle(slots)
    directory_bytes = -(-table_count * 8 // SECTOR) * SECTOR
    directory = image.reserve(directory_bytes, align)
    tables_bytes = (len(order) + 2) * 64 * SECTOR
    tables = image.reserve(tables_bytes, align)
    grains = image.reserve(len(slots) * 4096, align)
    words = [0xCAFEBABE, 0x0000000200000001, sectors, 8, 64, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    words += [directory // SECTOR, directory_bytes // SECTOR, tables // SECTOR, tables_bytes // SECTOR, 0, 0, 0, 0]
    words += [grains // SECTOR, len(slots) * 8]
    image.put("<26Q", 0, *words)
    image.put("<4Q", SECTOR, 0xCAFECAFE, len(order), 9, 0)
    for number, table in enumerate(order):
        image.put("<Q", directory + table * 8, 1 << 60 | number)
    for grain, content in model.items():
        entry = rng.choice([1, 2]) << 60
        if content:
            slot = slots.pop()
            entry = 3 << 60 | (slot & 0xFFF) << 48 | slot >> 12
            image.grain(grains + slot * 4096, content, 4096)
        image.put("<Q", tables + order.index(grain // 4096) * 64 * SECTOR + grain % 4096 * 8, entry)
    return bytes(image.data)


def hosted(sectors: int, model: Model, grain_sectors: int, per_table: int, seed: int, *, mirror: bool) -> bytes:
    """A hosted sparse extent of a split disk: no descriptor inside, tables of any length, directory once or twice."""
    image = _Image(random.Random(seed), bytearray(SECTOR))
    table_count = -(-sectors // (grain_sectors * per_table))
    table_bytes = -(-per_table * 4 // SECTOR) * SECTOR
    copies = []
    for _ in range(2 if mirror else 1):
        directory = image.reserve(table_count * 4)
        tables = [image.reserve(table_bytes) for _ in range(table_count)]
        for number, table in enumerate(tables):
            image.put("<I", directory + number * 4, table // SECTOR)
        copies.append((directory, tables))
    overhead = len(image.data) // SECTOR
    second, first = copies[-1][0] // SECTOR, copies[0][0] // SECTOR if mirror else 0
    flags = 1 | (2 if mirror else 0) | 4
    capacity = image.rng.choice([sectors, -(-sectors // grain_sectors) * grain_sectors])
    fields = (b"KDMV", 2, flags, capacity, grain_sectors, 0, 0, per_table, first, second, overhead, 0, b"\n \r\n", 0)
    image.put("<4sIIQQQQIQQQB4sH", 0, *fields)
    places = {}
    for grain in _shuffled(model, image.rng):
        places[grain] = image.reserve(grain_sectors * SECTOR)
        image.grain(places[grain], model[grain], grain_sectors * SECTOR)
    for grain, content in model.items():
        entry = places[grain] // SECTOR if content else 1
        for _, tables in copies:
            image.put("<I", tables[grain // per_table] + grain % per_table * 4, entry)
    return bytes(image.data)
