"""``vcbproxy lab``: create in one process, serve in another, ask for the truth in a third."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time

import pytest
from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, vim

from tests.program import ROOT
from vcbproxy.cli.main import main
from vcbproxy.lab import client
from vcbproxy.lab import spec as specification
from vcbproxy.lab.vcenter import wire
from vcbproxy.lab.vcenter.recipes import RECIPES, named_fault
from vcbproxy.lab.vcenter.release import NEWEST


@pytest.fixture
def run(capsys):
    """Run a command in this process; its output and its complaints."""

    def running(*arguments, expect=0):
        with pytest.raises(SystemExit) as ended:
            main(["lab", *map(str, arguments)])
        captured = capsys.readouterr()
        assert ended.value.code == expect, captured.err
        return captured

    return running


@pytest.fixture
def lab(tmp_path, run):
    spec = tmp_path / "spec.json"
    spec.write_text(specification.to_json(specification.tiny(5)))
    made = run("create", tmp_path / "lab", "--spec", spec, "--json")
    assert json.loads(made.out)["vms"][0]["disks"] == ["scsi0-0"]
    return tmp_path / "lab"


@contextlib.contextmanager
def trusting(lab):
    context = ssl.create_default_context(cafile=str(lab / "tls" / "ca.pem"))
    stub = SoapStubAdapter("127.0.0.1", client.port(lab), sslContext=context, version="vim.version.v7_0_3_0")
    try:
        yield stub
    finally:
        stub.DropConnections()


def wait_for(path, process):
    end = time.monotonic() + 20
    while not path.exists():
        assert process.poll() is None, "the server ended early"
        assert time.monotonic() < end, "the server never was ready"
        time.sleep(0.02)
    return json.loads(path.read_text())


def test_a_lab_is_served_until_sigterm(lab, run):
    command = [sys.executable, "-m", "vcbproxy", "lab", "serve", lab, "--port", "0", "--guest-writes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = wait_for(lab / "serve.json", process)
        try:
            assert ready["pid"] == process.pid
            assert client.port(lab) == ready["port"]
            context = ssl.create_default_context(cafile=str(lab / "tls" / "ca.pem"))
            stub = SoapStubAdapter("127.0.0.1", ready["port"], sslContext=context, version="vim.version.v8_0_3_0")
            content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
            content.sessionManager.Login("lab", (lab / "vcenter.password").read_text().strip())
            vm = content.searchIndex.FindByInventoryPath("DC0/vm/vm1")
            WaitForTask(vm.CreateSnapshot_Task("backup", "job 7", memory=False, quiesce=True))
            stub.DropConnections()
            run("serve", lab, expect=11)  # one process at a time
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert out == ready["url"] + "\n"
        assert not err
    assert not (lab / "serve.json").exists()
    rows = json.loads(run("truth", lab, "vm1", "--marker", "job 7", "--json").out)
    assert [(row["name"], row["disk"], len(row["sha256"])) for row in rows] == [("backup", "scsi0-0", 64)]
    assert json.loads(run("truth", lab, "--disk", "scsi0-1", "--json").out) == []


def test_refusals(lab, run):
    assert "not empty" in run("create", lab, expect=2).err
    assert "no VM" in run("truth", lab, "nobody", expect=2).err
    assert "no lab" in run("serve", lab / "state", expect=2).err
    assert not any((lab / "truth").iterdir())


def test_trouble_is_ordered_while_it_is_served(lab, run):
    assert "nobody serves" in run("trouble", lab, expect=2).err
    command = [sys.executable, "-m", "vcbproxy", "lab", "serve", lab, "--port", "0", "--release", "7.0", "--esxi"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_for(lab / "serve.json", process)
        try:
            rows = json.loads(run("trouble", lab, "--json").out)
            assert [row["trouble"] for row in rows] == list(RECIPES)
            assert not any(row["ordered"] for row in rows)
            for name in RECIPES:
                if name not in ("manager-restarts", "unavailable"):
                    run("trouble", lab, name)
            assert "always" in run("trouble", lab).out
            assert not any(row["ordered"] for row in json.loads(run("trouble", lab, "--clear", "--json").out))
            run("trouble", lab, "removal-fails", "--times", 2, "--vm", "vm1")
            rows = json.loads(
                run("trouble", lab, "ReconfigVM_Task", "--fault", "NoPermission", "--in-task", "--json").out
            )
            assert {row["trouble"]: row["left"] for row in rows if row["ordered"]} == {
                "removal-fails": 2,
                "ReconfigVM_Task": 1,
            }
            with trusting(lab) as stub:
                content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
                assert (content.about.apiType, content.about.version) == ("HostAgent", "7.0.3")
                content.sessionManager.Login("lab", "lab-secret")
                vm = content.searchIndex.FindByInventoryPath("DC0/vm/vm1")
                with pytest.raises(vim.fault.NoPermission):
                    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec()))
            for words, complaint in [
                (["nonsense"], "no such trouble"),
                (["ReconfigVM_Task"], "--fault"),
                (["ReconfigVM_Task", "--fault", "Nonsense"], "no fault"),
                (["sessions-end", "--times", 3], "at once"),
                (["connections-drop", "--vm", "vm1"], "single VMs"),
                (["removal-fails", "--vm", "vm9"], "vm9"),
                (["removal-fails", "--fault", "FileLocked"], "its own"),
                (["--times", 3], "which trouble"),
            ]:
                assert complaint in run("trouble", lab, *words, expect=2).err
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.mark.parametrize("name", ["FileLocked", "NoPermission", "InvalidPowerState", "TaskInProgress", "SystemError"])
def test_faults_by_name_can_be_sent(name):
    fault = named_fault(name)()
    assert f"{name}Fault".encode() in wire.fault(fault, NEWEST.schema)


def test_every_trouble_is_documented():
    page = (ROOT / "docs" / "lab.md").read_text()
    assert [name for name in RECIPES if f"`{name}`" not in page] == []
