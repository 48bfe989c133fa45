"""What the lab's tests share: stores to put disks on, and a way to hand their files to qemu-img."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from vcbproxy.lab.chain import Chain
from vcbproxy.lab.descriptor import ExtentKind
from vcbproxy.lab.state import DiskState
from vcbproxy.lab.store import FolderStore, Store
from vcbproxy.lab.vmfs import Allocation, LabVolume, VolumeSpec
from vcbproxy.units import MiB


def new_store(where: str, folder: Path) -> Store:
    """``nfs``, ``vmfs3``, ``vmfs5`` or ``vmfs6``."""
    if where == "nfs":
        return FolderStore(folder)
    version = {"vmfs3": 3, "vmfs5": 5, "vmfs6": 6}[where]
    return LabVolume.create([folder / f"{where}.img"], VolumeSpec(version=version, size_bytes=512 * MiB))


def close(store: Store) -> None:
    if isinstance(store, LabVolume):
        store.close()


def new_chain(
    store: Store, kind: ExtentKind, size_bytes: int, *, allocation: Allocation = Allocation.THIN, name: str = "d"
) -> Chain:
    """A disk in a folder of its own."""
    numbers = iter(range(1, 1000))
    store.mkdir(f"/{name}")
    disk = DiskState("scsi0-0", 2000, "Hard disk 1", "ds", size_bytes, allocation, bytes(16).hex(), [])
    return Chain.create(store, disk, kind, lambda: f"{next(numbers):07x}0", f"/{name}/{name}.vmdk")


def qemu_img(*arguments: str | Path) -> str:
    """Run it; skip where it is missing."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_qemu_sees(chain: Chain, folder: Path) -> bytes:
    """The whole disk, read by QEMU from the files of the chain."""
    folder.mkdir()
    for link in chain.disk.links:
        for path in (link.path, link.extent_path):
            copy_out(chain.store, path, folder / path.rpartition("/")[2])
    top = folder / chain.disk.live.path.rpartition("/")[2]
    qemu_img("convert", "-f", "vmdk", "-O", "raw", top, folder / "out.raw")
    content = (folder / "out.raw").read_bytes()
    shutil.rmtree(folder)
    return content


def copy_out(store: Store, path: str, to: Path) -> None:
    """A file of the datastore, sparse."""
    with to.open("wb") as file:
        for offset, length in store.data_ranges(path):
            file.seek(offset)
            file.write(store.read(path, offset, length))
        file.truncate(store.size(path))


def random_range(chance: random.Random, size_bytes: int, grain: int, grains_max: int) -> tuple[int, int]:
    """(offset, length) in whole grains."""
    grains = size_bytes // grain
    first = chance.randrange(grains)
    return first * grain, min(chance.randint(1, grains_max), grains - first) * grain
