"""What cannot be read off the SAN is refused by name before any snapshot; what can be is read, whatever the VM is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.test_main_job import assert_restores
from tests.program import Lab, Program, served
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

GOOD = DiskSpec(4 * MiB)

# name, its second disk (or the VM's oddity), and what the refusal says of it
REFUSED = {
    "rdm-physical": (DiskSpec(4 * MiB, mapping="physical"), "raw device mapping (physical mode)"),
    "independent": (DiskSpec(4 * MiB, independent=True), "its mode is independent_persistent"),
    "nonpersistent": (DiskSpec(4 * MiB, mode="nonpersistent"), "its mode is nonpersistent"),
    "multi-writer": (DiskSpec(4 * MiB, multi_writer=True), "shared between VMs"),
    "encrypted": (DiskSpec(4 * MiB, encrypted=True), "only ciphertext"),
    "vsan": (DiskSpec(4 * MiB, datastore="vsan1"), "datastore vsan1, and it is vSAN"),
    "vvol": (DiskSpec(4 * MiB, datastore="vvol1"), "datastore vvol1, and it is vVol"),
    "pmem": (DiskSpec(4 * MiB, datastore="pmem1"), "datastore pmem1, and it is PMEM"),
}


def spec() -> LabSpec:
    odd = tuple(VmSpec(name, "ds1", disks=(GOOD, disk)) for name, (disk, _) in REFUSED.items())
    return LabSpec(
        datastores=(
            DatastoreSpec("ds1", 6, lun_size_bytes=GiB),
            DatastoreSpec("ds2", 5, lun_size_bytes=GiB),
            DatastoreSpec("vsan1", 0, shown_as="vsan"),
            DatastoreSpec("vvol1", 0, shown_as="VVOL"),
            DatastoreSpec("pmem1", 0, shown_as="PMEM"),
            DatastoreSpec("nfs1", 0),
        ),
        vms=(
            *odd,
            VmSpec("filed", "ds1", disks=(GOOD, DiskSpec(4 * MiB, datastore="nfs1"))),
            VmSpec("clustered", "ds1", disks=(GOOD, GOOD), bus_sharing="physicalSharing"),
            VmSpec("template", "ds1", disks=(GOOD,), template=True, powered_on=False),
            VmSpec("lost", "ds1", disks=(GOOD,), connection="disconnected"),
            VmSpec("off", "ds1", disks=(GOOD,), powered_on=False),
            VmSpec("asleep", "ds1", disks=(GOOD,), suspended=True),
            VmSpec("original", "ds1", disks=(GOOD, GOOD), snapshots=(SnapshotSpec("golden", writes=20),)),
            VmSpec("clone", "ds2", clone_of="original", snapshots=(SnapshotSpec("mine", writes=20),)),
            VmSpec("windows", "ds1", disks=(GOOD,), vss=True),
        ),
        truth=Truth.DIGEST,
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("kinds") / "lab", spec()) as lab:
        lab.new_repository()
        yield lab


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    lab.server.calls.clear()
    yield
    for machine in lab.datacenter.machines:
        assert not [known for known in machine.state.snapshots if known.name.startswith("vcbproxy")]


@pytest.mark.parametrize("vm", REFUSED)
def test_a_disk_that_cannot_be_read_is_refused_by_name_before_any_snapshot(lab: Lab, vm: str) -> None:
    """The VM as a whole; its plan says the same, without touching it."""
    reason = REFUSED[vm][1]
    error = lab.vcbproxy("backup", vm, code=1).err
    assert reason in error
    assert "Hard disk 2 (scsi0-1)" in error
    assert "--partial" in error
    assert lab.server.calls["CreateSnapshot_Task"] == 0
    plan = lab.vcbproxy("backup", vm, "--dry-run", "--json", code=3).json
    assert [row["readable"] for row in plan] == [True, False]
    assert reason in plan[1]["reason"]


@pytest.mark.parametrize("vm", ["rdm-physical", "independent", "vsan"])
def test_the_others_are_kept_where_that_was_asked_for(lab: Lab, vm: str) -> None:
    (row,) = lab.vcbproxy("backup", vm, "--partial", "--json", code=3).json
    assert row["outcome"] == "partial"
    assert [disk["error"] is None for disk in row["disks"]] == [True, False]
    assert REFUSED[vm][1] in row["disks"][1]["error"]


def test_a_vm_with_no_disk_left_is_no_partial_success(lab: Lab) -> None:
    error = lab.vcbproxy("backup", "clustered", "--partial", code=1).err
    assert "its controller, is shared" in error
    assert lab.server.calls["CreateSnapshot_Task"] == 0


@pytest.mark.parametrize(("vm", "reason"), [("template", "is a template"), ("lost", "lost its host")])
def test_a_vm_that_takes_no_snapshot(lab: Lab, vm: str, reason: str) -> None:
    assert reason in lab.vcbproxy("backup", vm, code=1).err
    assert lab.server.calls["CreateSnapshot_Task"] == 0


@pytest.mark.parametrize(("vm", "cause"), [("off", "powered-off"), ("asleep", "suspended")])
def test_a_vm_that_does_not_run(lab: Lab, tmp_path: Path, vm: str, cause: str) -> None:
    (row,) = lab.vcbproxy("backup", vm, "--json").json
    manifest = lab.vcbproxy("points", "show", f"{vm}@latest", "--json").json["manifest"]
    assert manifest["not_quiesced_cause"] == cause
    power_cut = any("power cut" in line for line in row["warnings"])
    assert power_cut == (vm == "asleep"), "a VM that is off is at rest"
    assert_restores(lab, vm, tmp_path / "back")


def test_a_suspended_vm_cannot_be_required_to_rest(lab: Lab) -> None:
    assert "suspended" in lab.vcbproxy("backup", "asleep", "--quiesce", "require", code=1).err
    lab.vcbproxy("backup", "off", "--quiesce", "require")


def test_a_linked_clone_is_read_over_all_its_datastores(lab: Lab, tmp_path: Path) -> None:
    """Its own links on one datastore, its parents in another VM's folder on another."""
    (row,) = lab.vcbproxy("backup", "clone", "--json").json
    assert row["outcome"] == "ok"
    manifest = lab.vcbproxy("points", "show", "clone@latest", "--json").json["manifest"]
    chain = manifest["disks"][0]["links"]
    assert len(chain) == 4, "two links of its own, two of the original's"
    assert [link.partition("/")[0] for link in chain] == ["[ds2] clone"] * 2 + ["[ds1] original"] * 2
    assert_restores(lab, "clone", tmp_path / "back")


def test_a_parent_on_a_datastore_that_is_not_seen_refuses_the_clone(lab: Lab) -> None:
    (hidden,) = lab.datacenter.luns("ds1")
    config = lab.directory / "half.toml"
    lines = (lab.directory / "vcbproxy.toml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if hidden.name not in line))
    assert "datastore ds1 is not readable here" in Program(config)("backup", "clone", code=1).err
    assert lab.server.calls["CreateSnapshot_Task"] == 0


def test_the_manifests_of_windows_writers_are_kept(lab: Lab, tmp_path: Path) -> None:
    lab.vcbproxy("backup", "windows")
    lab.vcbproxy("restore", "windows@latest", "--to", tmp_path / "back")
    (kept,) = (tmp_path / "back").glob("*vss_manifests*.zip")
    assert kept.read_bytes().startswith(b"PK")
    lab.vcbproxy("backup", "windows", "--quiesce", "off")
    manifest = lab.vcbproxy("points", "show", "windows@latest", "--json").json["manifest"]
    assert not [name for name in manifest["vm"]["files"] if "vss" in name]


def test_an_nfs_datastore_is_read_where_it_is_mounted(lab: Lab) -> None:
    config = lab.directory / "unmounted.toml"
    lines = (lab.directory / "vcbproxy.toml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if '"nfs1"' not in line))
    assert "mount nfs.lab:/export/nfs1" in Program(config)("backup", "filed", code=1).err
    assert lab.server.calls["CreateSnapshot_Task"] == 0
    assert lab.vcbproxy("backup", "filed", "--json").json[0]["outcome"] == "ok"
