"""Specifications go through JSON unchanged, and what does not fit together is refused by name."""

from __future__ import annotations

import json

import pytest

from vcbproxy.errors import ConfigError
from vcbproxy.lab import content
from vcbproxy.lab import spec as specification
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, VmSpec
from vcbproxy.units import MiB

DATASTORE = DatastoreSpec("ds1", 0)


@pytest.mark.parametrize("spec", [specification.demo(), specification.tiny(3), specification.tiny(6, snapshots=2)])
def test_json_round_trip(spec, tmp_path):
    path = tmp_path / "lab.json"
    path.write_text(specification.to_json(spec))
    assert specification.load(path) == spec


def test_images_lie_beside_the_specification(tmp_path):
    disk = DiskSpec(content=ContentSpec(Fill.IMAGE, image="disks/a.raw"))
    path = tmp_path / "lab.json"
    path.write_text(specification.to_json(LabSpec((DATASTORE,), (VmSpec("a", "ds1", (disk, DiskSpec())),))))
    loaded = specification.load(path).vms[0].disks
    assert loaded[0].content.image == str(tmp_path / "disks/a.raw")
    assert loaded[1].content.image == ""


@pytest.mark.parametrize(
    ("vms", "message"),
    [
        ((VmSpec("a", "ds1"), VmSpec("a", "ds1")), "two of one name: VM 'a'"),
        ((VmSpec("a", "nowhere"),), "'nowhere'"),
        ((VmSpec("a", "ds1", (DiskSpec(datastore="away"),)),), "'away'"),
        ((VmSpec("a/b", "ds1"),), "not a name for a VM"),
        ((VmSpec("a[b]", "ds1"),), "not a name for a VM"),
        ((VmSpec("a", "ds1", inventory_folder="x//y"),), "not a name for a folder"),
        ((VmSpec("a", "ds1", (DiskSpec(1000),)),), "not whole grains"),
        ((VmSpec("a", "ds1", (DiskSpec(node="floppy0"),)),), "no disk node"),
        ((VmSpec("a", "ds1", (DiskSpec(node="scsi0-1"), DiskSpec(node="scsi0-1"))),), "two of one name: disk node"),
        ((VmSpec("a", "ds1", (DiskSpec(mapping="virtual"),)),), "lies on VMFS"),
        ((VmSpec("a", "san", (DiskSpec(mapping="virtual"),)), VmSpec("b", "san", clone_of="a")), "not cloned"),
    ],
)
def test_refusals(vms, message):
    with pytest.raises(ConfigError, match=message):
        LabSpec((DATASTORE, DatastoreSpec("san", 6)), vms)


def test_files_that_are_no_specification(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        specification.load(tmp_path / "missing.json")
    raw = json.loads(specification.to_json(specification.tiny()))
    raw["vms"][0]["colour"] = "red"
    with pytest.raises(ConfigError, match=r"vms\.0\.colour"):
        specification.from_json(json.dumps(raw))
    with pytest.raises(ConfigError):
        specification.from_json("[]")


def test_content_is_of_the_seed_and_knows_its_address():
    first = list(content.mixed("vm1 scsi0-0", 16 * MiB, 1, 0.6))
    assert first == list(content.mixed("vm1 scsi0-0", 16 * MiB, 1, 0.6))
    assert first != list(content.mixed("vm1 scsi0-0", 16 * MiB, 2, 0.6))
    assert first != list(content.mixed("vm1 scsi0-1", 16 * MiB, 1, 0.6))
    assert 0 < sum(len(data) for _, data in first) < 16 * MiB
    stamped = [(offset, data) for offset, data in first if data.startswith(b"vm1 scsi0-0 @")]
    assert stamped
    for offset, data in stamped:
        assert f"@{offset + 512:#014x} ".encode() in data[512:576]


def test_content_is_quick_and_realistic():
    import zlib

    data = b"".join(data for _, data in content.mixed("vm", 32 * MiB, 3, 0.7))
    ratio = len(data) / len(zlib.compress(data, 1))
    assert 1.5 < ratio < 6
