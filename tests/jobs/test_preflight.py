"""``vcbproxy check``: whatever is wrong, it is named with its remedy, and one fault hides no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from jobs.ownership import Registry
from jobs.preflight import manager, mounts, storage
from jobs.preflight.result import Level
from tests.jobs.test_faults import small_file_system
from tests.manager.managers import https, silence
from tests.program import Lab, Program, served
from vcbproxy.clock import SystemClock
from vcbproxy.config import San
from vcbproxy.lab import certificate, client
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.persona import Persona
from vcbproxy.manager.datastore import Datastore, DatastoreKind, DatastorePath
from vcbproxy.manager.marker import Marker
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.repository.repository import Repository
from vcbproxy.san.info import LunInfo, LunKind
from vcbproxy.san.opened import OpenLuns
from vcbproxy.units import GiB, MiB

SPEC = LabSpec(
    datastores=(
        DatastoreSpec("san5", 5, luns=2, lun_size_bytes=GiB),
        DatastoreSpec("san6", 6, lun_size_bytes=GiB),
        DatastoreSpec("nfs1", 0),
    ),
    vms=(
        VmSpec("db01", "san5", disks=(DiskSpec(8 * MiB), DiskSpec(4 * MiB, independent=True))),
        VmSpec("file01", "nfs1", disks=(DiskSpec(4 * MiB),)),
        VmSpec("web01", "san6", disks=(DiskSpec(8 * MiB),)),
    ),
    truth=Truth.NONE,
)
NOW = datetime.now(UTC)


class AheadClock(SystemClock):
    """A manager whose clock is ten minutes fast."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=10)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with served(tmp_path_factory.mktemp("preflight") / "lab", SPEC) as lab:
        lab.new_repository()
        yield lab


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    running.server.permissions.restore()
    yield running
    running.server.permissions.restore()
    running.server.faults.clear()


def findings(done: Any) -> dict[str, list[dict[str, str]]]:
    """The rows by check; each that is not ok says what to do."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(done.out):
        assert (row["result"] == "ok") == (not row["remedy"]), row
        found.setdefault(row["check"], []).append(row)
    return found


def only(found: dict[str, list[dict[str, str]]], check: str, result: str) -> dict[str, str]:
    [row] = found[check]
    assert row["result"] == result, row
    return row


def changed(lab: Lab, name: str, *changes: tuple[str, str]) -> Program:
    """The program with a configuration in which some text is another."""
    text = (lab.directory / "vcbproxy.toml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = lab.directory / f"{name}.toml"
    path.write_text(text)
    return Program(path)


def moref(lab: Lab, vm: str) -> str:
    return lab.datacenter.machine(vm).state.moref


def test_all_is_well(lab):
    found = findings(lab.vcbproxy("check", "--json"))
    bad = [row for rows in found.values() for row in rows if row["result"] != "ok"]
    assert [row["check"] for row in bad] == ["datastore nfs1", "VM db01"], (
        "a folder is no NFS mount; a disk is independent"
    )
    assert lab.server.thumbprint in only(found, "certificate", "ok")["detail"]
    assert "3 VMs" in only(found, "privileges", "ok")["detail"]
    for name in ("datastore san5", "datastore san6", "LUNs", "clocks", "repository", "repository space"):
        only(found, name, "ok")


def test_six_things_wrong_at_once(tmp_path: Path) -> None:
    """A privilege, a LUN, the clock, a snapshot left behind, a mount, the repository: each with its remedy."""
    clock = AheadClock()
    with (
        Datacenter.create(tmp_path / "lab", SPEC, clock) as datacenter,
        LabServer(datacenter, clock=clock) as server,
    ):
        client.set_port(tmp_path / "lab", SPEC, server.port)
        lab = Lab(tmp_path / "lab", datacenter, server, Program(tmp_path / "lab" / "vcbproxy.toml"))
        server.permissions.take("VirtualMachine.State.RemoveSnapshot", moref(lab, "web01"))
        hidden = datacenter.luns("san5")[1]
        leave_behind(lab, "db01")
        text = (lab.directory / "vcbproxy.toml").read_text()
        lines = [line for line in text.splitlines(keepends=True) if hidden.name not in line]
        config = lab.directory / "wrong.toml"
        config.write_text("".join(lines).replace('datastore = "nfs1"', 'datastore = "nsf1"'))
        wrong = Program(config)
        shown = wrong("check", code=1)
        found = findings(wrong("check", "--json", code=1))
        wwn = next(lun.wwn for lun in datacenter.state.datastores[0].luns if hidden.name in str(lun.path))

    privilege = only(found, "privileges", "FAILED")
    assert "VirtualMachine.State.RemoveSnapshot is missing on web01" in privilege["detail"]
    assert "role" in privilege["remedy"]
    spans = only(found, "datastore san5", "FAILED")
    assert f"naa.{wwn}" in spans["remedy"]
    assert "db01" in spans["detail"]
    assert "ahead" in only(found, "clocks", "warning")["detail"]
    assert "NTP" in only(found, "clocks", "warning")["remedy"]
    assert "db01" in only(found, "our VM snapshots", "warning")["detail"]
    assert "vcbproxy cleanup" in only(found, "our VM snapshots", "warning")["remedy"]
    assert "'nsf1'" in only(found, "mounts", "FAILED")["detail"]
    assert "nfs1" in only(found, "mounts", "FAILED")["remedy"]
    assert "mount nfs.lab:/export/nfs1" in only(found, "datastore nfs1", "FAILED")["remedy"]
    assert "no repository" in only(found, "repository", "FAILED")["detail"]
    assert "repo init" in only(found, "repository", "FAILED")["remedy"]
    assert "independent" in only(found, "VM db01", "warning")["detail"]
    assert "\x1b" not in shown.out, "colours are for terminals"
    for rows in found.values():
        for row in rows:
            assert row["detail"] in shown.out
            assert row["remedy"] in shown.out


def leave_behind(lab: Lab, vm: str) -> None:
    """A snapshot of a job run of this proxy that is dead."""
    import socket

    registry = Registry(lab.directory / "proxy", socket.gethostname())
    with registry.begin() as run:
        name = f"vcbproxy {run.marker.job_run_id}"
        lab.datacenter.take_snapshot(moref(lab, vm), name, run.marker.description, quiesced=False)
    centre = lab.server.centre
    centre.refresh(centre.inventory.get(vim.VirtualMachine(moref(lab, vm), None)))


# ---------------------------------------------------------------- the way to the manager


def the_failure(program: Program, check: str, code: int = 1) -> dict[str, str]:
    return only(findings(program("check", "--json", code=code)), check, "FAILED")


def test_a_host_name_that_nobody_knows(lab):
    wrong = changed(lab, "dns", ('host = "127.0.0.1"', 'host = "no-such-host.invalid"'))
    assert "resolved" in the_failure(wrong, "manager")["detail"]


def test_a_port_where_nobody_listens_and_one_where_nobody_answers(lab):
    with silence() as port:
        quiet = changed(lab, "quiet", (f"port = {lab.server.port}", f"port = {port}\ntimeout_s = 0.3"))
        assert "no answer" in the_failure(quiet, "manager")["detail"]
    assert "refused" in the_failure(quiet, "manager")["detail"]
    assert "port" in the_failure(quiet, "manager")["remedy"]


@pytest.mark.parametrize(("status", "says"), [(404, "no vCenter"), (503, "start")])
def test_a_server_that_is_no_manager_or_not_yet(lab, status, says):
    with https(lab.directory / "tls", lambda post: (status, b"")) as port:
        other = changed(lab, "other", (f"port = {lab.server.port}", f"port = {port}"))
        row = the_failure(other, "manager")
    assert says in f"{row['detail']} {row['remedy']}"


def test_a_wrong_password_has_its_own_code_and_the_rest_is_checked(lab):
    (lab.directory / "wrong.password").write_text("wrong\n")
    wrong = changed(lab, "password", ('password_file = "vcenter.password"', 'password_file = "wrong.password"'))
    row = the_failure(wrong, "manager", code=12)
    assert "refused the login" in row["detail"]
    found = findings(wrong("check", "--json", code=12))
    only(found, "repository", "ok")
    only(found, "LUNs", "ok")


def certificates(folder: Path, **facts: Any) -> Path:
    certificate.write(folder, NOW, **facts)
    return folder


@pytest.mark.parametrize("case", ["unknown CA", "expired", "not yet", "other host", "other pin"])
def test_a_certificate_that_is_not_trusted_is_shown_so_that_it_can_be_compared(lab, tmp_path, case):
    """Nothing but the handshake is said to it; and once compared, it can be pinned as it is printed."""
    facts: dict[str, Any] = {
        "expired": {"valid": (NOW - timedelta(days=40), NOW - timedelta(days=8))},
        "not yet": {"valid": (NOW + timedelta(days=3), NOW + timedelta(days=9))},
        "other host": {"names": ("vcenter.example.com", "192.0.2.7")},
    }.get(case, {})
    says = {
        "unknown CA": ("not issued by the CA in ca_file", "compare the thumbprint"),
        "expired": ("expired 8 days ago", "renew"),
        "not yet": ("not valid before", "clock"),
        "other host": ("for vcenter.example.com, 192.0.2.7, not for 127.0.0.1", "vcenter.example.com"),
        "other pin": ("not the one that thumbprint names", "renewed"),
    }[case]
    tls = certificates(tmp_path / "tls", **facts)
    ca_file = tls / "ca.pem" if facts else lab.server.ca_file
    trust = f'thumbprint = "{":".join(["AB"] * 32)}"' if case == "other pin" else f'ca_file = "{ca_file}"'
    heard: list[object] = []

    def listen(post: object) -> tuple[int, bytes]:
        heard.append(post)
        return 500, b""

    with https(tls, listen) as port:
        at = (f"port = {lab.server.port}", f"port = {port}")
        row = the_failure(changed(lab, "tls", at, ('ca_file = "tls/ca.pem"', trust)), "certificate")
        assert heard == []
        shown = certificate.thumbprint(tls)
        assert shown in row["detail"]
        assert says[0] in row["detail"]
        assert says[1] in row["remedy"]
        pinned = changed(lab, "pinned", at, ('ca_file = "tls/ca.pem"', f'thumbprint = "{shown}"'))
        pinned("check", code=1)
        assert heard, "pinned, it is spoken to"


def test_a_certificate_that_will_expire_is_a_warning(tmp_path):
    folder = tmp_path / "lab"
    with Datacenter.create(folder, SPEC) as datacenter:
        certificates(folder / "tls", valid=(NOW - timedelta(days=300), NOW + timedelta(days=9, hours=1)))
        with LabServer(datacenter) as server:
            client.set_port(folder, SPEC, server.port)
            done = Program(folder / "vcbproxy.toml")("check", "--json", code=10)
    assert "expires in 9 days" in only(findings(done), "certificate", "warning")["detail"]


def test_a_host_in_a_vcenters_hands_must_be_spoken_to_through_it(tmp_path):
    with Datacenter.create(tmp_path / "lab", SPEC) as datacenter:
        for persona, code in ((Persona(esxi=True), 10), (Persona(esxi=True, managed_by="192.0.2.10"), 1)):
            with LabServer(datacenter, persona=persona) as server:
                client.set_port(tmp_path / "lab", SPEC, server.port)
                server.permissions.take("VirtualMachine.State.CreateSnapshot", datacenter.machine("db01").state.moref)
                found = findings(Program(tmp_path / "lab" / "vcbproxy.toml")("check", "--json", code=1))
            row = only(found, "privileges", "FAILED")
            assert "CreateSnapshot is missing on db01" in row["detail"], "told by its roles"
            if persona.managed_by:
                row = only(found, "ESXi host", "FAILED")
                assert 'host = "192.0.2.10"' in row["remedy"]
            else:
                assert "ESXi host" not in found
            assert code


# ---------------------------------------------------------------- what the manager lets us do


def test_each_missing_privilege_is_named_with_the_vms_it_is_missing_on(lab):
    lab.server.permissions.take("VirtualMachine.State.CreateSnapshot")
    lab.server.permissions.take("VirtualMachine.State.RemoveSnapshot", moref(lab, "db01"))
    details = [row["detail"] for row in findings(lab.vcbproxy("check", "--json", code=1))["privileges"]]
    assert details == [
        "VirtualMachine.State.CreateSnapshot is missing on all VMs",
        "VirtualMachine.State.RemoveSnapshot is missing on db01",
    ]
    assert "VirtualMachine.State.CreateSnapshot is missing" in lab.vcbproxy("backup", "web01", code=1).err


def test_privileges_for_changed_blocks_are_only_warned_about(lab):
    config = lab.directory / "vcbproxy.toml"
    before = config.read_text()
    config.write_text(before + "\n[backup]\nenable_cbt = true\n")
    try:
        lab.server.permissions.take("VirtualMachine.Config.ChangeTracking", moref(lab, "web01"))
        lab.server.permissions.take("VirtualMachine.Provisioning.DiskRandomRead", moref(lab, "web01"))
        found = findings(lab.vcbproxy("check", "--json"))
        warned = [row["detail"] for row in found["privileges"] if row["result"] == "warning"]
        assert warned == [
            f"VirtualMachine.{name} is missing on web01: they are read whole each time"
            for name in ("Provisioning.DiskRandomRead", "Config.ChangeTracking")
        ]
    finally:
        config.write_text(before)


def test_a_user_who_sees_no_vm_or_no_datastore(lab):
    for known in lab.datacenter.state.datastores:
        lab.server.permissions.take("System.Read", known.moref)
    found = findings(lab.vcbproxy("check", "--json", code=2))
    assert "not shown to us: is the role given on the datastores" in only(found, "VM web01", "warning")["detail"]
    lab.server.permissions.take("System.View")
    row = only(findings(lab.vcbproxy("check", "--json", code=1)), "virtual machines", "FAILED")
    assert "role" in row["remedy"]


def test_a_manager_that_does_not_tell_privileges_is_a_warning(lab):
    fault = vim.fault.NoPermission(object=vim.Folder("group-d1", None), privilegeId="System.View")
    lab.server.faults.add("HasPrivilegeOnEntities", fault, times=9)
    assert "cannot be told" in only(findings(lab.vcbproxy("check", "--json")), "privileges", "warning")["detail"]


def test_only_the_vms_that_are_backed_up_are_looked_at(lab):
    lab.server.permissions.take("VirtualMachine.State.CreateSnapshot", moref(lab, "db01"))
    some = changed(lab, "some", ("[state]", '[backup]\nvms = ["web01"]\n[state]'))
    found = findings(some("check", "--json"))
    assert "datastore san5" not in found
    only(found, "privileges", "ok")
    none = changed(lab, "none", ("[state]", '[backup]\nvms = ["web99"]\n[state]'))
    assert "web99" in the_failure(none, "virtual machines", code=2)["detail"]


# ---------------------------------------------------------------- LUNs, mounts, volumes


def test_an_image_that_is_away_costs_only_the_vms_on_it(lab, caplog):
    (image,) = lab.datacenter.luns("san6")
    away = changed(lab, "away", (f"luns/{image.name}", "luns/away.img"))
    found = findings(away("check", "--json", code=2))
    assert "away.img" in only(found, "LUN images", "FAILED")["detail"]
    assert "web01" in only(found, "datastore san6", "FAILED")["detail"]
    done = away("backup", "file01", "web01", "--json", code=3)
    assert {row["vm"]: row["outcome"] for row in done.json} == {"file01": "ok", "web01": "failed"}
    assert "away.img" in caplog.text


@pytest.mark.parametrize("same_name", [False, True], ids=["a clone", "twins"])
def test_a_copy_of_a_lun_is_named(lab, tmp_path, same_name):
    """A clone has a name of its own, and the right LUN is read; of twins nobody can tell which is live."""
    (image,) = lab.datacenter.luns("san6")
    (known,) = next(datastore.luns for datastore in lab.datacenter.state.datastores if datastore.name == "san6")
    shutil.copyfile(image, tmp_path / "clone.img")
    wwn = known.wwn if same_name else "6f"
    copy = f'images = [\n  {{ path = "{tmp_path / "clone.img"}", wwn = "naa.{wwn}" }},\n'
    twice = changed(lab, "twice", ("images = [\n", copy))
    found = findings(twice("check", "--json", code=1 if same_name else 0))
    row = only(found, "copies of LUNs", "warning")
    assert "clone.img" in row["detail"]
    assert image.name in row["detail"]
    place = found["datastore san6"][0]
    assert place["result"] == ("FAILED" if same_name else "ok")
    assert not same_name or "unmap the copies" in place["remedy"]


def test_luns_that_this_machine_could_write_or_not_even_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "sdb").write_bytes(bytes(MiB))
    infos = [
        LunInfo(str(tmp_path / name), name, LunKind.DISK, MiB, 512, read_only=name == "sdc") for name in ("sdb", "sdc")
    ]
    with OpenLuns() as opened:
        told = {result.check: result for result in storage.luns(San(), infos, opened)}
    assert "could write to sdb" in told["LUNs read-only"].detail
    assert "udev rule" in told["LUNs read-only"].remedy
    assert "sdc" in told["LUNs readable"].detail
    [none] = storage.luns(San(), [], OpenLuns())
    assert none.level is Level.FAILED


def test_a_lun_that_carries_another_volume_than_the_manager_says(lab):
    (one,) = lab.datacenter.luns("san6")
    five = lab.datacenter.luns("san5")
    crossed = changed(
        lab,
        "crossed",
        (f"luns/{one.name}", "luns/swapped"),
        (f"luns/{five[0].name}", f"luns/{one.name}"),
        ("luns/swapped", f"luns/{five[0].name}"),
    )
    found = findings(crossed("check", "--json", code=1))
    assert found["datastore san6"][0]["result"] == "FAILED"


def test_a_mount_that_is_empty_or_holds_something_else(lab, tmp_path):
    elsewhere = tmp_path / "mnt"
    elsewhere.mkdir()
    there = changed(lab, "mount", ('path = "nfs/nfs1"', f'path = "{elsewhere}"'))
    assert "empty" in the_failure(there, "datastore nfs1")["detail"]
    (elsewhere / "other").mkdir()
    row = the_failure(there, "datastore nfs1")
    assert "does not hold file01/" in row["detail"]
    assert "mount -o ro nfs.lab:/export/nfs1" in row["remedy"]
    elsewhere.joinpath("other").rmdir()
    elsewhere.rmdir()
    assert "not a directory" in the_failure(there, "datastore nfs1")["detail"]


@pytest.mark.parametrize(
    ("line", "level", "says"),
    [
        ("nfs filer:/vol/nfs1 ro", Level.OK, "filer:/vol/nfs1 at"),
        ("nfs4 10.0.0.7:/vol/nfs1/ ro", Level.OK, "10.0.0.7"),
        ("nfs filer:/vol/copy ro", Level.WARNING, "hosts use filer:/vol/nfs1"),
        ("ext4 /dev/sda1 rw", Level.WARNING, "no NFS mount"),
    ],
)
def test_an_export_is_known_by_its_path_and_by_the_files_in_it(tmp_path: Path, line, level, says) -> None:
    """The filer's own name is another on every network; what the manager says must be there decides."""
    (tmp_path / "web01").mkdir()
    (tmp_path / "web01" / "web01.vmx").write_text("")
    nfs = Datastore("ds-1", "nfs1", DatastoreKind.NFS, "", 0, 0, True, nfs_host="filer", nfs_path="/vol/nfs1")
    table = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n90 22 0:50 / {tmp_path} ro - {line}\n"
    there = mounts.judged("nfs1", nfs, tmp_path, [DatastorePath("nfs1", "web01/web01.vmx")], table)
    assert (there.level, says in there.detail) == (level, True)
    absent = mounts.judged("nfs1", nfs, tmp_path, [DatastorePath("nfs1", "db01/db01.vmx")], table)
    assert absent.level is Level.FAILED
    assert "mount -o ro filer:/vol/nfs1" in absent.remedy


# ---------------------------------------------------------------- the repository


def test_what_can_be_wrong_with_the_repository(lab, tmp_path):
    password = lab.password_file.read_text().strip()
    with Repository.open(open_backend(str(lab.repo)), password).locked(exclusive=True):
        assert "exclusively" in the_failure(lab.vcbproxy, "repository lock", code=11)["detail"]
    (lab.directory / "bad.password").write_text("wrong\n")
    wrong = changed(lab, "key", ('password_file = "repo.password"', 'password_file = "bad.password"'))
    assert "password" in the_failure(wrong, "repository", code=12)["detail"]
    nowhere = changed(lab, "nowhere", ('location = "repo"', 'location = "elsewhere"'))
    assert "repo init" in the_failure(nowhere, "repository", code=10)["remedy"]


def test_a_file_system_that_is_too_small_for_what_is_new(lab, tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    with small_file_system(tmp_path / "small", MiB) as small:
        tight = changed(lab, "tight", ('location = "repo"', f'location = "{small / "repo"}"'))
        tight("repo", "init")
        row = only(findings(tight("check", "--json")), "repository space", "warning")
        assert "VMs without a restore point hold 24.0 MiB" in row["detail"]
        (small / "filler").write_bytes(bytes(int(0.97 * MiB) - 32 * 1024))
        row = only(findings(tight("check", "--json")), "repository space", "warning")
        assert "make room" in row["remedy"]


@pytest.mark.parametrize(("version", "says"), [("6.0", "older"), ("6.5", ""), ("8.0.3.0", ""), ("9.1.0.0", "newer")])
def test_versions_that_were_never_tried_are_told(version, says):
    told = [result.detail for result in manager.version(version)]
    assert [says in text for text in told] == ([True] if says else [])


def test_a_running_backup_and_a_foreign_snapshot_are_no_alarm(lab):
    centre = lab.server.centre
    mark = Marker("0badcafe-00000001", "proxy02")
    taken = lab.datacenter.take_snapshot(moref(lab, "web01"), "vcbproxy 1", mark.description, quiesced=False)
    centre.refresh(centre.inventory.get(vim.VirtualMachine(moref(lab, "web01"), None)))
    try:
        row = only(findings(lab.vcbproxy("check", "--json")), "our VM snapshots", "ok")
        assert "proxy02" in row["detail"]
    finally:
        lab.datacenter.remove_snapshot(moref(lab, "web01"), taken.moref, children=False, consolidate=True)
        centre.refresh(centre.inventory.get(vim.VirtualMachine(moref(lab, "web01"), None)))


def test_a_terminal_gets_marks_and_colours(lab):
    import pty

    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminals here")
    outer, inner = pty.openpty()
    import subprocess
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "vcbproxy", "check"], env=lab.vcbproxy.environment, stdout=inner, stderr=subprocess.PIPE
    )
    os.close(inner)
    seen = b""
    try:
        while data := os.read(outer, 65536):
            seen += data
    except OSError:  # the other side is closed
        pass
    os.close(outer)
    process.communicate(timeout=60)
    assert "✔".encode() in seen
    assert b"\x1b[" in seen
