"""A datacenter in a folder: what it holds, what snapshots freeze, what survives its process."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from tests.lab import labs
from vcbproxy import config as configuration
from vcbproxy.errors import Busy, ConfigError, UsageError
from vcbproxy.lab import spec as specification
from vcbproxy.lab.datacenter import Datacenter, peek
from vcbproxy.lab.guest import burst
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.units import MiB


def whole(datacenter: Datacenter, vm: str = "vm1", node: str = "scsi0-0") -> bytes:
    machine = datacenter.machine(vm)
    return machine.guest_read(node, 0, machine.state.disk(node).size_bytes)


@pytest.mark.parametrize("version", [0, 3, 5, 6])
def test_the_truth_is_what_the_disk_held_at_the_snapshot(tmp_path, version):
    spec = specification.tiny(version)
    with Datacenter.create(tmp_path / "lab", spec) as datacenter:
        machine = datacenter.machine("vm1")
        held = whole(datacenter)
        snapshot = datacenter.take_snapshot("vm1", "backup", "marker", quiesced=True)
        burst(machine, random.Random(1), 30)
        assert whole(datacenter) != held
        (record,) = datacenter.truths("vm1")
        assert record.snapshot == snapshot.moref
        assert record.description == "marker"
        assert record.disks["scsi0-0"].sha256 == hashlib.sha256(held).hexdigest()
        after = whole(datacenter)
        datacenter.remove_snapshot("vm1", snapshot.moref)
        assert whole(datacenter) == after
        assert machine.state.disks[0].live.path == "/vm1/vm1.vmdk"
        assert datacenter.truths() == [record]


def test_a_raw_copy_is_kept_when_asked_for(tmp_path):
    spec = LabSpec((DatastoreSpec("nfs", 0),), (VmSpec("vm1", "nfs"),), truth=Truth.RAW)
    with Datacenter.create(tmp_path / "lab", spec) as datacenter:
        datacenter.take_snapshot("vm1", "backup")
        (record,) = datacenter.truths()
        raw = tmp_path / "lab" / record.disks["scsi0-0"].raw_path
        assert raw.read_bytes() == whole(datacenter)
        assert raw.stat().st_blocks * 512 < raw.stat().st_size  # its holes are holes


@pytest.mark.parametrize("version", [5, 6])
def test_another_process_goes_on(tmp_path, version):
    directory = tmp_path / "lab"
    with Datacenter.create(directory, specification.tiny(version, snapshots=1)) as datacenter:
        datacenter.take_snapshot("vm1", "second")
        burst(datacenter.machine("vm1"), random.Random(1), 10)
        held = whole(datacenter)
    with Datacenter.open(directory) as datacenter:
        assert whole(datacenter) == held
        machine = datacenter.machine("vm1")
        burst(machine, random.Random(2), 10)
        held = whole(datacenter)
        datacenter.remove_snapshot("vm1", machine.state.snapshots[0].moref)
        assert whole(datacenter) == held
    with Datacenter.open(directory) as datacenter:
        assert whole(datacenter) == held
        assert [snapshot.name for snapshot in datacenter.machine("vm1").state.snapshots] == ["second"]


def test_one_seed_one_lab(tmp_path):
    digests = []
    for number in range(2):
        with Datacenter.create(tmp_path / str(number), specification.tiny(0, snapshots=2)) as datacenter:
            digests.append([record.disks for record in datacenter.truths()] + [whole(datacenter)])
    with Datacenter.create(tmp_path / "other", specification.tiny(0, seed=2)) as datacenter:
        assert whole(datacenter) != digests[0][-1]
    assert digests[0] == digests[1]


def test_the_vm_has_its_files(tmp_path):
    with Datacenter.create(tmp_path / "lab", specification.tiny(0, snapshots=1, disks=2)) as datacenter:
        folder = tmp_path / "lab" / "nfs" / "ds1" / "vm1"
        names = {path.name for path in folder.iterdir()}
        assert {"vm1.vmx", "vm1.nvram", "vm1.vmxf", "vm1.vmsd", "vm1.vmdk", "vm1-flat.vmdk"} <= names
        assert {"vm1-000001.vmdk", "vm1-000001-delta.vmdk", "vm1_1-000001-delta.vmdk"} <= names
        assert 'scsi0:1.fileName = "vm1_1-000001.vmdk"' in (folder / "vm1.vmx").read_text()
        datacenter.remove_snapshot("vm1", datacenter.machine("vm1").state.snapshots[0].moref)
        assert not [path.name for path in folder.iterdir() if "-00000" in path.name or path.suffix == ".vmsn"]
        assert 'scsi0:1.fileName = "vm1_1.vmdk"' in (folder / "vm1.vmx").read_text()


def test_what_is_not_consolidated_can_be_later(tmp_path):
    with Datacenter.create(tmp_path / "lab", specification.tiny(0, snapshots=3)) as datacenter:
        machine = datacenter.machine("vm1")
        held = whole(datacenter)
        datacenter.remove_snapshot("vm1", machine.state.snapshots[1].moref, consolidate=False)
        assert machine.state.consolidation_needed
        assert len(machine.state.disks[0].links) == 4
        datacenter.consolidate("vm1")
        assert not machine.state.consolidation_needed
        assert len(machine.state.disks[0].links) == 3
        assert whole(datacenter) == held
        datacenter.remove_snapshot("vm1", machine.state.snapshots[0].moref, children=True)
        assert len(machine.state.disks[0].links) == 1
        assert whole(datacenter) == held


def test_a_snapshot_that_fails_leaves_no_trace(tmp_path):
    """The second disk's delta cannot be made: the first one's goes away again."""
    with Datacenter.create(tmp_path / "lab", specification.tiny(0, disks=2)) as datacenter:
        folder = tmp_path / "lab" / "nfs" / "ds1" / "vm1"
        (folder / "vm1_1-000001.vmdk").touch()
        before, held = {path.name for path in folder.iterdir()}, whole(datacenter)
        with pytest.raises(FileExistsError):
            datacenter.take_snapshot("vm1", "x")
        machine = datacenter.machine("vm1")
        assert not machine.state.snapshots
        assert not machine.state.consolidation_needed
        assert {path.name for path in folder.iterdir()} == before
        assert whole(datacenter) == held
        datacenter.take_snapshot("vm1", "y")
        assert machine.state.disks[1].live.path == "/vm1/vm1_1-000002.vmdk"


def test_tracking_leaves_its_files_and_takes_them_away(tmp_path):
    with Datacenter.create(tmp_path / "lab", specification.tiny(0)) as datacenter:
        folder = tmp_path / "lab" / "nfs" / "ds1" / "vm1"
        datacenter.machine("vm1").set_tracking(on=True)
        snapshot = datacenter.take_snapshot("vm1", "x")
        assert 'changeTrackPath="vm1-ctk.vmdk"' in (folder / "vm1.vmdk").read_text()
        assert (folder / "vm1-000001-ctk.vmdk").exists()
        chain = datacenter.machine("vm1").chain("scsi0-0")
        assert labs.as_qemu_sees(chain, tmp_path / "qemu") == whole(datacenter)
        datacenter.remove_snapshot("vm1", snapshot.moref)
        assert not (folder / "vm1-000001-ctk.vmdk").exists()
        assert (folder / "vm1-ctk.vmdk").exists()


def test_disks_on_other_datastores_and_controllers(tmp_path):
    spec = LabSpec(
        (DatastoreSpec("a", 0), DatastoreSpec("b", 0)),
        (VmSpec("vm1", "a", (DiskSpec(node="nvme1-3"), DiskSpec(datastore="b", content=ContentSpec(Fill.EMPTY)))),),
        truth=Truth.NONE,
    )
    with Datacenter.create(tmp_path / "lab", spec) as datacenter:
        assert [disk.device_key for disk in datacenter.machine("vm1").state.disks] == [32000 + 64 + 3, 2000]
        assert (tmp_path / "lab/nfs/b/vm1/vm1_1.vmdk").exists()
        assert not any(whole(datacenter))
        datacenter.take_snapshot("vm1", "x")
        assert (tmp_path / "lab/nfs/b/vm1/vm1_1-000001.vmdk").exists()
        assert datacenter.truths() == []


def test_a_disk_from_an_image(tmp_path):
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.seek(5 * MiB)
        file.write(b"here" * 1000)
        file.truncate(7 * MiB)
    disk = DiskSpec(8 * MiB, content=ContentSpec(Fill.IMAGE, image=str(image)))
    spec = LabSpec((DatastoreSpec("ds1", 6, lun_size_bytes=512 * MiB),), (VmSpec("vm1", "ds1", (disk,)),))
    with Datacenter.create(tmp_path / "lab", spec) as datacenter:
        assert whole(datacenter) == image.read_bytes() + bytes(MiB)


def test_one_process_at_a_time(tmp_path):
    directory = tmp_path / "lab"
    with Datacenter.create(directory, specification.tiny(0)), pytest.raises(Busy):
        Datacenter.open(directory)


def test_one_task_at_a_time(tmp_path):
    with Datacenter.create(tmp_path / "lab", specification.tiny(0)) as datacenter:
        with datacenter.machine("vm1").operation("something long"), pytest.raises(Busy, match="another task"):
            datacenter.take_snapshot("vm1", "x")
        datacenter.take_snapshot("vm1", "x")


def test_a_lab_whose_process_was_killed_is_refused(tmp_path):
    directory = tmp_path / "lab"
    datacenter = Datacenter.create(directory, specification.tiny(0))
    assert not peek(directory).clean
    datacenter._release()  # as the kernel does when the process is gone
    with pytest.raises(ConfigError, match="killed"):
        Datacenter.open(directory)


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="no lab in"):
        Datacenter.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        Datacenter.create(tmp_path, specification.tiny(0))


@pytest.mark.parametrize("change", ["closed", "open"])
def test_a_second_close_does_nothing(tmp_path, change):
    datacenter = Datacenter.create(tmp_path / "lab", specification.tiny(0))
    datacenter.close()
    datacenter.close()
    assert peek(tmp_path / "lab").clean


def test_the_clients_configuration_loads(tmp_path):
    with Datacenter.create(tmp_path / "lab", specification.tiny(6)) as datacenter:
        config = configuration.load(tmp_path / "lab" / "vcbproxy.toml")
        assert config.manager is not None
        assert config.manager.password("the vCenter") == datacenter.state.spec.password
        assert [image.path for image in config.san.images] == datacenter.luns()
        assert config.san.images[0].wwn == datacenter.state.datastores[0].luns[0].wwn


def test_the_demo_is_three_generations(tmp_path):
    """Built as `vcbproxy lab create` does; the one with a snapshot reads through its chain."""
    with Datacenter.create(tmp_path / "lab", specification.demo()) as datacenter:
        assert [known.version for known in datacenter.state.datastores] == [3, 5, 6]
        assert len(datacenter.luns("san5")) == 2
        chain = datacenter.machine("db01").chain("nvme0-0")
        assert len(chain.disk.links) == 2
        content = labs.as_qemu_sees(chain, tmp_path / "qemu")
        assert hashlib.sha256(content).digest() == hashlib.sha256(whole(datacenter, "db01", "nvme0-0")).digest()


def test_every_lun_is_where_it_says(tmp_path):
    directory: Path = tmp_path / "lab"
    with Datacenter.create(directory, specification.tiny(5)) as datacenter:
        assert all(path.is_relative_to(directory / "luns") and path.exists() for path in datacenter.luns())
