"""Sizes that nobody can hold: maps are streamed, caches are bounded, and a huge empty disk costs nothing."""

import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.images import read_over
from tests.vmdk.builders import descriptor
from vcbproxy.extent import Extent, Kind
from vcbproxy.vmdk.image import open_image

TIB = 1 << 40


def sparse_cowd(path: Path, size_bytes: int, tables: int) -> None:
    """A COWD delta with one-sector grains: ``tables`` full tables, grains pairwise swapped, in a file of holes."""
    count = -(-size_bytes // (4096 * 512))
    first = 4 + -(-count * 4 // 512)
    grains = first + tables * 32
    with path.open("wb") as out:
        end = (grains + tables * 4096) * 512
        out.truncate(end)
        out.write(struct.pack("<4s7I", b"COWD", 1, 3, size_bytes // 512, 1, 4, count, 0))
        out.seek(4 * 512)
        out.write(struct.pack(f"<{tables}I", *(first + 32 * table for table in range(tables))))
        for table in range(tables):
            out.seek((first + 32 * table) * 512)
            base = grains + table * 4096
            out.write(struct.pack("<4096I", *(base + (grain ^ 1) for grain in range(4096))))


@pytest.fixture
def two_tib(tmp_path: Path) -> Path:
    sectors = 2 * TIB // 512 - 2048
    sparse_cowd(tmp_path / "x-delta.vmdk", sectors * 512, tables=500)
    line = f'RW {sectors} VMFSSPARSE "x-delta.vmdk"'
    text = descriptor("vmfsSparse", [line], parent_cid="00000001", parent="base.vmdk")
    (tmp_path / "x.vmdk").write_bytes(text)
    (tmp_path / "base.vmdk").write_bytes(descriptor("vmfs", [f"RW {sectors} ZERO"], cid="00000001"))
    return tmp_path / "x.vmdk"


def test_the_map_of_a_2_tib_delta_streams_in_bounded_memory(two_tib):
    tracemalloc.start()
    started = time.process_time()
    with open_image(two_tib) as disk:
        found = list(disk.extents())
    elapsed = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    data_bytes = 500 * 4096 * 512
    assert found == [
        Extent(0, data_bytes, Kind.DATA),
        Extent(data_bytes, disk.size_bytes - data_bytes, Kind.ZERO),
    ]
    assert peak < 40 << 20
    assert elapsed < 10


def test_reading_all_over_a_delta_keeps_the_cache_bounded(two_tib):
    tracemalloc.start()
    with open_image(two_tib) as disk:
        for table in range(500):
            read_over(disk, table * 4096 * 512 + 700, 3000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20


def test_a_62_tib_empty_delta_costs_its_directory(tmp_path):
    """4 M tables might exist; the directory of 31 MiB is read in pages, and is all that is read."""
    sectors = 62 * TIB // 512
    tables = -(-sectors // (8 * 4096))
    directory_sectors = -(-tables * 8 // 512)
    end = (8 + directory_sectors + 64) * 512
    with (tmp_path / "x-sesparse.vmdk").open("wb") as out:
        out.truncate(end)
        regions = [1, 1, 2, 2, 4, 4, 8, directory_sectors, 8 + directory_sectors, 64, 0, 0, 0, 0, end // 512, 0]
        out.write(struct.pack("<26Q", 0xCAFEBABE, 0x0000000200000001, sectors, 8, 64, 0, 0, 0, 0, 0, *regions))
        out.seek(512)
        out.write(struct.pack("<4Q", 0xCAFECAFE, 0, 1, 0))
    (tmp_path / "x.vmdk").write_bytes(descriptor("seSparse", [f'RW {sectors} SESPARSE "x-sesparse.vmdk"']))
    tracemalloc.start()
    with open_image(tmp_path / "x.vmdk") as disk:
        assert list(disk.extents()) == [Extent(0, 62 * TIB, Kind.ZERO)]
        assert not any(read_over(disk, 61 * TIB, 100_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 << 20
