"""Hostile disks: a typed error or the right size, never a hang, another exception, or memory without bound.

``VCBPROXY_FUZZ_CASES`` says how many cases each test tries.
"""

import os
import random
import tracemalloc
from contextlib import suppress
from itertools import islice

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vmdk.builders import MemoryFiles, chain, descriptor, hosted, stream
from tests.vmdk.test_descriptor import ESXI, SNAPSHOT
from vcbproxy.device import read
from vcbproxy.errors import SourceError
from vcbproxy.vmdk.chain import open_disk
from vcbproxy.vmdk.descriptor import parse

CASES = int(os.environ.get("VCBPROXY_FUZZ_CASES", "250"))
CELL = 64 << 10
FUZZ = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 1 << 31, 0xFFFFFFFF, 1 << 40, 1 << 63, 0xFFFFFFFFFFFFFFFF]
WORDS = [
    b"RW ",
    b" VMFS ",
    b"..",
    b"/",
    b'"',
    b"=",
    b"\n",
    b"\0",
    b"CID=",
    b"#",
    b"99999999999999999999",
    b"\xff",
    b" ",
]


def swallow(files: MemoryFiles, path: str) -> None:
    """Open, map and read a disk; typed errors are what is hoped for."""
    try:
        with open_disk(files, path) as disk:
            for extent in islice(disk.extents(), 5000):
                read(disk, extent.start, min(extent.length, 2 * CELL))
            if disk.size_bytes:
                read(disk, disk.size_bytes - 1, 1)
    except SourceError as error:
        assert_one_line(error)


def assert_one_line(error: SourceError) -> None:
    assert "\n" not in str(error)


@FUZZ
@given(st.sampled_from([ESXI, SNAPSHOT]), st.data())
def test_mutated_descriptors(text, draw):
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(text)))
        cut = draw.draw(st.integers(0, 12))
        new = draw.draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=6)))
        text = text[:at] + new + text[at + cut :]
    try:
        found = parse(text, "x.vmdk")
    except SourceError as error:
        assert_one_line(error)
    else:
        assert found.sectors > 0
        assert all("/" not in extent.file_name for extent in found.extents)


@FUZZ
@given(st.binary(max_size=600))
def test_random_descriptors(text):
    with suppress(SourceError):
        parse(text, "x.vmdk")


def _monolithic() -> bytes:
    return hosted("A-0B", CELL, text_inside=descriptor("monolithicSparse", ['RW 512 SPARSE "disk.vmdk"']))


def _disks() -> list[tuple[MemoryFiles, str, str]]:
    """(files, descriptor, the file to be damaged)."""
    snapshots = chain(CELL, ("seSparse", "A-0B"), ("vmfsSparse", "-c-d"), ("vmfs", "ABCD"))
    return [
        (snapshots, "vm/disk-0.vmdk", "vm/disk-0-x.vmdk"),
        (snapshots, "vm/disk-0.vmdk", "vm/disk-1-x.vmdk"),
        (snapshots, "vm/disk-0.vmdk", "vm/disk-1.vmdk"),
        (MemoryFiles({"disk.vmdk": _monolithic()}), "disk.vmdk", "disk.vmdk"),
        (MemoryFiles({"disk.vmdk": stream("A-0B", CELL)}), "disk.vmdk", "disk.vmdk"),
    ]


def _metadata_offsets(content: bytes) -> list[int]:
    """Where there is something to damage: not the grains, which are nobody's business here."""
    head = [offset for offset in range(min(len(content), 32 << 10)) if any(content[offset & ~7 : offset | 7])]
    tail = list(range(max(0, len(content) - 4096), len(content)))
    return head + tail


def test_mutated_sparse_files():
    """Bytes and words turned at random, and files cut, in the metadata of each format; by seed, so that it repeats."""
    disks = [(*disk, _metadata_offsets(disk[0].contents[disk[2]])) for disk in _disks()]
    tracemalloc.start()
    for seed in range(CASES * 3):
        rng = random.Random(seed)
        files, path, target, offsets = disks[seed % len(disks)]
        content = bytearray(files.contents[target])
        for _ in range(rng.randint(1, 3)):
            at = rng.choice(offsets)
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    content[at] = rng.randrange(256)
                case 2:
                    at &= ~3
                    size = rng.choice([4, 8])
                    value = rng.choice(INTERESTING) & ((1 << 8 * size) - 1)
                    content[at : at + size] = value.to_bytes(size, "little")
                case 3:
                    del content[rng.randrange(len(content)) :]
                    break
        swallow(MemoryFiles(files.contents | {target: bytes(content)}, files.names, 1 << 16), path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
