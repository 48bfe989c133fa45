"""What goes wrong: one clear error, the right exit code, the snapshot gone, the repository valid, the next run fine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pyVmomi import vim

from tests.jobs.test_main_job import assert_restores
from tests.program import Lab, Program, served, stopped_by
from vcbproxy.lab import spec as specification
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.lab.vcenter.faults import Where
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.units import GiB, MiB


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    with served(tmp_path / "lab", specification.tiny(5)) as lab:
        lab.new_repository()
        yield lab


def assert_clean(lab: Lab, points: int) -> None:
    """No snapshot of ours, no lock, a valid repository, and a next run that succeeds."""
    assert [name for name in lab.snapshots("vm1") if name.startswith("vcbproxy")] == []
    assert list((lab.repo / "locks").iterdir()) == []
    assert len(lab.vcbproxy("points", "list", "--json").json) == points
    lab.vcbproxy("repo", "check", "--read-data")
    assert lab.vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"


def one_line(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("vcbproxy: ")]
    return line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_backup_leaves_nothing_behind(lab, number, code):
    process = lab.vcbproxy.start("backup", "vm1")
    deadline = time.monotonic() + 60
    while not lab.snapshots("vm1"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    done = stopped_by(process, number)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert_clean(lab, points=0)


def test_no_vm_matched_is_not_ok(lab):
    done = lab.vcbproxy("backup", "web99", code=2)
    assert "web99" in one_line(done.err)
    lab.vcbproxy("backup", code=2)


def test_a_datastore_without_its_lun_is_refused_before_any_snapshot(lab):
    config = lab.directory / "other.toml"
    text = (lab.directory / "vcbproxy.toml").read_text()
    config.write_text(text[: text.index("images")] + "images = []\n" + text[text.index("[repository]") :])
    done = Program(config)("backup", "vm1", code=1)
    assert "naa." in one_line(done.err)
    assert lab.server.calls["CreateSnapshot_Task"] == 0
    assert_clean(lab, points=0)


DROPS = [
    (method, where)
    for method in ("CreateSnapshot_Task", "RemoveSnapshot_Task", "RetrievePropertiesEx")
    for where in (Where.CALL, Where.ANSWER)
]


def test_dropped_connections_never_leave_a_snapshot(tmp_path):
    """All at once, each with a lab of its own: what may be on its way is waited for, for some ten seconds."""
    with ExitStack() as stack:
        labs = [
            stack.enter_context(served(tmp_path / str(number), specification.tiny(5))) for number in range(len(DROPS))
        ]
        processes = []
        for lab, (method, where) in zip(labs, DROPS, strict=True):
            lab.new_repository()
            after = 1 if method == "RetrievePropertiesEx" else 0
            lab.server.faults.add(method, drop=True, where=where, times=1, after=after)
            processes.append(lab.vcbproxy.start("backup", "vm1"))
        ended = [process.communicate(timeout=120) for process in processes]
        for lab, process, drop, (out, err) in zip(labs, processes, DROPS, ended, strict=True):
            assert "Traceback" not in err, (drop, err)
            lab.server.faults.clear()
            points = len(lab.vcbproxy("points", "list", "--json").json)
            assert points == (1 if process.returncode == 0 else 0), (drop, process.returncode, out, err)
            assert_clean(lab, points=points)


def test_a_snapshot_that_cannot_be_made_is_told_by_name(lab):
    fault = vim.fault.FilesystemQuiesceFault(msg="the guest did not come to rest")
    lab.server.faults.add("CreateSnapshot_Task", fault, times=99, where=Where.TASK)
    done = lab.vcbproxy("backup", "vm1", "--quiesce", "off", code=1)
    assert "vm1" in one_line(done.err)
    lab.server.faults.clear()
    assert_clean(lab, points=0)


def test_a_file_that_changes_while_it_is_read_fails_the_disk(lab):
    store = lab.datacenter.store("ds1")
    base = next(name for name in store.list("/vm1") if name.endswith("-flat.vmdk"))
    stop = threading.Event()

    def rogue() -> None:
        """A host that writes to the frozen base; each write of a hole changes its map."""
        holes = iter(range(0, 8 * MiB, MiB))
        while not stop.wait(0.1):
            if lab.snapshots("vm1"):
                store.write(f"/vm1/{base}", next(holes, 0), os.urandom(4096))
                store.truncate(f"/vm1/{base}", 8 * MiB)

    thread = threading.Thread(target=rogue)
    thread.start()
    try:
        done = lab.vcbproxy("backup", "vm1", code=1)
    finally:
        stop.set()
        thread.join()
    assert "changed" in one_line(done.err)
    assert len(lab.vcbproxy("points", "list", "--json").json) == 0
    assert lab.snapshots("vm1") == []


def test_a_damaged_lun_fails_the_vm_and_nothing_else(tmp_path):
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 5, lun_size_bytes=GiB), DatastoreSpec("ds2", 6, lun_size_bytes=GiB)),
        vms=(VmSpec("bad", "ds1", disks=(DiskSpec(8 * MiB),)), VmSpec("good", "ds2", disks=(DiskSpec(8 * MiB),))),
        truth=Truth.DIGEST,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.new_repository()
        (image,) = lab.datacenter.luns("ds1")
        copy = tmp_path / "cut.img"
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        os.truncate(copy, 24 * MiB)
        config = lab.directory / "cut.toml"
        text = (lab.directory / "vcbproxy.toml").read_text()
        config.write_text(text.replace(f"luns/{image.name}", str(copy)))
        done = Program(config)("backup", "--all", "--json", code=3)
        assert {row["vm"]: row["outcome"] for row in done.json} == {"bad": "failed", "good": "ok"}
        assert lab.snapshots("bad") == []
        assert lab.snapshots("good") == []
        lab.vcbproxy("repo", "check", "--read-data")


def test_a_disk_on_another_datastore_can_be_left_out_only_aloud(tmp_path):
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 5, lun_size_bytes=GiB), DatastoreSpec("ds2", 6, lun_size_bytes=GiB)),
        vms=(VmSpec("vm1", "ds1", disks=(DiskSpec(8 * MiB), DiskSpec(8 * MiB, datastore="ds2"))),),
        truth=Truth.DIGEST,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.new_repository()
        (hidden,) = lab.datacenter.luns("ds2")
        config = lab.directory / "half.toml"
        lines = (lab.directory / "vcbproxy.toml").read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if hidden.name not in line))
        half = Program(config)
        assert "--partial" in one_line(half("backup", "vm1", code=1).err)
        assert lab.server.calls["CreateSnapshot_Task"] == 0
        row = half("backup", "vm1", "--partial", "--json", code=3).json[0]
        assert [disk["error"] is None for disk in row["disks"]] == [True, False]
        assert [point["partial"] for point in half("points", "list", "--json").json] == [True]
        assert "PARTIAL" in half("points", "list").out
        shown = half("points", "show", row["point_id"], "--json").json
        assert shown["partial"] is True
        assert shown["manifest"]["disks_failed"][0]["key"] == "scsi0-1"
        assert half("backup", "vm1", "--dry-run", "--json", code=3).json[1]["readable"] is False


def test_wrong_passwords_and_missing_repositories_have_codes_of_their_own(lab, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    lab.vcbproxy("points", "list", "--password-file", wrong, code=12)
    lab.vcbproxy("points", "list", "--repo", tmp_path / "nowhere", "--password-file", wrong, code=10)
    (lab.directory / "vcenter.password").write_text("wrong\n")
    assert "login" in one_line(lab.vcbproxy("vm", "list", code=12).err)
    assert "missing.toml" in one_line(lab.vcbproxy("points", "list", "--config", tmp_path / "missing.toml", code=2).err)


def test_an_untrusted_certificate_is_never_spoken_to(lab):
    config = lab.directory / "pinned.toml"
    text = (lab.directory / "vcbproxy.toml").read_text()
    config.write_text(text.replace('ca_file = "tls/ca.pem"', f'thumbprint = "{":".join(["AB"] * 32)}"'))
    lab.server.calls.clear()
    Program(config)("vm", "list", code=1)
    assert lab.server.calls["Login"] == 0
    config.write_text(text.replace('ca_file = "tls/ca.pem"', f'thumbprint = "{lab.server.thumbprint}"'))
    Program(config)("vm", "list")


def test_an_exclusive_lock_is_respected(lab):
    from vcbproxy.repository.repository import Repository

    password = lab.password_file.read_text().strip()
    with Repository.open(open_backend(str(lab.repo)), password).locked(exclusive=True):
        lab.vcbproxy("backup", "vm1", code=11)
        assert lab.server.calls["CreateSnapshot_Task"] == 0
    assert_clean(lab, points=0)


@contextmanager
def small_file_system(at: Path, size: int) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_full_target_fails_and_stays_valid(lab, tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    with small_file_system(tmp_path / "small", MiB) as small:
        options = ["--repo", small / "repo", "--password-file", lab.password_file]
        lab.vcbproxy("repo", "init", *options)
        done = lab.vcbproxy("backup", "vm1", *options, code=1)
        assert "space" in one_line(done.err).lower()
        assert lab.snapshots("vm1") == []
        assert lab.vcbproxy("points", "list", *options, "--json").json == []
        (small / "filler").unlink(missing_ok=True)
    assert_clean(lab, points=0)


def test_a_disk_that_fails_while_it_is_read_is_left_out_only_aloud(tmp_path):
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 5, lun_size_bytes=GiB), DatastoreSpec("ds2", 6, lun_size_bytes=GiB)),
        vms=(VmSpec("vm1", "ds1", disks=(DiskSpec(8 * MiB), DiskSpec(8 * MiB, datastore="ds2"))),),
        truth=Truth.DIGEST,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.new_repository()
        store = lab.datacenter.store("ds2")
        base = next(name for name in store.list("/vm1") if name.endswith(".vmdk") and "flat" not in name)

        def damage() -> None:
            store.write(f"/vm1/{base}", 0, b"# Disk DescriptorFile\nCID=what\n")

        damage()
        lab.vcbproxy("backup", "vm1", code=1)
        damage()  # the removal of the snapshot wrote the descriptor anew
        row = lab.vcbproxy("backup", "vm1", "--partial", "--json", code=3).json[0]
        assert [disk["error"] is None for disk in row["disks"]] == [True, False]
        assert lab.snapshots("vm1") == []
        done = lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json", code=3)
        assert [disk["disk"] for disk in done.json] == ["scsi0-0"]
        assert "is not the whole VM, these disks are not in it: scsi0-1: " in done.err
        assert (tmp_path / "back" / "scsi0-0.raw").stat().st_size == 8 * MiB
        lab.vcbproxy("restore", "vm1@latest", "--output", tmp_path / "one.raw", code=3)
        lab.vcbproxy("restore", "vm1@latest", "--disk", "scsi0-0", "--output", tmp_path / "chosen.raw")


def test_a_snapshot_that_cannot_be_removed_is_told_and_found_again(lab, tmp_path):
    """By a fault that no pause makes good; those that it may are in the fault matrix, where pauses pass at once."""
    fault = vim.fault.NoPermission(object=vim.VirtualMachine("vm-20", None), privilegeId="A.Privilege", msg="no")
    lab.server.faults.add("RemoveSnapshot_Task", fault, times=9999)
    done = lab.vcbproxy("backup", "vm1", "--json", code=3)
    (row,) = done.json
    assert "the privilege A.Privilege is missing" in row["snapshot_left"]
    assert row["point_id"], "all was read and checked before: the restore point is good"
    lab.server.faults.clear()
    (left,) = lab.snapshots("vm1")
    findings = {finding["check"]: finding for finding in lab.vcbproxy("check", "--json").json}
    assert left in findings["our VM snapshots"]["detail"]
    assert_restores(lab, "vm1", tmp_path / "back")


def test_a_volume_that_cannot_be_opened_costs_no_snapshot(lab, tmp_path):
    (image,) = lab.datacenter.luns("ds1")
    copy = tmp_path / "wiped.img"
    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
    with copy.open("r+b") as lun:
        lun.write(bytes(8 * MiB))
    config = lab.directory / "wiped.toml"
    config.write_text((lab.directory / "vcbproxy.toml").read_text().replace(f"luns/{image.name}", str(copy)))
    assert "wiped.img" in one_line(Program(config)("backup", "vm1", code=1).err)
    assert lab.server.calls["CreateSnapshot_Task"] == 0
