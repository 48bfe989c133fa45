"""Datastores meet LUNs: by WWN, by what is on the volume, by mount; what is missing or doubtful is named."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.eligibility import refusals
from jobs.preflight.result import Level
from jobs.preflight.storage import datastores
from vcbproxy.device import read
from vcbproxy.errors import LvmError, PathNotFound, SourceError, VmdkError
from vcbproxy.lab.vmfs import LabVolume, VolumeSpec
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath, VmfsExtent
from vcbproxy.manager.disk import Disk, DiskKind
from vcbproxy.manager.vm import Power, Vm
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.source.storage import Storage
from vcbproxy.units import GiB, MiB

WWN = "600144f0000000000000000000000001"


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("luns") / "lun0.img"
    with LabVolume.create([path], VolumeSpec(5, "ds1", size_bytes=GiB)) as volume:
        volume.mkdir("/vm1")
        volume.create_file("/vm1/vm1.vmx", data=b'displayName = "vm1"\n')
        return path, volume.uuid


def datastore(uuid: str, *extents: str, kind: DatastoreKind = DatastoreKind.VMFS) -> Datastore:
    return Datastore(
        moref="datastore-1",
        name="ds1",
        kind=kind,
        url=f"ds:///vmfs/volumes/{uuid}/",
        capacity_bytes=1,
        free_bytes=1,
        accessible=True,
        vmfs_uuid=uuid,
        extents=tuple(VmfsExtent(name, 1) for name in extents),
        nfs_host="filer",
        nfs_path="/export",
    )


def test_a_lun_is_found_by_its_wwn(image):
    path, uuid = image
    luns = configured([ImageLun(path, WWN)])
    with Storage([datastore(uuid, f"naa.{WWN}")], luns, {}) as storage:
        assert storage.place("ds1").reachable
        file = storage.files().open("[ds1] vm1/vm1.vmx")
        assert read(file, 0, file.size_bytes) == b'displayName = "vm1"\n'
        with pytest.raises(PathNotFound):
            storage.files().open("[ds1] vm1/none.vmx")


def test_a_lun_without_a_wwn_is_found_by_what_is_on_it(image):
    path, uuid = image
    luns = configured([ImageLun(path, "")])
    with Storage([datastore(uuid, f"naa.{WWN}")], luns, {}) as storage:
        assert storage.place("ds1").luns == tuple(luns)
        assert storage.volume("ds1").uuid == uuid


def test_another_volume_on_the_lun_is_refused(image):
    path, _ = image
    luns = configured([ImageLun(path, WWN)])
    with (
        Storage([datastore("0-0-0-0", f"naa.{WWN}")], luns, {}) as storage,
        pytest.raises(LvmError, match="carry volume"),
    ):
        storage.volume("ds1")


def test_a_missing_lun_is_named(image):
    _, uuid = image
    with Storage([datastore(uuid, f"naa.{WWN}")], [], {}) as storage:
        place = storage.place("ds1")
        assert not place.reachable
        assert f"naa.{WWN}" in place.remedy
        with pytest.raises(LvmError, match=WWN):
            storage.volume("ds1")


def test_two_luns_with_one_name_are_refused(image):
    path, uuid = image
    (lun,) = configured([ImageLun(path, WWN)])
    copy = replace(lun, path="/nowhere/copy", name="copy")
    with Storage([datastore(uuid, f"naa.{WWN}")], [lun, copy], {}) as storage:
        assert not storage.place("ds1").reachable
        assert "unmap the copies" in storage.place("ds1").remedy


@pytest.mark.parametrize("mounted", [False, True])
def test_two_datastores_of_one_name_are_refused(image, tmp_path, mounted):
    """Names are unique in a datacenter only; the path of a disk does not say in which."""
    path, uuid = image
    known = datastore(uuid, f"naa.{WWN}")
    other = replace(datastore("0-0-0-0", "naa.2"), moref="datastore-2")
    mounts = {"ds1": tmp_path} if mounted else {}
    for order in ([known, other], [other, known]):
        with Storage(order, configured([ImageLun(path, WWN)]), mounts) as storage:
            assert not storage.place("ds1").reachable
            assert "datastore-1, datastore-2" in storage.place("ds1").remedy
            with pytest.raises(LvmError, match="several datastores of that name"):
                storage.files().open("[ds1] vm1/vm1.vmx")


def test_of_two_datastores_of_one_name_the_disks_references_tell_which_is_meant(tmp_path):
    """Two datacenters with a datastore ds1 each, and a VM of the same name on either."""
    known, luns = [], []
    for number in (1, 2):
        lun = tmp_path / f"lun{number}.img"
        with LabVolume.create([lun], VolumeSpec(5, "ds1", seed=number, size_bytes=GiB)) as volume:
            volume.mkdir("/vm1")
            volume.create_file("/vm1/vm1.vmx", data=f"in DC{number}".encode())
            wwn = WWN[:-1] + str(number)
            known.append(replace(datastore(volume.uuid, f"naa.{wwn}"), moref=f"datastore-{number}"))
            luns.append(ImageLun(lun, wwn))
    with Storage(known, configured(luns), {"ds1": tmp_path}) as storage:
        for number in (1, 2):
            one = disk_on("ds1", f"datastore-{number}")
            view = storage.seen_by([one])
            assert view.place("ds1").reachable
            file = view.files().open("[ds1] vm1/vm1.vmx")
            assert read(file, 0, file.size_bytes) == f"in DC{number}".encode()
            assert view.named(known[number - 1].vmfs_uuid) == "ds1"
            with pytest.raises(VmdkError, match="knows no such datastore"):
                view.named(known[2 - number].vmfs_uuid)
            assert refusals([one], storage) == {}
            [result] = datastores(storage, known, [vm_with(one)])
            assert (result.check, result.level) == (f"datastore ds1 (datastore-{number})", Level.OK)
        both = [disk_on("ds1", "datastore-1"), disk_on("ds1", "datastore-2", "scsi0-1")]
        for unsure in ([disk_on("ds1", None)], both):
            assert not storage.seen_by(unsure).place("ds1").reachable
            assert "several datastores of that name" in str(refusals(unsure, storage))
    mounted = [replace(one, kind=DatastoreKind.NFS) for one in known]
    with Storage(mounted, [], {"ds1": tmp_path}) as storage:
        assert not storage.seen_by([disk_on("ds1", "datastore-1")]).place("ds1").reachable, "which one is mounted here?"


def disk_on(name: str, moref: str | None, key: str = "scsi0-0") -> Disk:
    homes = ((name, moref),) if moref else ()
    path = DatastorePath(name, "vm1/vm1.vmdk")
    return Disk(
        key, 2000, "Hard disk 1", path, MiB, DiskKind.FLAT, "persistent", shared=False, encrypted=False,
        change_id=None, datastore=moref, homes=homes,
    )  # fmt: skip


def vm_with(*disks: Disk) -> Vm:
    vmx = DatastorePath("ds1", "vm1/vm1.vmx")
    return Vm(
        "vm-1", "vm1", "u", "i", Power.ON, connected=True, template=False, tools_running=True, host_name=None,
        ip_addresses=(), vmx=vmx, disks=disks, has_snapshots=False, change_tracking=False, consolidation_needed=False,
        encrypted=False, guest="", hardware_version="vmx-13",
    )  # fmt: skip


def test_two_nameless_copies_of_one_lun_are_refused_by_name(image, tmp_path):
    path, uuid = image
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    luns = configured([ImageLun(path, ""), ImageLun(copy, "")])
    with Storage([datastore(uuid, f"naa.{WWN}")], luns, {}) as storage:
        place = storage.place("ds1")
        assert not place.reachable
        assert place.remedy.startswith(f"lun0.img, copy.img all pass for naa.{WWN}:")


def test_a_copy_with_a_name_of_its_own_is_never_read(image, tmp_path):
    """An array's snapshot carries the same UUID; the manager says which LUN is live, mapped here or not."""
    path, uuid = image
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    other = "600144f0000000000000000000000009"
    for images in ([ImageLun(copy, other), ImageLun(path, WWN)], [ImageLun(copy, other)]):
        with Storage([datastore(uuid, f"naa.{WWN}")], configured(images), {}) as storage:
            place = storage.place("ds1")
            assert [lun.name for lun in place.luns] == [path.name] * (len(images) - 1)
            assert place.reachable == (len(images) == 2)


def test_a_missing_span_is_not_made_up_for_by_a_nameless_stranger(image, tmp_path):
    path, uuid = image
    other = tmp_path / "other.img"
    with LabVolume.create([other], VolumeSpec(5, "other", seed=9)):
        pass
    luns = configured([ImageLun(path, ""), ImageLun(other, "")])
    with Storage([datastore(uuid, f"naa.{WWN}", "naa.600144f0000000000000000000000002")], luns, {}) as storage:
        assert not storage.place("ds1").reachable


def test_a_mounted_datastore_is_a_directory_and_nothing_outside_of_it(tmp_path):
    root = tmp_path / "nfs"
    (root / "vm1").mkdir(parents=True)
    (root / "vm1" / "vm1.vmx").write_bytes(b"x" * 5000)
    (tmp_path / "secret").write_bytes(b"s")
    (root / "link").symlink_to(tmp_path / "secret")
    known = datastore("", kind=DatastoreKind.NFS)
    with Storage([known], [], {"ds1": root}) as storage:
        file = storage.files().open("[ds1] vm1/vm1.vmx")
        assert read(file, 1, 4999) == b"x" * 4999
        with pytest.raises(PathNotFound):
            storage.files().open("[ds1] link")
        file.close()
        (root / "vm1" / "vm1.vmx").write_bytes(b"y" * 5000)
    with Storage([known], [], {}) as storage:
        assert "filer:/export" in storage.place("ds1").remedy


@pytest.mark.parametrize(
    ("reference", "leads_to"),
    [
        ("vm1-flat.vmdk", "[ds1] vm1/vm1-flat.vmdk"),
        ("../base/base.vmdk", "[ds1] base/base.vmdk"),
        ("/vmfs/volumes/ds1/base/base.vmdk", "[ds1] base/base.vmdk"),
        ("/vmfs/volumes/5f0e0000-00000001-0000-001122334455/base.vmdk", "[ds1] base.vmdk"),
    ],
)
def test_references_are_followed_inside_datastores(reference, leads_to):
    uuid = "5f0e0000-00000001-0000-001122334455"
    with Storage([datastore(uuid, "naa.1")], [], {}) as storage:
        assert storage.files().resolve("[ds1] vm1/vm1.vmdk", reference) == leads_to


@pytest.mark.parametrize(
    "reference",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "/vmfs/volumes/other/x.vmdk",
        "/vmfs/volumes/ds1/../../x",
        "/vmfs/volumes//x",
        "/vmfs/volumes/ds1",
        "/vmfs/volumes/ds1/",
        "vm1\nvm2.vmdk",
        "vm1.vmdk/",
        "/vmfs/volumes/ds1/vm1/..",
        "",
    ],
)
def test_references_that_lead_out_are_refused(reference):
    nfs = replace(datastore("", kind=DatastoreKind.NFS), name="nfs1", url="")
    with Storage([datastore("u", "naa.1"), nfs], [], {}) as storage, pytest.raises((VmdkError, SourceError)):
        storage.files().resolve("[ds1] vm1/vm1.vmdk", reference)
