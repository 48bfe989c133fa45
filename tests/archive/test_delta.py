"""Delta images: what changed, packed; applied by ours, and with nothing but dd and zstd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline.disks import GRANULE, MappedMemory, data, noise
from vcbproxy.archive.delta import DeltaDevice, DeltaMap, DeltaSink, parse_map
from vcbproxy.device import read
from vcbproxy.errors import IntegrityError
from vcbproxy.extent import Kind
from vcbproxy.pipeline import output
from vcbproxy.pipeline.archive import ImageOptions, image_stream
from vcbproxy.pipeline.unarchive import FilledFile, FreshFile, unpack

SIZE = 40


def map_of(*ranges: tuple[int, int]) -> DeltaMap:
    return DeltaMap(np.array(ranges, np.int64).reshape(-1, 2))


@st.composite
def maps(draw: st.DrawFn) -> DeltaMap:
    edges = sorted(draw(st.sets(st.integers(0, SIZE), max_size=12)))
    return map_of(*zip(edges[::2], edges[1::2], strict=False))


class Text:
    """A sink over text, so that a test is seen at a glance."""

    def __init__(self, text: str) -> None:
        self.content = bytearray(text, "ascii")

    def write_at(self, offset: int, plain: memoryview) -> None:
        self.content[offset : offset + len(plain)] = plain

    def zero_at(self, offset: int, length: int) -> None:
        self.write_at(offset, memoryview(b"0" * length))

    def __str__(self) -> str:
        return self.content.decode("ascii")


def test_ranges_are_packed_and_go_back_to_their_places() -> None:
    changed = map_of((2, 5), (7, 8), (8, 10))
    packed = DeltaDevice(MappedMemory(b"abcdefghijkl", "D"), changed)
    assert read(packed, 0, packed.size_bytes) == b"cdehij"
    assert read(packed, 2, 3) == b"ehi"
    disk = Text("............")
    sink = DeltaSink(disk, changed)
    sink.write_at(2, memoryview(b"EHI"))
    sink.zero_at(0, 1)
    assert str(disk) == "..0.E..HI..."


@given(maps(), st.binary(min_size=SIZE, max_size=SIZE), st.text("D-", min_size=SIZE, max_size=SIZE))
def test_the_packed_disk_knows_what_is_zero(changed: DeltaMap, content: bytes, drawing: str) -> None:
    packed = DeltaDevice(MappedMemory(content, drawing, step=1), changed)
    kinds = [drawing[at] for start, end in changed.ranges.tolist() for at in range(start, end)]
    at = 0
    for extent in packed.extents():
        assert extent.start == at
        assert set(kinds[at : extent.end]) == {"-" if extent.kind is Kind.ZERO else "D"}
        at = extent.end
    assert at == packed.size_bytes == len(kinds)


@given(maps())
def test_a_map_is_read_as_it_was_written(changed: DeltaMap) -> None:
    text = b"".join(changed.encode())
    assert (parse_map(text, SIZE, "map").ranges == changed.ranges).all()


@pytest.mark.parametrize(
    "text",
    [b"0 5", b"0 5\n3 4\n", b"0 0\n", b"-1 5\n", b"0 5 \n", b"00 5\n", b"0x1 5\n", b"36 5\n", b"0 5\r\n", b"\n",
     b"9999999999999999999 1\n", b"0 5\n#\n", "٣ 5\n".encode()],
)  # fmt: skip
def test_a_map_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"map, line \d: "):
        parse_map(text, SIZE, "map")


OLD = data("AbC-DE" * 4) + noise(9, 1000)
NEW = bytearray(OLD)
CHANGED = map_of(
    (0, GRANULE), (3 * GRANULE + 512, 3 * GRANULE + 1024), (8 * GRANULE, 14 * GRANULE), (len(OLD) - 7, len(OLD))
)
for start, end in CHANGED.ranges.tolist():
    NEW[start:end] = noise(start % 97, end - start)
NEW[9 * GRANULE : 13 * GRANULE] = bytes(4 * GRANULE)


def delta_image() -> bytes:
    drawing = "D" * 9 + "-" * 4 + "D" * 12
    source = DeltaDevice(MappedMemory(bytes(NEW), drawing), CHANGED)
    with image_stream(source, lambda: 1, options=ImageOptions(frame_bytes=GRANULE)) as stream:
        return b"".join(stream)


def test_applied_to_its_base_it_gives_the_new_disk(tmp_path: Path) -> None:
    with output.new_file(tmp_path / "disk.raw", len(OLD), overwrite=False) as out:
        FreshFile(out).write_at(0, memoryview(OLD))
        unpack([delta_image()], DeltaSink(FilledFile(out), CHANGED), name="delta")
        out.commit()
    assert (tmp_path / "disk.raw").read_bytes() == NEW


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_dd_and_zstd_apply_it_as_the_module_says(tmp_path: Path) -> None:
    import vcbproxy.archive.delta

    assert vcbproxy.archive.delta.__doc__ is not None
    rule = vcbproxy.archive.delta.__doc__.split("\n\n")[3]
    assert rule.lstrip().startswith("zstd -dc disk.delta.raw.zst")
    (tmp_path / "disk.raw").write_bytes(OLD)
    (tmp_path / "disk.delta.raw.zst").write_bytes(delta_image())
    (tmp_path / "disk.delta.map").write_bytes(b"".join(CHANGED.encode()))
    subprocess.run(["sh", "-eu", "-c", rule], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "disk.raw").read_bytes() == NEW


@settings(max_examples=20, deadline=None)
@given(maps(), st.binary(min_size=SIZE, max_size=SIZE))
def test_any_delta_gives_the_new_disk(changed: DeltaMap, content: bytes) -> None:
    with image_stream(DeltaDevice(MappedMemory(content, "D"), changed), lambda: 1) as stream:
        image = b"".join(stream)
    disk = Text("." * SIZE)
    unpack([image], DeltaSink(disk, changed), name="delta")
    expected = bytearray(b"." * SIZE)
    for start, end in changed.ranges.tolist():
        expected[start:end] = content[start:end]
    assert disk.content.replace(b"0", b"\0") == expected.replace(b"0", b"\0")


def test_an_image_with_more_than_its_map_names_is_damage() -> None:
    """Not a traceback: the disk fails, and the others come back."""
    changed = DeltaMap(np.array([[0, 4], [8, 10]], np.int64))
    assert list(changed.places(2, 4)) == [(2, 2), (8, 2)]
    with pytest.raises(IntegrityError, match="names 6"):
        list(changed.places(2, 5))
