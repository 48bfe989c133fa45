"""QEMU and we on the same files: chains that it wrote at random, and chains that were damaged at random.

A damaged chain may be refused by either. What must never be: that we read other bytes than QEMU does and say nothing.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images import pattern
from tests.vmdk.builders import MemoryFiles, chain, descriptor, hosted, stream
from tests.vmdk.test_fuzz import INTERESTING, assert_one_line
from tests.vmdk.test_qemu import SUBFORMATS, as_qemu_reads, qemu_img, whole
from vcbproxy.errors import SourceError, VmdkError
from vcbproxy.extent import Kind
from vcbproxy.vmdk.image import open_image

pytestmark = pytest.mark.real
CASES = int(os.environ.get("VCBPROXY_FUZZ_CASES", "250"))
CELL = 64 << 10
SECTOR = 512
OVERLAYS = ["monolithicSparse", "twoGbMaxExtentSparse"]


def qemu_io(path: Path, *commands: str) -> None:
    if shutil.which("qemu-io") is None:
        pytest.skip("qemu-io is missing: apt install qemu-utils")
    args = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "vmdk", *args, str(path)], check=True, capture_output=True, timeout=60)


def commands(rng: random.Random, sectors: int) -> list[str]:
    """Writes and zeroes of any alignment; some to the very end."""
    out = []
    for _ in range(rng.randint(1, 8)):
        start = rng.randrange(sectors)
        length = min(rng.choice([1, 2, 127, 128, 300]), sectors - start)
        if rng.random() < 0.2:
            start = sectors - length
        what = "write -z" if rng.random() < 0.3 else f"write -P {rng.randrange(1, 256)}"
        out.append(f"{what} {start * SECTOR} {length * SECTOR}")
    return out


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_we_read_chains_that_qemu_wrote_at_random(subformat: str, seed: int, tmp_path: Path):
    """Over a base of each subformat, of a capacity that is no multiple of a grain; some links with zeroed grains."""
    rng = random.Random(f"{subformat} {seed}")
    sectors = rng.choice([rng.randint(1, 9000), 128 * rng.randint(1, 50) + rng.choice([-1, 1])])
    content = bytearray(pattern(0, sectors * SECTOR, seed))
    for _ in range(4):
        hole = rng.randrange(sectors) * SECTOR
        content[hole : hole + 300 * SECTOR] = bytes(len(content[hole : hole + 300 * SECTOR]))
    (tmp_path / "raw").write_bytes(content)
    qemu_img(
        "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", tmp_path / "raw", tmp_path / "0.vmdk"
    )
    for number in range(1, rng.randint(2, 4)):
        path = tmp_path / f"{number}.vmdk"
        options = f"subformat={rng.choice(OVERLAYS)},zeroed_grain={rng.choice(['on', 'off'])}"
        qemu_img("create", "-f", "vmdk", "-o", options, "-b", f"{number - 1}.vmdk", "-F", "vmdk", path)
        qemu_io(path, *commands(rng, sectors))
    expected = as_qemu_reads(path)
    assert len(expected) == sectors * SECTOR
    with open_image(path) as disk:
        assert whole(disk) == expected
        zeroes = [extent for extent in disk.extents() if extent.kind is Kind.ZERO]
        assert all(not any(expected[extent.start : extent.end]) for extent in zeroes)
        disk.recheck()


@pytest.mark.parametrize("subformat", SUBFORMATS)
@pytest.mark.parametrize("more", [1, 128, 5000])
def test_a_child_that_qemu_made_larger_or_smaller_than_its_parent_is_refused(subformat: str, more: int, tmp_path: Path):
    """QEMU reads zeroes behind a shorter parent. ESXi makes no such chain: which of the two is wrong is not known."""
    for name, size in (("small", 6400), ("large", 6400 + more)):
        qemu_img("create", "-f", "vmdk", "-o", f"subformat={subformat}", tmp_path / f"{name}.vmdk", size * SECTOR)
    for parent, size in (("small", 6400 + more), ("large", 6400)):
        child = tmp_path / f"on-{parent}.vmdk"
        qemu_img("create", "-f", "vmdk", "-b", f"{parent}.vmdk", "-F", "vmdk", child, size * SECTOR)
        with pytest.raises(VmdkError, match=f"it has {size * SECTOR} bytes, but its parent {parent}.vmdk has"):
            open_image(child)


@dataclass(frozen=True)
class Subject:
    """A disk, and those of its files that are damaged."""

    name: str
    files: MemoryFiles
    top: str
    targets: tuple[str, ...]


def subjects() -> list[Subject]:
    deltas = chain(CELL, ("seSparse", "A-0B"), ("vmfsSparse", "-c-d"), ("vmfs", "ABCD"))
    flat = {Path(path).name: content for path, content in deltas.contents.items()}
    inside = descriptor("monolithicSparse", ['RW 512 SPARSE "disk.vmdk"'])
    one = {"disk.vmdk": hosted("A-0B", CELL, text_inside=inside)}
    single = {"disk.vmdk": hosted("A-0B", CELL, text_inside=inside, mirror=False)}
    packed = {"disk.vmdk": stream("A-0B", CELL)}
    return [
        Subject("deltas", MemoryFiles(flat), "disk-0.vmdk", ("disk-0-x.vmdk", "disk-1-x.vmdk", "disk-1.vmdk")),
        Subject("hosted", MemoryFiles(one), "disk.vmdk", ("disk.vmdk",)),
        Subject("hosted without a mirror", MemoryFiles(single), "disk.vmdk", ("disk.vmdk",)),
        Subject("stream", MemoryFiles(packed), "disk.vmdk", ("disk.vmdk",)),
    ]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to three bytes or words turned, where there is something to turn; or the end cut off."""
    out = bytearray(content)
    used = [at for at in range(0, min(len(out) - 4, 40 << 10), 4) if any(out[at : at + 4])]
    used += range(max(0, len(out) - 2048), len(out) - 4, 4)
    for _ in range(rng.randint(1, 3)):
        at = rng.choice(used)
        match rng.randrange(5):
            case 0:
                out[at + rng.randrange(4)] ^= 1 << rng.randrange(8)
            case 1:
                struct.pack_into("<I", out, at, rng.choice(INTERESTING) & 0xFFFFFFFF)
            case 2:
                struct.pack_into("<I", out, at, struct.unpack_from("<I", out, rng.choice(used))[0])
            case 3:
                old = struct.unpack_from("<I", out, at)[0]
                struct.pack_into("<I", out, at, old + rng.choice([-128, -8, -1, 1, 8, 128]) & 0xFFFFFFFF)
            case 4 if rng.random() < 0.2:
                return bytes(out[: rng.randrange(len(out))])
    return bytes(out)


def ours(path: Path) -> bytes | None:
    """What we read, or None: refused."""
    try:
        with open_image(path) as disk:
            content = whole(disk)
            for extent in disk.extents():
                assert extent.kind is Kind.DATA or not any(content[extent.start : extent.end])
            return content
    except SourceError as error:
        assert_one_line(error)
        return None


def qemus(path: Path) -> bytes | None:
    """What QEMU reads, or None: refused."""
    try:
        return as_qemu_reads(path)
    except subprocess.CalledProcessError:
        return None


@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_of_damaged_chains_we_never_read_other_bytes_than_qemu(subject: Subject, tmp_path: Path):
    read = 0
    for seed in range(CASES // 4):
        rng = random.Random(f"{subject.name} {seed}")
        target = rng.choice(subject.targets)
        contents = subject.files.contents | {target: damaged(subject.files.contents[target], rng)}
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        found = ours(tmp_path / subject.top)
        if found is None:
            continue
        read += 1
        theirs = qemus(tmp_path / subject.top)
        assert theirs is None or theirs == found, f"seed {seed}: {target}"
    assert read, "every single one was refused: the damage is too coarse to say anything"
