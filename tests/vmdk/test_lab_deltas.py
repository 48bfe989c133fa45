"""The lab's simulated host writes deltas; we, and QEMU, read in them what it wrote. The two share no code."""

import random
import shutil
import subprocess

import pytest

from tests.images import read_over
from vcbproxy.extent import Kind
from vcbproxy.lab.cowd import CowdFile
from vcbproxy.lab.descriptor import Descriptor, ExtentKind
from vcbproxy.lab.sesparse import SeSparseFile
from vcbproxy.lab.store import FolderStore
from vcbproxy.vmdk.image import open_image

SIZE = 16 << 20


@pytest.mark.parametrize("kind", [ExtentKind.COWD, ExtentKind.SESPARSE])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_chain_written_by_the_lab(kind, seed, tmp_path):
    rng = random.Random(seed)
    truth = bytearray(rng.randbytes(1 << 20) * (SIZE >> 20))
    store = FolderStore(tmp_path)
    store.create_file("/w-flat.vmdk", data=bytes(truth))
    store.create_file("/w.vmdk", data=Descriptor(ExtentKind.FLAT, "w-flat.vmdk", SIZE, "0000000a").text().encode())
    for number, (cid, parent_cid, parent) in enumerate([("b", "a", "w"), ("c", "b", "w-0")]):
        name = f"w-{number}-delta.vmdk"
        if kind is ExtentKind.COWD:
            delta: CowdFile | SeSparseFile = CowdFile.create(store, f"/{name}", SIZE, f"{parent}.vmdk")
        else:
            delta = SeSparseFile.create(store, f"/{name}", SIZE)
        for _ in range(40):
            length = rng.randint(1, 60) * 4096
            at = rng.randrange((SIZE - length) // 4096) * 4096
            if rng.random() < 0.3:
                delta.zero(at, length)
                truth[at : at + length] = bytes(length)
            else:
                content = rng.randbytes(length)
                delta.write(at, content)
                truth[at : at + length] = content
        facts = Descriptor(kind, name, SIZE, f"{cid:0>8}", f"{parent_cid:0>8}", f"{parent}.vmdk")
        store.create_file(f"/w-{number}.vmdk", data=facts.text().encode())
    with open_image(tmp_path / "w-1.vmdk") as disk:
        assert [link.kind for link in disk.links][-1] == "vmfs"
        assert read_over(disk, 0, SIZE) == truth
        zeroes = [extent for extent in disk.extents() if extent.kind is Kind.ZERO]
        assert bool(zeroes) == (kind is ExtentKind.SESPARSE)  # COWD has no way to say so
        assert all(not any(truth[extent.start : extent.end]) for extent in zeroes)
    if shutil.which("qemu-img"):
        args = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(tmp_path / "w-1.vmdk"), str(tmp_path / "raw")]
        subprocess.run(args, check=True, timeout=60)
        assert (tmp_path / "raw").read_bytes() == truth
