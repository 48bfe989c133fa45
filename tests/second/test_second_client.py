"""The lab's vCenter as another client sees it: govmomi's, which shares no code with pyVmomi (govclient/main.go).

It asks everything once, on the wire, every other request in chunks; each test holds one of the answers against the
datacenter's own record. vcsim is asked as well: what its own kin finds strange, our front part of it did wrong.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.manager.managers import LAB, VCSIM, Manager, Need, missing, serving
from tests.second import golang
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, SnapshotSpec, Truth, VmSpec
from vcbproxy.lab.state import State
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.persona import Persona
from vcbproxy.lab.vcenter.release import RELEASES
from vcbproxy.units import GiB, MiB

NOTHING = ContentSpec(fill=Fill.EMPTY)
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(
        DatastoreSpec("san0", 6, lun_size_bytes=1 * GiB),
        DatastoreSpec("wide", 5, luns=2, lun_size_bytes=1 * GiB),
        DatastoreSpec("share", 0),
    ),
    vms=(
        VmSpec(
            "vm1",
            "san0",
            disks=(DiskSpec(8 * MiB), DiskSpec(4 * MiB, content=NOTHING, node="sata0-1", datastore="wide")),
            snapshots=(SnapshotSpec("user 0", "by its öwner <b>", writes=3),),
            ip="192.0.2.1",
            tags=("Backup/gold", "Ort/Zürich"),
        ),
        VmSpec("off01", "wide", disks=(DiskSpec(4 * MiB, content=NOTHING),), powered_on=False, tags=("Backup/gold",)),
        VmSpec("nfs01", "share", disks=(DiskSpec(4 * MiB, content=NOTHING, node="nvme0-3"),), inventory_folder="prod"),
    ),
)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the client was told, and what was true when it began."""

    manager: str
    told: dict[str, Any]
    state: State

    @property
    def which(self) -> str:
        return VCSIM if self.manager == VCSIM else LAB

    @property
    def vms(self) -> dict[str, dict[str, Any]]:
        return {vm["name"]: vm for vm in self.told["vms"]}


def manager_called(name: str, datacenter: Datacenter) -> Manager:
    """vcsim, or the lab's vCenter of one of its releases."""
    if name == VCSIM:
        return serving(VCSIM, datacenter)
    return LabServer(datacenter, persona=Persona(release=RELEASES[name]))


@pytest.fixture(scope="module", params=[*RELEASES, VCSIM])
def survey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    client = golang.program("govclient")
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, SPEC) as datacenter, manager_called(request.param, datacenter) as manager:
        before = copy.deepcopy(datacenter.state)
        address = f"https://{manager.username}:{manager.password}@{manager.host}:{manager.port}/sdk"
        command = [str(client), "-tags", "-url", address, "-ca", str(manager.ca_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        yield Survey(request.param, json.loads(done.stdout), before)


def test_who_it_talks_to(survey: Survey) -> None:
    about = survey.told["about"]
    assert about["is vCenter"]
    speaks = "6.5" if survey.which == VCSIM else RELEASES[survey.manager].api_version
    assert about["api"] == survey.told["speaks"] == speaks
    assert about["instance uuid"] == survey.state.instance_uuid
    assert (about["user"], about["session active"]) == (survey.state.spec.username, True)
    assert survey.told["wrong password"] == "fault InvalidLogin"
    assert survey.told["after logout"] == "fault NotAuthenticated"


def test_requests_in_chunks_are_heard(survey: Survey) -> None:
    assert survey.told["bodies"]["chunked"] > 40
    assert survey.told["bodies"]["whole"] > 40


def test_every_vm_with_all_its_properties(survey: Survey) -> None:
    assert sorted(survey.vms) == ["nfs01", "off01", "vm1"]
    for known in survey.state.vms:
        told = survey.vms[known.name]
        running = known.powered_on
        assert (told["uuid"], told["instance uuid"]) == (known.uuid, known.instance_uuid)
        assert told["vmx"] == f"[{known.datastore}] {known.folder[1:]}/{known.name}.vmx"
        assert told["power"] == told["summary power"] == ("poweredOn" if running else "poweredOff")
        assert told["tools"] == ("guestToolsRunning" if running else "guestToolsNotRunning")
        assert told["summary name"] == known.name
        assert (told["connected"], told["template"], told["consolidation"]) == ("connected", False, False)
    assert survey.vms["vm1"]["ip"] == "192.0.2.1"
    assert survey.vms["vm1"]["host name"] == "vm1.lab"


def test_every_disk_with_its_chain(survey: Survey) -> None:
    for known in survey.state.vms:
        told = survey.vms[known.name]["disks"]
        assert [disk["key"] for disk in told] == [disk.device_key for disk in known.disks]
        for disk, seen in zip(known.disks, told, strict=True):
            assert seen["files"] == [f"[{disk.datastore}] {link.path[1:]}" for link in reversed(disk.links)]
            assert (seen["bytes"], seen["kb"]) == (disk.size_bytes, disk.size_bytes // 1024)
            assert seen["label"] == disk.label
            assert seen["unit"] == int(disk.node.partition("-")[2])
            assert seen["mode"] == "persistent"
    assert [disk["controller"] for disk in survey.vms["vm1"]["disks"]] == ["pvscsi", "ahci"]
    assert [disk["controller"] for disk in survey.vms["nfs01"]["disks"]] == ["nvme"]
    assert survey.vms["vm1"]["disks"][0]["format"] == "seSparseFormat"
    assert survey.vms["vm1"]["disks"][1]["format"] == "redoLogFormat"


def test_every_datastore_with_its_luns(survey: Survey) -> None:
    told = {store["name"]: store for store in survey.told["datastores"]}
    assert sorted(told) == ["san0", "share", "wide"]
    for known in survey.state.datastores:
        seen = told[known.name]
        assert seen["type"] == ("VMFS" if known.version else "NFS")
        assert seen["accessible"]
        assert seen["capacity"] > 2**30 - 1
        assert seen["hosts"] >= 1
        if known.version:
            assert seen["uuid"] == known.uuid
            assert seen["extents"] == [f"naa.{lun.wwn}" for lun in known.luns]
            assert seen["version"].startswith(f"{known.version}.")
        else:
            assert seen["remote host"]
            assert seen["remote path"]


def test_the_inventory_as_paths(survey: Survey) -> None:
    paths = survey.told["paths"]
    assert "VirtualMachine /DC0/vm/vm1" in paths
    assert "VirtualMachine /DC0/vm/prod/nfs01" in paths
    assert "Datastore /DC0/datastore/wide" in paths


def test_the_search_index(survey: Survey) -> None:
    moref = survey.vms["vm1"]["moref"]
    found = dict(survey.told["searches"])
    assert found.pop("nowhere") == ""
    assert found == dict.fromkeys(("path", "uuid", "instance uuid", "ip", "dns name"), moref)


def test_lists_come_in_pages(survey: Survey) -> None:
    reason = missing(survey.which, Need.PAGES)
    if reason is not None:
        pytest.skip(reason)
    pages = survey.told["pages"]
    assert sum(pages["sizes"]) == pages["objects"]
    assert set(pages["sizes"][:-1]) == {2}
    assert pages["sizes"][-1] in (1, 2)


def test_a_property_alone_goes_by_the_name_of_its_type(survey: Survey) -> None:
    """A strict client takes neither a string for an enumeration nor an int for a long."""
    assert survey.told["types"] == {
        "VirtualMachine.name": "string",
        "VirtualMachine.config.template": "bool",
        "VirtualMachine.config.hardware.memoryMB": "int32",
        "VirtualMachine.config.modified": "time.Time",
        "VirtualMachine.config.hardware.device": "types.ArrayOfVirtualDevice",
        "VirtualMachine.config.extraConfig": "types.ArrayOfOptionValue",
        "VirtualMachine.config.files": "types.VirtualMachineFileInfo",
        "VirtualMachine.runtime.powerState": "types.VirtualMachinePowerState",
        "VirtualMachine.runtime.host": "types.ManagedObjectReference",
        "VirtualMachine.guest.toolsRunningStatus": "string",
        "VirtualMachine.summary.config": "types.VirtualMachineConfigSummary",
        "VirtualMachine.snapshot": "types.VirtualMachineSnapshotInfo",
        "VirtualMachine.snapshot.rootSnapshotList": "types.ArrayOfVirtualMachineSnapshotTree",
        "VirtualMachine.datastore": "types.ArrayOfManagedObjectReference",
        "VirtualMachine.recentTask": "types.ArrayOfManagedObjectReference",
        "VirtualMachine.parent": "types.ManagedObjectReference",
        "Datastore.summary.capacity": "int64",
        "Datastore.summary.freeSpace": "int64",
        "Datastore.summary.accessible": "bool",
        "Datastore.summary": "types.DatastoreSummary",
        "Datastore.info": "types.VmfsDatastoreInfo",
        "Datastore.host": "types.ArrayOfDatastoreHostMount",
        "Datastore.vm": "types.ArrayOfManagedObjectReference",
    }


def test_a_snapshot_from_its_task_to_its_end(survey: Survey) -> None:
    told, moref = survey.told["snapshot"], survey.vms["vm1"]["moref"]
    task = told["task"]
    assert (task["state"], task["entity"], task["entity name"], task["ended"]) == ("success", moref, "vm1", True)
    assert (task["description"], task["result"]) == ("VirtualMachine.createSnapshot", "VirtualMachineSnapshot")
    assert told["removal"] == {"state": "success", "entity": moref, "description": "vm.Snapshot.remove"}
    assert told["found"]
    assert told["of"] == moref
    owners, ours = told["tree"]
    assert (owners["name"], owners["current"]) == ("user 0", False)
    assert (ours["name"], ours["description"], ours["current"]) == ("second client", 'a ü & <b> "c"', True)
    assert (ours["quiesced"], ours["state"], ours["vm"]) == (True, "poweredOn", moref)
    assert [tree["name"] for tree in told["tree after"]] == ["user 0"]
    assert told["tree after"][0]["current"]
    assert told["gone"] == "fault ManagedObjectNotFound"


def test_a_snapshot_freezes_what_the_vm_leaves(survey: Survey) -> None:
    told, before = survey.told["snapshot"], survey.vms["vm1"]["disks"]
    assert [disk["files"] for disk in told["frozen"]] == [disk["files"] for disk in before]
    assert [disk["files"][1:] for disk in told["live"]] == [disk["files"] for disk in before]
    assert told["live after"] == before


def test_change_tracking(survey: Survey) -> None:
    told = survey.told["tracking"]
    assert told["left"] == []
    sizes = [disk.size_bytes for disk in survey.state.vms[0].disks]
    assert [disk["length"] for disk in told["disks"]] == sizes
    assert [disk["since"] for disk in told["disks"]] == [0, 0]
    assert [disk["wrong id"] for disk in told["disks"]] == ["fault InvalidArgument"] * 2
    assert len({disk["id"] for disk in told["disks"]} - {""}) == 2


def test_updates_come_while_it_waits(survey: Survey) -> None:
    assert survey.told["power"] == ["poweredOn", "poweredOff"]
    assert survey.told["powered off twice"] == "task InvalidPowerState"


def test_mistakes_are_answered_by_typed_faults(survey: Survey) -> None:
    assert survey.told["faults"] == {
        "no such vm": "fault ManagedObjectNotFound",
        "no such receiver": "fault ManagedObjectNotFound",
        "no such property": "fault InvalidProperty",
        "no such token": {LAB: "fault InvalidArgument", VCSIM: "fault MethodNotFound"}[survey.which],
    }


def test_tags_by_the_other_api(survey: Survey) -> None:
    moref = {name: f"VirtualMachine {vm['moref']}" for name, vm in survey.vms.items()}
    told = {tag: sorted(on) for tag, on in survey.told["tags"].items()}
    assert told == {"Backup/gold": sorted([moref["vm1"], moref["off01"]]), "Ort/Zürich": [moref["vm1"]]}
