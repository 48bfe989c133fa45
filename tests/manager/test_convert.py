"""pyVmomi's objects become our values; what cannot be read is recognised and named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pyVmomi import vim

from tests.manager.configurations import config, controller, disk, flat, mapping
from vcbproxy.errors import ManagerError
from vcbproxy.manager import convert
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath
from vcbproxy.manager.disk import Disk, DiskKind, refusal

_device = vim.vm.device
_backing = vim.vm.device.VirtualDisk


def only(*devices: Any) -> Disk:
    (found,) = convert.disks(config(*devices))
    return found


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (_device.ParaVirtualSCSIController, "scsi1-3"),
        (_device.VirtualLsiLogicSASController, "scsi1-3"),
        (_device.VirtualAHCIController, "sata1-3"),
        (_device.VirtualIDEController, "ide1-3"),
        (_device.VirtualNVMEController, "nvme1-3"),
    ],
)
def test_a_disk_is_called_by_its_place(kind: Any, key: str) -> None:
    assert only(controller(kind, bus=1), disk(flat(), unit=3)).key == key


def test_a_disk_on_no_known_bus_is_called_by_its_device() -> None:
    assert only(disk(flat())).key == "device2000"


def test_what_a_disk_says() -> None:
    backing = flat("[san0] web01/web01-000002.vmdk", changeId="52 c1/7", uuid="6000C29f", thinProvisioned=True)
    backing.parent = flat("[san0] web01/web01-000001.vmdk")
    backing.parent.parent = flat("[san0] web01/web01.vmdk")
    found = only(controller(), disk(backing, capacityInBytes=3 * 512))
    assert found == Disk(
        key="scsi0-0",
        device_key=2000,
        label="Hard disk 1",
        path=DatastorePath("san0", "web01/web01-000002.vmdk"),
        capacity_bytes=3 * 512,
        kind=DiskKind.SPARSE,
        mode="persistent",
        shared=False,
        encrypted=False,
        change_id="52 c1/7",
        datastore="datastore-1",
        uuid="6000C29f",
        thin=True,
        parents=(DatastorePath("san0", "web01/web01-000001.vmdk"), DatastorePath("san0", "web01/web01.vmdk")),
        homes=(("san0", "datastore-1"),),
    )


def test_old_managers_tell_the_capacity_in_kib_only() -> None:
    assert only(controller(), disk(flat(), capacityInBytes=None, capacityInKB=5)).capacity_bytes == 5120


READABLE = [
    (flat(), DiskKind.FLAT),
    (flat(deltaDiskFormat="redoLogFormat"), DiskKind.SPARSE),
    (flat(deltaDiskFormat="seSparseFormat"), DiskKind.SESPARSE),
    (_backing.SeSparseBackingInfo(fileName="[san0] a.vmdk", diskMode="persistent"), DiskKind.SESPARSE),
    (_backing.SparseVer2BackingInfo(fileName="[san0] a.vmdk", diskMode="persistent"), DiskKind.SPARSE),
]
REFUSED = [
    (flat(deltaDiskFormat="nativeFormat"), "storage array"),
    (flat(deltaDiskFormat="nextFormat"), "unknown"),
    (flat(deltaDiskFormat="redoLogFormat", deltaDiskFormatVariant="vsanSparseVariant"), "vSAN"),
    (
        _backing.RawDiskMappingVer1BackingInfo(fileName="[san0] a.vmdk", compatibilityMode="physicalMode"),
        "physical mode",
    ),
    (_backing.RawDiskMappingVer1BackingInfo(fileName="[san0] a.vmdk", compatibilityMode="virtualMode"), "of which LUN"),
    (_backing.RawDiskMappingVer1BackingInfo(fileName="[san0] a.vmdk"), "physical mode"),
    (_backing.LocalPMemBackingInfo(fileName="[san0] a.vmdk", diskMode="persistent"), "persistent memory"),
    (_backing.RawDiskVer2BackingInfo(deviceName="/dev/sdb", descriptorFileName="[san0] a.vmdk"), "physical disk"),
    (flat(diskMode="independent_persistent"), "independent_persistent"),
    (flat(diskMode="independent_nonpersistent"), "independent_nonpersistent"),
    (flat(diskMode="nonpersistent"), "nonpersistent"),
    (flat(diskMode="undoable"), "undoable"),
    (flat(sharing="sharingMultiWriter"), "shared"),
    (flat(keyId=vim.encryption.CryptoKeyId(keyId="k")), "encrypted"),
]


@pytest.mark.parametrize(("backing", "kind"), READABLE)
def test_readable_disks(backing: Any, kind: DiskKind) -> None:
    found = only(controller(), disk(backing))
    assert found.kind is kind
    assert refusal(found) is None


# As in Broadcom KB 320217, and a disk that has only a serial number.
RAW_LUNS = [
    ("02000000006000eb3952315fbe000000000000001b695343534944", "naa.6000eb3952315fbe000000000000001b"),
    ("02000501006000EB3952315FBE0000000000000041695343534944", "naa.6000eb3952315fbe0000000000000041"),
    ("0200000000500a07510fa0b2c44d5446444441", "naa.500a07510fa0b2c4"),
    ("0100000000514d303030313520202020202020202020202020202051454d552048", None),
    ("02000000006000eb39", None),
    ("0200000000", None),
    ("vml.02", None),
]


@pytest.mark.parametrize(("uuid", "name"), RAW_LUNS)
def test_a_raw_lun_is_named_by_its_uuid(uuid: str, name: str | None) -> None:
    """Deltas over it say so too, or leave it to their base; of a name that is not sure there is none."""
    base = mapping(compatibilityMode="virtualMode", diskMode="persistent", lunUuid=uuid)
    over = mapping(compatibilityMode="virtualMode", diskMode="persistent", deltaDiskFormat="seSparseFormat")
    over.parent = base
    for backing in (base, over):
        found = only(controller(), disk(backing))
        assert found.kind is DiskKind.RDM_VIRTUAL
        assert refusal(found) is None
        assert found.raw_lun is not None
        assert (found.raw_lun.decoded, found.raw_lun.name) == (name, name)


def test_the_datastores_of_a_chain_go_by_name_and_reference() -> None:
    top, base = flat("[san1] web01/web01-000001.vmdk"), flat("[san0] gold/gold.vmdk")
    base.datastore, top.parent = vim.Datastore("datastore-9", None), base
    assert only(controller(), disk(top)).homes == (("san1", "datastore-1"), ("san0", "datastore-9"))


@pytest.mark.parametrize(("backing", "why"), REFUSED)
def test_unreadable_disks_are_refused_by_name(backing: Any, why: str) -> None:
    reason = refusal(only(controller(), disk(backing)))
    assert reason is not None
    assert why in reason


def test_a_module_of_persistent_memory_counts_as_a_disk_and_is_refused() -> None:
    """It is no VirtualDisk; passed over in silence, its data would be in no backup."""
    backing = _device.VirtualNVDIMM.BackingInfo(fileName="[PMemDS-1] web01/web01_2.vmdk")
    module = _device.VirtualNVDIMM(key=2500, controllerKey=1000, unitNumber=2, capacityInMB=64, backing=backing)
    found = only(controller(_device.VirtualNVDIMMController), module)
    assert (found.key, found.capacity_bytes, found.kind) == ("nvdimm0-2", 64 << 20, DiskKind.PMEM)
    assert "persistent memory" in str(refusal(found))


def test_a_disk_behind_a_shared_bus_is_refused() -> None:
    reason = refusal(only(controller(sharedBus="physicalSharing"), disk(flat())))
    assert reason is not None
    assert "shared" in reason


def test_an_encrypting_io_filter_is_noticed() -> None:
    assert only(controller(), disk(flat(), iofilter=["VMW_vmwarevmcrypt_1.0.0"])).encrypted


@pytest.mark.parametrize("kind", DatastoreKind)
def test_only_files_on_luns_or_mounts_are_read(kind: DatastoreKind) -> None:
    found = only(controller(), disk(flat()))
    datastore = Datastore("datastore-1", "san0", kind, "ds:///", 1 << 40, 1 << 30, accessible=True)
    readable = kind in (DatastoreKind.VMFS, DatastoreKind.NFS, DatastoreKind.NFS41)
    assert (refusal(found, datastore) is None) == readable


@pytest.mark.parametrize(
    "devices",
    [
        (controller(), disk(flat(), capacityInBytes=513)),
        (controller(), disk(flat(), capacityInBytes=0, capacityInKB=0)),
        (controller(), disk(flat("web01.vmdk"))),
        (controller(), disk(flat("[san0] ../x.vmdk"))),
        (controller(), disk(_backing.RawDiskVer2BackingInfo(descriptorFileName="x", deviceName="d"))),
        (controller(), disk(flat(), unit=1), disk(flat(), unit=1, key=2001)),
    ],
    ids=["odd capacity", "no capacity", "no datastore", "leads out", "no file", "same place"],
)
def test_nonsense_raises(devices: tuple[Any, ...]) -> None:
    with pytest.raises(ManagerError):
        convert.disks(config(*devices))


def test_a_chain_without_end_raises() -> None:
    backing = flat()
    backing.parent = backing
    with pytest.raises(ManagerError, match="more than"):
        convert.disks(config(controller(), disk(backing)))


def test_names_are_unescaped_once() -> None:
    assert convert.unescaped("a%2fb%5Cc%25d%20e%252f") == "a/b\\c%d%20e%2f"


def test_times_are_utc() -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert convert.utc(datetime(2026, 11, 23, 12)) == noon  # noqa: DTZ001
    assert convert.utc(datetime(2026, 11, 23, 13, tzinfo=timezone(timedelta(hours=1)))) == noon


def test_a_configuration_becomes_plain_data() -> None:
    found = convert.plain(config(controller(), disk(flat(changeId="52/1"))))
    assert json.loads(json.dumps(found)) == found
    hard_disk = found["hardware"]["device"][1]
    assert hard_disk["type"] == "vm.device.VirtualDisk"
    assert hard_disk["backing"]["changeId"] == "52/1"
    assert hard_disk["backing"]["datastore"] == {"ref": "Datastore:datastore-1"}
    assert "parent" not in hard_disk["backing"]


def test_plain_data_have_a_bottom() -> None:
    backing = flat()
    backing.parent = backing
    with pytest.raises(ManagerError, match="nested"):
        convert.plain(backing)
