"""The main job on every VMFS version: back up while the guest writes, restore, compare with the frozen truth."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.program import Lab, served
from vcbproxy.lab import spec as specification
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.lab.vmfs import Allocation
from vcbproxy.units import GiB, MiB


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_restores(lab: Lab, vm: str, to: Path) -> None:
    rows = lab.vcbproxy("restore", f"{vm}@latest", "--to", to, "--json").json
    truth = lab.truth(vm)
    assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == truth


@pytest.mark.parametrize("version", [0, 3, 5, 6])
@pytest.mark.parametrize("snapshots", [0, 2])
def test_what_is_restored_is_what_was_frozen(tmp_path, version, snapshots):
    with served(tmp_path / "lab", specification.tiny(version, snapshots=snapshots, disks=2)) as lab:
        if version == 0:
            add_mount(lab, "ds1")
        lab.new_repository()
        with lab.server.guest_writer(writes_per_s=200):
            row = lab.vcbproxy("backup", "vm1", "--json").json[0]
        assert row["outcome"] == "ok"
        assert row["quiesced"] is True
        assert len(lab.snapshots("vm1")) == snapshots, "our snapshot is gone, the user's are not"
        assert_restores(lab, "vm1", tmp_path / "back")
        assert (tmp_path / "back" / "vm1.vmx").read_bytes()
        vm_json = json.loads((tmp_path / "back" / "vm.json").read_text())
        assert (vm_json["format"], vm_json["vm"]["name"]) == ("vcbproxy.point/1", "vm1")
        assert vm_json["manifest"]["quiesced"] is True
        assert "format" not in vm_json["manifest"], "one mark is enough"
        lab.vcbproxy("verify")
        lab.vcbproxy("repo", "check", "--read-data")


def add_mount(lab: Lab, datastore: str) -> None:
    config = lab.directory / "vcbproxy.toml"
    text = config.read_text()
    if "mounts" not in text:
        config.write_text(
            text.replace("[san]\n", f'[san]\nmounts = [{{ datastore = "{datastore}", path = "nfs/{datastore}" }}]\n')
        )


def test_a_second_backup_stores_next_to_nothing(tmp_path):
    with served(tmp_path / "lab", specification.tiny(6)) as lab:
        lab.new_repository()
        first = lab.vcbproxy("backup", "--all", "--json").json[0]
        second = lab.vcbproxy("backup", "--all", "--json").json[0]
        assert first["bytes_stored"] > MiB
        assert second["bytes_stored"] == 0
        points = lab.vcbproxy("points", "list", "--json").json
        assert [point["vm"] for point in points] == ["vm1", "vm1"]
        assert_restores(lab, "vm1", tmp_path / "back")


def test_stock_restic_takes_it_for_its_own(tmp_path):
    restic = shutil.which("restic")
    if restic is None:
        pytest.skip("no restic")
    with served(tmp_path / "lab", specification.tiny(5, disks=2)) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        stock = [restic, "--no-cache", "-r", str(lab.repo), "--password-file", str(lab.password_file)]
        subprocess.run([*stock, "check", "--read-data"], check=True, capture_output=True)
        subprocess.run(
            [*stock, "restore", "latest", "--target", str(tmp_path / "back")], check=True, capture_output=True
        )
        for disk, digest in lab.truth("vm1").items():
            assert sha256(tmp_path / "back" / "vm1" / disk / f"{disk}.raw") == digest
            dump = subprocess.run(
                [*stock, "dump", "latest", f"/vm1/{disk}/{disk}.raw"], check=True, capture_output=True
            )
            assert hashlib.sha256(dump.stdout).hexdigest() == digest


def test_vms_are_found_by_name_moref_uuid_and_ip(tmp_path):
    with served(tmp_path / "lab", specification.tiny(5)) as lab:
        known = lab.vcbproxy("vm", "list", "--json").json[0]
        for selector in (known["name"], known["moref"], known["uuid"], known["instance_uuid"], known["ip"][0]):
            shown = lab.vcbproxy("vm", "show", selector, "--json").json
            assert shown["moref"] == known["moref"]
            assert [disk["readable"] for disk in shown["disks"]] == [True]


def test_an_empty_disk_restores_empty(tmp_path):
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 5, lun_size_bytes=GiB),),
        vms=(VmSpec("vm1", "ds1", disks=(DiskSpec(8 * MiB, Allocation.ZEROEDTHICK, ContentSpec(Fill.EMPTY)),)),),
        truth=Truth.DIGEST,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.new_repository()
        row = lab.vcbproxy("backup", "vm1", "--json").json[0]
        assert row["bytes_read"] == 0, "to-be-zeroed blocks are never read"
        assert_restores(lab, "vm1", tmp_path / "back")
        assert (tmp_path / "back" / "scsi0-0.raw").stat().st_blocks == 0


def test_compression_is_the_operators_choice(tmp_path):
    stored = {}
    with served(tmp_path / "lab", specification.tiny(5)) as lab:
        for wanted in ("off", "fastest", "auto", "max"):
            options = ("--repo", tmp_path / wanted, "--password-file", lab.password_file)
            lab.vcbproxy("repo", "init", *options)
            row = lab.vcbproxy("backup", "vm1", "--compression", wanted, "--json", *options).json[0]
            stored[wanted] = row["bytes_stored"]
            lab.vcbproxy("verify", *options)
    assert stored["off"] > stored["fastest"] > stored["auto"] > stored["max"]
