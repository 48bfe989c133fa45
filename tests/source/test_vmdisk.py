"""A frozen disk on a volume: opened as the manager says it is, and looked at again after the copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.images import read_over
from vcbproxy.clock import ManualClock
from vcbproxy.device import read
from vcbproxy.errors import Changed, Relocked, VmdkError
from vcbproxy.lab.descriptor import Descriptor, ExtentKind
from vcbproxy.lab.sesparse import SeSparseFile
from vcbproxy.lab.vmfs import LabVolume, Layout, VolumeSpec
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.san.lun import open_lun
from vcbproxy.source.storage import Storage
from vcbproxy.source.vmdisk import open_vm_disk
from vcbproxy.units import MiB
from vcbproxy.vmfs.volume import Volume

WWN = "600144f0000000000000000000000001"
SIZE = 4 * MiB
VOLUME_START = 0x1100000  # on the first device
TOKEN, METADATA, LENGTH = 0x1C, 512, 0x14  # in a file descriptor; the last in its metadata
BASE, DELTA = "/vm1/vm1.vmdk", "/vm1/vm1-000001.vmdk"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A VM's disk under one snapshot: a delta over a flat base, on an image file."""

    image: Path
    storage: Storage
    disk: Disk

    def rewrite(self, path: str, old: bytes, new: bytes) -> None:
        """Change bytes of a file where they lie, behind the back of the file system's metadata."""
        assert len(old) == len(new)
        with open_lun(self.image) as lun:
            file = Volume.open([lun]).open_file(path)
            at = read_over(file, 0, file.size_bytes).index(old)
            [run] = list(file.runs().between(at, len(old)))
        with self.image.open("r+b") as image:
            image.seek(run.device_offset)
            image.write(new)

    def relock(self, path: str) -> None:
        """Let the lock of a file go through another host's hands: its token rises."""
        with open_lun(self.image) as lun:
            volume = Volume.open([lun])
            at = VOLUME_START + volume.tree().find(path).offset + TOKEN
            token = int.from_bytes(read(lun, at, 8), "little")
        with self.image.open("r+b") as image:
            image.seek(at)
            image.write((token + 1).to_bytes(8, "little"))


@pytest.fixture(params=[Layout.RESIDENT, Layout.SUB_BLOCK])
def frozen(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Frozen]:
    image = tmp_path / "lun0.img"
    with LabVolume.create([image], VolumeSpec(5, "ds1")) as volume:
        volume.mkdir("/vm1")
        volume.create_file("/vm1/vm1-flat.vmdk", data=b"base" * (SIZE // 4))
        base = Descriptor(ExtentKind.FLAT, "vm1-flat.vmdk", SIZE, "0000000a").text().encode()
        volume.create_file(BASE, data=base, layout=request.param)
        SeSparseFile.create(volume, "/vm1/vm1-000001-sesparse.vmdk", SIZE).write(MiB, b"new!" * 1024)
        top = Descriptor(ExtentKind.SESPARSE, "vm1-000001-sesparse.vmdk", SIZE, "0000000b", "0000000a", "vm1.vmdk")
        volume.create_file(DELTA, data=top.text().encode(), layout=request.param)
        uuid = volume.uuid
    datastore = Datastore(
        moref="datastore-1",
        name="ds1",
        kind=DatastoreKind.VMFS,
        url=f"ds:///vmfs/volumes/{uuid}/",
        capacity_bytes=1,
        free_bytes=1,
        accessible=True,
        vmfs_uuid=uuid,
        extents=(VmfsExtent(f"naa.{WWN}", 1),),
    )
    disk = Disk(
        key="scsi0-0",
        device_key=2000,
        label="Hard disk 1",
        path=DatastorePath.parse(f"[ds1] {DELTA[1:]}"),
        capacity_bytes=SIZE,
        kind=DiskKind.SESPARSE,
        mode="persistent",
        shared=False,
        encrypted=False,
        change_id=None,
        datastore="ds1",
        parents=(DatastorePath.parse(f"[ds1] {BASE[1:]}"),),
    )
    with Storage([datastore], configured([ImageLun(image, WWN)]), {}) as storage:
        yield Frozen(image, storage, disk)


class Settling(ManualClock):
    """While one waits, the hosts write down what they had in their journals."""

    def __init__(self, settles: Callable[[], None]) -> None:
        super().__init__()
        self.settles = settles

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.settles()


def test_a_delta_that_grew_as_it_was_frozen_is_looked_at_again(frozen: Frozen):
    """Its table is on the LUN already, its length not yet: the grain would lie behind the file's end."""
    extent = "/vm1/vm1-000001-sesparse.vmdk"
    with open_lun(frozen.image) as lun:
        volume = Volume.open([lun])
        length = volume.stat(extent).size_bytes
        at = VOLUME_START + volume.tree().find(extent).offset + METADATA + LENGTH

    def put(number: int) -> None:
        with frozen.image.open("r+b") as image:
            image.seek(at)
            image.write(number.to_bytes(8, "little"))

    put(length - 4096)
    with open_vm_disk(frozen.storage, frozen.disk, Settling(lambda: put(length))) as disk:
        assert read_over(disk, MiB, 4096) == b"new!" * 1024
        disk.recheck()
    put(length - 4096)
    with pytest.raises(VmdkError, match="grain 256 would lie at"):
        open_vm_disk(frozen.storage, frozen.disk, ManualClock())


def test_a_disk_that_stayed_as_it_was(frozen: Frozen):
    with open_vm_disk(frozen.storage, frozen.disk, ManualClock()) as disk:
        assert read_over(disk, 0, SIZE) == b"base" * (MiB // 4) + b"new!" * 1024 + b"base" * ((3 * MiB - 4096) // 4)
        assert disk.links == ("[ds1] vm1/vm1-000001.vmdk", "[ds1] vm1/vm1.vmdk")
        disk.recheck()


def test_a_parent_whose_cid_was_rewritten_in_place(frozen: Frozen):
    """Same length, same place, same second: no stamp of the volume tells."""
    with open_vm_disk(frozen.storage, frozen.disk, ManualClock()) as disk:
        frozen.rewrite(BASE, b"CID=0000000a", b"CID=0000000c")
        with pytest.raises(Changed, match=r"changed while it was read: its (descriptor|bytes, which lie)"):
            disk.recheck()


def test_a_delta_whose_table_reached_the_lun_late(frozen: Frozen):
    with open_vm_disk(frozen.storage, frozen.disk, ManualClock()) as disk:
        list(disk.extents())
        first = (3 << 60).to_bytes(8, "little")
        frozen.rewrite("/vm1/vm1-000001-sesparse.vmdk", first + bytes(8), bytes(8) + first)
        with pytest.raises(Changed, match="grain table 0 was rewritten"):
            disk.recheck()


@pytest.mark.parametrize("path", [BASE, "/vm1/vm1-flat.vmdk", DELTA])
def test_a_lock_that_changed_hands_is_told(frozen: Frozen, path: str):
    with open_vm_disk(frozen.storage, frozen.disk, ManualClock()) as disk:
        frozen.relock(path)
        with pytest.raises(Relocked, match=f"{path[5:]}: its lock changed hands"):
            disk.recheck()


def test_a_lock_that_changed_hands_hides_no_change(frozen: Frozen):
    with open_vm_disk(frozen.storage, frozen.disk, ManualClock()) as disk:
        frozen.rewrite(BASE, b"CID=0000000a", b"CID=0000000c")
        frozen.relock("/vm1/vm1-flat.vmdk")
        with pytest.raises(Changed) as caught:
            disk.recheck()
        assert type(caught.value) is Changed


@pytest.mark.parametrize(
    "parents", [["vm1/vm1-000002.vmdk"], ["vm1/vm1-000002.vmdk", "vm1/vm1.vmdk"], ["vm1/vm1.vmdk", "vm1/base.vmdk"]]
)
def test_a_chain_that_is_not_the_managers_is_refused(frozen: Frozen, parents: list[str]):
    """Another chain than the one the host runs would read as another disk."""
    other = replace(frozen.disk, parents=tuple(DatastorePath("ds1", path) for path in parents))
    with pytest.raises(VmdkError, match=r"its parents are .*vm1/vm1\.vmdk.*; the manager says "):
        open_vm_disk(frozen.storage, other, ManualClock())


def test_another_capacity_than_the_managers_is_refused(frozen: Frozen):
    with pytest.raises(VmdkError, match=r"it holds 4194304 bytes, the manager says 4194816"):
        open_vm_disk(frozen.storage, replace(frozen.disk, capacity_bytes=SIZE + 512), ManualClock())
