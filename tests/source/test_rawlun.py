"""The LUN behind a raw device mapping: three say which it is, and all must say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.eligibility import refusals
from tests.images import read_over
from vcbproxy.clock import ManualClock
from vcbproxy.errors import Changed, SourceError, VmdkError, VmfsError
from vcbproxy.lab.descriptor import Descriptor, ExtentKind
from vcbproxy.lab.sesparse import SeSparseFile
from vcbproxy.lab.state import lun_uuid
from vcbproxy.lab.vmfs import LabVolume, VolumeSpec
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind, RawLun
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.san.info import LunInfo
from vcbproxy.source.storage import Storage
from vcbproxy.source.vmdisk import VmDisk, open_vm_disk
from vcbproxy.units import MiB

VMFS, RAW, OTHER = (f"600144f000000000000000000000000{n}" for n in "123")
SIZE = 4 * MiB
DESCRIPTOR, MAPPING = "/vm1/vm1.vmdk", "/vm1/vm1-rdm.vmdk"


@dataclass(slots=True)
class Site:
    """A volume with a mapping and a delta over it, and the LUN that it maps."""

    folder: Path
    volume: LabVolume
    datastore: Datastore
    disk: Disk

    def luns(self, *more: ImageLun) -> list[LunInfo]:
        return configured([ImageLun(self.folder / "vmfs.img", VMFS), ImageLun(self.folder / "raw.img", RAW), *more])

    def storage(self, luns: list[LunInfo] | None = None) -> Storage:
        return Storage([self.datastore], self.luns() if luns is None else luns, {})

    def opened(self, storage: Storage, **changes: object) -> VmDisk:
        return open_vm_disk(storage, replace(self.disk, **changes), ManualClock())  # type: ignore[arg-type]


@pytest.fixture(params=[5, 6])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    (tmp_path / "raw.img").write_bytes(b"base" * (SIZE // 4))
    with LabVolume.create([tmp_path / "vmfs.img"], VolumeSpec(request.param, "ds1")) as volume:
        volume.mkdir("/vm1")
        volume.rdm(MAPPING, RAW, SIZE)
        volume.create_file(
            DESCRIPTOR, data=Descriptor(ExtentKind.RDM, "vm1-rdm.vmdk", SIZE, "0000000a").text().encode()
        )
        SeSparseFile.create(volume, "/vm1/vm1-000001-sesparse.vmdk", SIZE).write(MiB, b"new!" * 1024)
        top = Descriptor(ExtentKind.SESPARSE, "vm1-000001-sesparse.vmdk", SIZE, "0000000b", "0000000a", "vm1.vmdk")
        volume.create_file("/vm1/vm1-000001.vmdk", data=top.text().encode())
        datastore = Datastore(
            "datastore-1", "ds1", DatastoreKind.VMFS, "", 1, 1, accessible=True, vmfs_uuid=volume.uuid,
            extents=(VmfsExtent(f"naa.{VMFS}", 1),),
        )  # fmt: skip
        disk = Disk(
            "scsi0-0", 2000, "Hard disk 1", DatastorePath("ds1", "vm1/vm1-000001.vmdk"), SIZE, DiskKind.RDM_VIRTUAL,
            "persistent", shared=False, encrypted=False, change_id=None, datastore="datastore-1",
            raw_lun=RawLun(lun_uuid(RAW), f"naa.{RAW}"),
        )  # fmt: skip
        yield Site(tmp_path, volume, datastore, disk)


def test_the_chain_ends_in_the_lun(site: Site) -> None:
    with site.storage() as storage, site.opened(storage) as disk:
        assert read_over(disk, 0, SIZE) == b"base" * (MiB // 4) + b"new!" * 1024 + b"base" * ((3 * MiB - 4096) // 4)
        assert sum(extent.length for extent in disk.extents()) == SIZE
        disk.recheck()


def test_a_base_alone(site: Site) -> None:
    """Where the VM has no other snapshot, what ours froze is the mapping itself."""
    with site.storage() as storage, site.opened(storage, path=DatastorePath("ds1", "vm1/vm1.vmdk")) as disk:
        assert read_over(disk, 0, SIZE) == b"base" * (SIZE // 4)
        disk.recheck()


@pytest.mark.parametrize("raw", [RawLun(lun_uuid(RAW)), RawLun("01", f"naa.{RAW}"), RawLun("vml", f"naa.{RAW}")])
def test_one_name_is_enough(site: Site, raw: RawLun) -> None:
    with site.storage() as storage, site.opened(storage, raw_lun=raw) as disk:
        assert read_over(disk, 0, 4) == b"base"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (RawLun(lun_uuid(RAW), f"naa.{OTHER}"), rf"naa\.{RAW} by its backing, of naa\.{OTHER} by the VM's host"),
        (RawLun(lun_uuid(OTHER), f"naa.{OTHER}"), rf"of LUN naa\.{OTHER}, which is not seen here; map that LUN"),
        (RawLun("0100000000414243"), "neither the manager nor the VM's host names its LUN"),
        (None, "neither the manager nor the VM's host names its LUN"),
    ],
)
def test_a_lun_that_is_not_surely_the_one_is_refused(site: Site, raw: RawLun | None, reason: str) -> None:
    with site.storage() as storage, pytest.raises(SourceError, match=reason):
        site.opened(storage, raw_lun=raw)


def test_a_copy_of_the_lun_is_refused(site: Site) -> None:
    (site.folder / "copy.img").write_bytes(bytes(SIZE))
    luns = site.luns(ImageLun(site.folder / "copy.img", RAW))
    with site.storage(luns) as storage, pytest.raises(SourceError, match=r"raw\.img, copy\.img all pass for"):
        site.opened(storage)


def test_the_mapping_has_a_say(site: Site) -> None:
    """Manager and host name a LUN that is here, and of the right size; the mapping leads to another."""
    (site.folder / "other.img").write_bytes(bytes(SIZE))
    luns = site.luns(ImageLun(site.folder / "other.img", OTHER))
    raw = RawLun(lun_uuid(OTHER), f"naa.{OTHER}")
    with site.storage(luns) as storage, pytest.raises(VmdkError, match="it maps the LUN with the SCSI id 600144f0"):
        site.opened(storage, raw_lun=raw)


def test_sizes_must_agree(site: Site) -> None:
    """The LUN's, the manager's, the mapping's and the descriptor's."""
    with site.storage() as storage, pytest.raises(SourceError, match=f"has {SIZE} bytes here, and the manager says"):
        site.opened(storage, capacity_bytes=SIZE + 512)
    site.volume.delete(MAPPING)
    site.volume.rdm(MAPPING, RAW, SIZE + 512)
    with site.storage() as storage, pytest.raises(VmdkError, match=f"maps a LUN of {SIZE + 512} bytes, raw.img has"):
        site.opened(storage)


def test_a_descriptor_of_another_size_is_refused(site: Site) -> None:
    short = Descriptor(ExtentKind.RDM, "vm1-rdm.vmdk", SIZE - 4096, "0000000a").text().encode()
    site.volume.delete(DESCRIPTOR)
    site.volume.create_file(DESCRIPTOR, data=short)
    with site.storage() as storage, pytest.raises(VmdkError, match=f"maps a LUN of {SIZE - 4096} bytes, this one has"):
        site.opened(storage)


def test_a_mapping_that_is_made_anew_meanwhile_is_seen(site: Site) -> None:
    with site.storage() as storage, site.opened(storage) as disk:
        site.volume.delete(MAPPING)
        site.volume.rdm(MAPPING, OTHER, SIZE)
        with pytest.raises(Changed):
            disk.recheck()


def test_a_descriptor_that_is_rewritten_meanwhile_is_seen(site: Site) -> None:
    with site.storage() as storage, site.opened(storage) as disk:
        site.volume.write(DESCRIPTOR, 0, b"# disk")
        with pytest.raises(Changed):
            disk.recheck()


def test_what_the_manager_calls_it_must_be_what_it_is(site: Site) -> None:
    with site.storage() as storage, pytest.raises(VmdkError, match="of type vmfsRawDeviceMap, and the manager says"):
        site.opened(storage, kind=DiskKind.SESPARSE)


def test_a_file_is_no_mapping(site: Site) -> None:
    site.volume.delete(MAPPING)
    site.volume.create_file(MAPPING, SIZE)
    with site.storage() as storage, pytest.raises(VmfsError, match="is no raw device mapping but a file"):
        site.opened(storage)


def test_a_lun_that_cannot_be_opened_is_told_before_any_snapshot(site: Site) -> None:
    """It is mapped, and the udev rule for it was forgotten, or a path went away."""
    with site.storage() as storage:
        assert refusals([site.disk], storage) == {}
    with site.storage() as storage:
        (site.folder / "raw.img").unlink()
        [reason] = refusals([site.disk], storage).values()
        assert f"cannot open raw.img (naa.{RAW}): No such file" in reason


def test_a_mapping_on_a_mount_is_refused(site: Site) -> None:
    """There, it would be a plain file, whose bytes are not the disk's."""
    files = Storage([site.datastore], site.luns(), {site.datastore.name: site.folder}).files()
    with pytest.raises(VmdkError, match="can only lie on VMFS, and this is a mount"):
        files.mapping(f"[{site.datastore.name}] vm1/vm1-rdm.vmdk")
