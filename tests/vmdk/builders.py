"""Tiny writers of the sparse formats, for tests alone: in memory, from layouts that can be seen.

They know nothing of the readers; numbers are spelled out here again, from the format notes named there. Grains land in
the file shuffled by a seed, as a guest's random writes leave them.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.images import Cell, layout
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.paths import resolve_inside

SECTOR = 512


def descriptor(
    create_type: str,
    lines: list[str],
    *,
    cid: str = "aaaaaaaa",
    parent_cid: str = "ffffffff",
    parent: str = "",
    extra: str = "",
) -> bytes:
    """A descriptor as ESXi writes it."""
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    body = "\n".join(lines)
    return (
        f'# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID={cid}\nparentCID={parent_cid}\n'
        f'isNativeSnapshot="no"\ncreateType="{create_type}"\n{hint}# Extent description\n{body}\n{extra}'
        '# The Disk Data Base \n#DDB\n\nddb.adapterType = "lsilogic"\nddb.thinProvisioned = "1"\n'
    ).encode()


@dataclass(frozen=True, slots=True)
class Piece:
    """One grain of a format, cut out of a cell."""

    index: int
    letter: str
    content: bytes


def _pieces(cells: list[Cell], grain: int) -> list[Piece]:
    """Cut cells into grains of the format; a cell may be smaller than a grain only if it ends the disk."""
    out: list[Piece] = []
    for cell in cells:
        content = cell.content
        for start in range(0, cell.length, grain):
            part = content[start : start + grain]
            out.append(Piece((cell.start + start) // grain, cell.letter, part.ljust(grain, b"\xee")))
    return out


def _placed(pieces: list[Piece], seed: int) -> dict[int, int]:
    """A slot for each grain that has data, shuffled."""
    here = [piece.index for piece in pieces if piece.letter.isalpha()]
    slots = list(range(len(here)))
    random.Random(seed).shuffle(slots)
    return dict(zip(here, slots, strict=True))


def cowd(text: str, cell: int, *, grain: int = SECTOR, seed: int = 1) -> bytes:
    """A COWD delta. ``0`` has no meaning in it."""
    assert "0" not in text
    pieces = _pieces(layout(text, cell), grain)
    slots = _placed(pieces, seed)
    used = sorted({index // 4096 for index in slots})
    table_count = -(-len(pieces) // 4096)
    tables_start = 4 * SECTOR + -(-table_count * 4 // SECTOR) * SECTOR
    grains_start = tables_start + len(used) * 4096 * 4
    out = bytearray(grains_start + len(slots) * grain)
    sectors = len(text) * cell // SECTOR
    struct.pack_into("<4s7I", out, 0, b"COWD", 1, 3, sectors, grain // SECTOR, 4, table_count, len(out) // SECTOR)
    for number, table in enumerate(used):
        struct.pack_into("<I", out, 4 * SECTOR + table * 4, (tables_start + number * 4096 * 4) // SECTOR)
    for piece in pieces:
        if piece.index in slots:
            at = grains_start + slots[piece.index] * grain
            table_at = tables_start + used.index(piece.index // 4096) * 4096 * 4
            struct.pack_into("<I", out, table_at + piece.index % 4096 * 4, at // SECTOR)
            out[at : at + grain] = piece.content
    return bytes(out)


def sesparse(text: str, cell: int, *, seed: int = 1, unmapped: bool = False) -> bytes:
    """An SE-sparse delta; ``0`` is a zeroed grain, or one that the guest unmapped."""
    pieces = _pieces(layout(text, cell), 4096)
    slots = _placed(pieces, seed)
    present = sorted({piece.index // 4096 for piece in pieces if piece.letter != "-"})
    random.Random(seed).shuffle(present)
    directory_sectors = 1 + len(pieces) // 4096 // 64
    directory, tables = 8, 8 + directory_sectors
    grains = tables + 64 * max(1, len(present))
    grain_room = 8 * max(1, len(slots))
    out = bytearray((grains + 8 * len(slots)) * SECTOR)
    words = [0xCAFEBABE, 0x0000000200000001, len(text) * cell // SECTOR, 8, 64, 0, 0, 0, 0, 0]
    words += [1, 1, 2, 2, 4, 4, directory, directory_sectors, tables, 64 * max(1, len(present)), 0, 0, 0, 0]
    words += [grains, grain_room]
    struct.pack_into("<26Q", out, 0, *words)
    struct.pack_into("<4Q", out, SECTOR, 0xCAFECAFE, len(present), 7, 0)
    for number, table in enumerate(present):
        struct.pack_into("<Q", out, directory * SECTOR + table * 8, 0x1000000000000000 | number)
    for piece in pieces:
        if piece.letter == "-":
            continue
        entry = (1 if unmapped else 2) << 60
        if piece.index in slots:
            slot = slots[piece.index]
            entry = 3 << 60 | (slot & 0xFFF) << 48 | slot >> 12
            at = grains * SECTOR + slot * 4096
            out[at : at + 4096] = piece.content
        struct.pack_into(
            "<Q", out, (tables + 64 * present.index(piece.index // 4096)) * SECTOR + piece.index % 4096 * 8, entry
        )
    return bytes(out)


def hosted(text: str, cell: int, *, seed: int = 1, text_inside: bytes = b"", mirror: bool = True) -> bytes:
    """A hosted sparse extent with grains of 64 KiB and zeroed grains, tables twice."""
    grain = 128 * SECTOR
    pieces = _pieces(layout(text, cell), grain)
    slots = _placed(pieces, seed)
    table_count = -(-len(pieces) // 512)
    directory_sectors = -(-table_count * 4 // SECTOR)
    half = directory_sectors + table_count * 4
    first = 21
    overhead = first + half * (2 if mirror else 1)
    out = bytearray((overhead + len(slots) * 128) * SECTOR)
    flags = 1 | 4 | (2 if mirror else 0)
    sectors = len(text) * cell // SECTOR
    second = first + half if mirror else first
    header = (b"KDMV", 2, flags, sectors, 128, 1, 20, 512, first if mirror else 0, second, overhead, 0, b"\n \r\n", 0)
    struct.pack_into("<4sIIQQQQIQQQB4sH", out, 0, *header)
    out[SECTOR : SECTOR + len(text_inside)] = text_inside
    for start in {first, second}:
        for table in range(table_count):
            struct.pack_into("<I", out, start * SECTOR + table * 4, start + directory_sectors + table * 4)
        for piece in pieces:
            entry = 1 if piece.letter == "0" else 0
            if piece.index in slots:
                entry = overhead + slots[piece.index] * 128
                out[entry * SECTOR : (entry + 128) * SECTOR] = piece.content
            struct.pack_into("<I", out, (start + directory_sectors) * SECTOR + piece.index * 4, entry)
    return bytes(out)


def stream(text: str, cell: int, *, name: str = "disk.vmdk") -> bytes:
    """A streamOptimized disk as a server streams it: the directory is found by the footer."""
    grain = 128 * SECTOR
    sectors = len(text) * cell // SECTOR
    inside = descriptor("streamOptimized", [f'RDONLY {sectors} SPARSE "{name}"'])

    def header(directory: int) -> bytes:
        fields = (b"KDMV", 3, 0x30001, sectors, 128, 1, 20, 512, 0, directory, 128, 0, b"\n \r\n", 1)
        return struct.pack("<4sIIQQQQIQQQB4sH", *fields).ljust(SECTOR, b"\0")

    def marker(value: int, kind: int) -> bytes:
        return struct.pack("<QII", value, 0, kind).ljust(SECTOR, b"\0")

    out = bytearray(header(0xFFFFFFFFFFFFFFFF) + inside)
    out += bytes(128 * SECTOR - len(out))
    pieces = _pieces(layout(text, cell), grain)
    entries = [0] * (-(-len(pieces) // 512) * 512)
    for piece in pieces:
        if piece.letter.isalpha():
            entries[piece.index] = len(out) // SECTOR
            packed = zlib.compress(piece.content)
            out += struct.pack("<QI", piece.index * 128, len(packed)) + packed
            out += bytes(-len(out) % SECTOR)
    directory = []
    for start in range(0, len(entries), 512):
        out += marker(4, 1)
        directory.append(len(out) // SECTOR)
        out += struct.pack("<512I", *entries[start : start + 512])
    out += marker(1, 2)
    place = len(out) // SECTOR
    out += struct.pack(f"<{len(directory)}I", *directory).ljust(SECTOR, b"\0")
    return bytes(out + marker(1, 3) + header(place) + marker(0, 0))


@dataclass
class MemoryFiles:
    """A datastore in memory, by path."""

    contents: dict[str, bytes] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    granule_bytes: int = 512
    wrap: Callable[[MemoryDevice], MemoryDevice] = lambda device: device

    def open(self, path: str) -> MemoryDevice:
        if path not in self.contents:
            raise VmdkError(file=path, reason="no such file")
        return self.wrap(MemoryDevice(self.contents[path], path, self.granule_bytes))

    def resolve(self, base_path: str, reference: str) -> str:
        return resolve_inside(base_path, reference, self.names)


def chain(cell: int, *links: tuple[str, str], seed: int = 1) -> MemoryFiles:
    """A VM's folder ``vm`` with a chain, newest first: ``chain(4096, ("seSparse", "-A0-"), ("vmfs", "BB-B"))``.

    The newest link is ``vm/disk-0.vmdk``; its CID is 0, the parent's 1, ...
    """
    files = MemoryFiles()
    words = {"seSparse": "SESPARSE", "vmfsSparse": "VMFSSPARSE", "vmfs": "VMFS", "monolithicSparse": "SPARSE"}
    for number, (create_type, text) in enumerate(links):
        is_base = number == len(links) - 1
        files.contents[f"vm/disk-{number}.vmdk"] = descriptor(
            create_type,
            [f'RW {len(text) * cell // SECTOR} {words[create_type]} "disk-{number}-x.vmdk"'],
            cid=f"{number:08x}",
            parent_cid="ffffffff" if is_base else f"{number + 1:08x}",
            parent="" if is_base else f"disk-{number + 1}.vmdk",
        )
        files.contents[f"vm/disk-{number}-x.vmdk"] = extent_bytes(create_type, text, cell, seed + number)
    return files


def extent_bytes(create_type: str, text: str, cell: int, seed: int = 1) -> bytes:
    """The extent file of a link."""
    if create_type == "seSparse":
        return sesparse(text, cell, seed=seed)
    if create_type == "vmfsSparse":
        return cowd(text, cell, seed=seed)
    if create_type == "monolithicSparse":
        return hosted(text, cell, seed=seed)
    return b"".join(piece.content for piece in layout(text, cell))
