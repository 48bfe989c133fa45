"""Selectors as an operator writes them: what `vm list` shows is what `backup` does, and nobody is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.program import Lab, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

DISK = (DiskSpec(1 * MiB, content=ContentSpec(Fill.RANDOM)),)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    spec = LabSpec(
        truth=Truth.NONE,
        datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=1 * GiB),),
        vms=(
            VmSpec("web01", "ds1", DISK, inventory_folder="prod", tags=("Backup/gold",)),
            VmSpec("web-test", "ds1", DISK, inventory_folder="prod"),
            VmSpec("gone", "ds1", (), inventory_folder="prod", connection="inaccessible"),
            VmSpec("golden", "ds1", DISK, inventory_folder="images", template=True),
            VmSpec("vCLS-1", "ds1", DISK, inventory_folder="vCLS", managed_by="VirtualCenter/vcls-entity"),
            VmSpec("-x", "ds1", DISK),
        ),
    )
    with served(tmp_path_factory.mktemp("selecting") / "lab", spec) as lab:
        lab.new_repository()
        yield lab


def names(lab: Lab, *selectors: str) -> list[str]:
    return [row["name"] for row in lab.vcbproxy("vm", "list", "--json", *selectors).json]


def test_vm_list_shows_all_or_what_is_meant(lab):
    assert names(lab) == ["-x", "golden", "gone", "vCLS-1", "web-test", "web01"]
    assert names(lab, "folder:/DC0/prod/**", "not:name:*-test") == ["gone", "web01"]
    assert names(lab, "name:-x") == names(lab, "--", "-x") == ["-x"]


def test_vm_list_says_what_to_write_and_what_is_wrong(lab):
    rows = {row["name"]: row for row in lab.vcbproxy("vm", "list", "any:", "tag:gold", "golden", "--json").json}
    assert rows["web01"]["folder"] == "/DC0/prod"
    assert rows["web01"]["datastores"] == ["ds1"]
    assert rows["web01"]["tags"] == ["Backup/gold"]
    assert {name: row["problem"] for name, row in rows.items() if row["problem"]} == {
        "gone": "inaccessible",
        "golden": "template",
    }
    assert "PROBLEM" in lab.vcbproxy("vm", "list").out


def test_a_set_is_backed_up_and_who_cannot_be_is_named(lab):
    done = lab.vcbproxy("backup", "folder:/DC0/prod", "folder:images", "not:name:*-test", "--json", code=3)
    rows = {row["vm"]: row for row in done.json}
    assert {name: row["outcome"] for name, row in rows.items()} == {"web01": "ok", "gone": "failed", "golden": "failed"}
    assert "it is inaccessible" in rows["gone"]["error"]
    assert "leave templates out with `and any:`" in rows["golden"]["error"]
    assert "gone (vm-22) cannot be backed up" in done.err


def test_vcenters_own_vms_are_left_alone(lab):
    assert "vCLS-1" not in names(lab, "any:")
    (row,) = lab.vcbproxy("vm", "list", "vCLS-1", "--json").json
    assert row["problem"] == "vcls"
    done = lab.vcbproxy("backup", "vCLS-1", code=1)
    assert "vCLS-1 is vCenter's own (vCLS)" in done.err
    assert lab.snapshots("vCLS-1") == []


def test_a_dry_run_names_them_too(lab):
    done = lab.vcbproxy("backup", "folder:prod", "--dry-run", "--json", code=3)
    assert {row["vm"]: row["readable"] for row in done.json} == {"gone": False, "web01": True, "web-test": True}
    assert "cannot be backed up: gone" in done.err


def test_the_configuration_takes_selectors(lab):
    config = lab.directory / "selecting.toml"
    config.write_text(
        (lab.directory / "vcbproxy.toml").read_text()
        + "\n[backup]\nvms = ['folder:/DC0/prod and not:powerstate:off', 'not:name:*-test', 'not:gone']\n"
    )
    assert [row["vm"] for row in lab.vcbproxy("backup", "--config", config, "--json").json] == ["web01"]


def test_a_standing_selector_that_means_nothing_costs_the_others_nothing(lab):
    """... one that is deleted must not leave all others without a backup; but it is no success either."""
    config = lab.directory / "deleted.toml"
    config.write_text(
        (lab.directory / "vcbproxy.toml").read_text()
        + "\n[backup]\nvms = ['web02', 'name:web0*', 'tag:Backup/silver']\n"
    )
    done = lab.vcbproxy("backup", "--config", config, "--json", code=3)
    assert {row["vm"]: row["outcome"] for row in done.json} == {
        "web02": "failed",
        "tag:Backup/silver": "failed",
        "web01": "ok",
    }
    assert "no virtual machine 'web02'; there is web01" in done.err
    planned = lab.vcbproxy("backup", "--config", config, "--dry-run", "--json", code=3).json
    assert {row["vm"] for row in planned if row["disk"] is None} == {"web02", "tag:Backup/silver"}
    config.write_text(config.read_text().replace("'name:web0*', ", ""))
    assert "no virtual machine 'web02'" in lab.vcbproxy("backup", "--config", config, code=2).err


def test_all_takes_exclusions_and_nothing_else(lab):
    rows = lab.vcbproxy("backup", "--all", "not:gone", "not:*test", "--dry-run", "--json").json
    assert [row["vm"] for row in rows] == ["-x", "web01"]
    assert "beside --all only not:" in lab.vcbproxy("backup", "--all", "web01", code=2).err


@pytest.mark.parametrize("selector", ["name:nobody", "tag:Backup/silver", "folder:/DC0/prodd", "powerstate:up"])
def test_who_means_nothing_gets_nothing_done(lab, selector):
    before = lab.server.calls["CreateSnapshot_Task"]
    lab.vcbproxy("backup", "web01", selector, code=2)
    assert lab.server.calls["CreateSnapshot_Task"] == before
