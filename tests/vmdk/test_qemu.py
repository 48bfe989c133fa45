"""QEMU as the judge: it reads what our test writers made, and we read what it makes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.images import data, over, pattern, read_over
from tests.vmdk.builders import MemoryFiles, chain, stream
from vcbproxy.device import Device
from vcbproxy.extent import Kind
from vcbproxy.vmdk.chain import FolderFiles, VirtualDisk, open_disk
from vcbproxy.vmdk.image import open_image

pytestmark = pytest.mark.real
CELL = 64 << 10


def qemu_img(*args: object) -> str:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is missing: apt install qemu-utils")
    return subprocess.run(
        ["qemu-img", *map(str, args)], check=True, capture_output=True, text=True, timeout=60
    ).stdout  # fmt: skip


def written(files: MemoryFiles, folder: Path) -> Path:
    """Lay a VM's folder down for QEMU."""
    for path, content in files.contents.items():
        (folder / Path(path).name).write_bytes(content)
    return folder / "disk-0.vmdk"


def whole(device: Device) -> bytes:
    return read_over(device, 0, device.size_bytes)


def as_qemu_reads(path: Path) -> bytes:
    raw = path.with_suffix(".raw")
    qemu_img("convert", "-f", "vmdk", "-O", "raw", path, raw)
    return raw.read_bytes()


def zero_ranges_of_qemu(path: Path) -> set[int]:
    """The 4 KiB blocks that QEMU's map says are zeroes or of nobody."""
    blocks: set[int] = set()
    for entry in json.loads(qemu_img("map", "--output", "json", "-f", "vmdk", path)):
        if entry["zero"] or not entry.get("present", True):
            blocks.update(range(entry["start"] // 4096, (entry["start"] + entry["length"]) // 4096))
    return blocks


def zero_ranges(disk: VirtualDisk) -> set[int]:
    return {
        block
        for extent in disk.extents()
        if extent.kind is Kind.ZERO
        for block in range(extent.start // 4096, extent.end // 4096)
    }


@pytest.mark.parametrize(
    "links",
    [
        [("seSparse", "A0-B" * 20)],
        [("seSparse", "-b0-"), ("vmfs", "ABCD")],
        [("seSparse", "0-c-"), ("seSparse", "x0-0"), ("seSparse", "--zz"), ("vmfs", "ABCD")],
        [("vmfsSparse", "A-B-" * 20), ("vmfs", "--" * 40)],
        [("vmfsSparse", "c--d"), ("vmfsSparse", "-b-e"), ("vmfs", "ABCD")],
        [("seSparse", "0--a"), ("vmfsSparse", "-b--"), ("vmfs", "ABCD")],
    ],
    ids=lambda links: " over ".join(f"{kind} {text[:8]}" for kind, text in links),
)
def test_qemu_reads_our_chains_as_we_do(links, tmp_path):
    path = written(chain(CELL, *links), tmp_path)
    expected = data(over(*(text for _, text in links)), CELL)
    assert as_qemu_reads(path) == expected
    with open_image(path) as disk:
        assert whole(disk) == expected


@pytest.mark.parametrize("kind", ["seSparse", "vmfsSparse"])
def test_qemu_maps_our_deltas_as_we_do(kind, tmp_path):
    text = "A-B-CCC---D" * 9
    path = written(chain(CELL, (kind, text), ("seSparse", "-" * len(text))), tmp_path)
    with open_image(path) as disk:
        assert zero_ranges(disk) == zero_ranges_of_qemu(path)


def test_qemu_reads_our_stream_as_we_do(tmp_path):
    path = tmp_path / "disk.vmdk"
    path.write_bytes(stream("A0-BC-" * 8, CELL))
    assert as_qemu_reads(path) == data("A0-BC-" * 8, CELL)
    with open_image(path) as disk:
        assert whole(disk) == data("A0-BC-" * 8, CELL)


SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_we_read_what_qemu_writes(subformat, tmp_path):
    content = data("A0-bC-ZZ0d", CELL) + bytes(37 * CELL) + pattern(47 * CELL, 5 * 512, "tail")
    (tmp_path / "raw").write_bytes(content)
    path = tmp_path / "disk.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", tmp_path / "raw", path)
    with open_image(path) as disk:
        assert whole(disk) == content
        assert disk.links[0].kind == subformat
        if "Flat" not in subformat:
            assert zero_ranges(disk) == zero_ranges_of_qemu(path)
    with open_image(tmp_path / "disk.vmdk") as disk:
        assert disk.size_bytes == len(content)


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_we_read_an_empty_disk_of_qemu(subformat, tmp_path):
    path = tmp_path / "disk.vmdk"
    qemu_img("create", "-f", "vmdk", "-o", f"subformat={subformat}", path, "5000M")
    with open_image(path) as disk:
        assert disk.size_bytes == 5000 << 20
        if "Flat" not in subformat:
            assert [extent.kind for extent in disk.extents()] == [Kind.ZERO]
        assert not any(read_over(disk, (5000 << 20) - 5000, 5000))
        assert not any(read_over(disk, (2 << 30) - 5000, 10000))


def test_we_read_snapshots_that_qemu_made(tmp_path):
    """Two overlays of hosted sparse, with zeroed grains in the newest."""
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io is missing: apt install qemu-utils")
    (tmp_path / "raw").write_bytes(data("ABCDEFGH", CELL))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", tmp_path / "raw", tmp_path / "base.vmdk")
    for child, parent in (("mid", "base"), ("top", "mid")):
        options = ["-o", "zeroed_grain=on", "-b", f"{parent}.vmdk", "-F", "vmdk"]
        qemu_img("create", "-f", "vmdk", *options, tmp_path / f"{child}.vmdk")
        commands = ["write -P 0x5a 100k 200k"] if child == "mid" else ["write -P 0x77 10k 1k", "write -z 256k 64k"]
        for command in commands:
            args = ["qemu-io", "-f", "vmdk", "-c", command, str(tmp_path / f"{child}.vmdk")]
            subprocess.run(args, check=True, capture_output=True, timeout=60)
    expected = as_qemu_reads(tmp_path / "top.vmdk")
    assert b"\x77" * 1024 in expected
    assert b"\x5a" * 4096 in expected
    with open_disk(FolderFiles(tmp_path), "top.vmdk") as disk:
        assert len(disk.links) == 3
        assert whole(disk) == expected
