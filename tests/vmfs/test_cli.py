"""``vcbproxy vmfs`` as a program: its output, its errors and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab
from vcbproxy.lab.vmfs import Allocation, LabVolume, VolumeSpec
from vcbproxy.units import MiB

PROGRAM = [sys.executable, "-c", "from vcbproxy.cli.main import main; main()", "vmfs"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabVolume]:
    with lab(tmp_path_factory.mktemp("cli"), VolumeSpec(version=6, size_bytes=SMALL, label="san1"), 2) as volume:
        volume.mkdir("/vm")
        volume.create_file("/vm/disk", 6 * MiB + 10, allocation=Allocation.THIN)
        volume.write("/vm/disk", 2 * MiB, os.urandom(MiB))
        volume.write("/vm/disk", 6 * MiB, b"0123456789")
        volume.create_file("/vm/small", data=b"tiny\n")
        volume.symlink("/link", "vm/small")
        volume.create_file("/bad\x1b[31m", data=b"x")
        yield volume


def run(truth: LabVolume, command: str, *arguments: str, devices: int = 2) -> subprocess.CompletedProcess[bytes]:
    given = [part for path in truth.paths[:devices] for part in ("-d", str(path))]
    return subprocess.run([*PROGRAM, command, *given, *arguments], capture_output=True, check=False, timeout=60)


def test_info(truth: LabVolume) -> None:
    done = run(truth, "info", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["label"], found["uuid"], found["major"]) == ("san1", truth.uuid, 6)
    assert found["devices"] == [str(path) for path in truth.paths]
    assert b"san1" in run(truth, "info").stdout
    file = json.loads(run(truth, "info", "--json", "/vm/disk").stdout)
    assert (file["size_bytes"], file["allocated_bytes"], file["blocks"]) == (6 * MiB + 10, MiB + 10, 2)


def test_ls(truth: LabVolume) -> None:
    assert run(truth, "ls", "/vm").stdout.split() == [b"disk", b"small"]
    long = run(truth, "ls", "-l", "/").stdout.decode()
    assert "vm/small" in long
    assert "\x1b" not in long, "names cannot drive the terminal"
    rows = json.loads(run(truth, "ls", "-R", "--json").stdout)
    assert {row["path"] for row in rows} >= {"/vm", "/vm/disk", "/vm/small", "/link", "/.fdc.sf"}
    assert run(truth, "ls", "/vm/small").returncode == 0


def test_cat(truth: LabVolume) -> None:
    assert run(truth, "cat", "/link").stdout == b"tiny\n"
    assert run(truth, "cat", "/vm/disk").stdout == truth.read("/vm/disk", 0, 6 * MiB + 10)
    part = run(truth, "cat", "--offset", "3071K", "--length", "2048", "/vm/disk")
    assert part.stdout == truth.read("/vm/disk", 3071 * 1024, 2048)


def test_map(truth: LabVolume) -> None:
    found = json.loads(run(truth, "map", "--json", "/vm/disk").stdout)
    assert [(row["file_offset"], row["length"], row["zero"]) for row in found["runs"]] == [
        (0, 2 * MiB, True),
        (2 * MiB, MiB, False),
        (3 * MiB, 3 * MiB, True),
        (6 * MiB, 10, False),
    ]
    row = found["runs"][1]
    with Path(row["device"]).open("rb") as device:
        device.seek(row["device_offset"])
        assert device.read(MiB) == truth.read("/vm/disk", 2 * MiB, MiB)
    assert b"zero" in run(truth, "map", "--offset", "1M", "--length", "1M", "/vm/disk").stdout


@pytest.mark.parametrize(
    ("command", "arguments", "code", "message"),
    [
        ("cat", ["/nothing"], 1, "san1: no such file: /nothing"),
        ("cat", ["--offset", "7M", "/vm/disk"], 2, "does not reach from byte"),
        ("cat", ["--length", "8M", "/vm/disk"], 2, "does not reach 8388608 bytes"),
        ("cat", ["--length", "many", "/vm/disk"], 2, "not a size"),
        ("cat", ["/vm"], 1, "is a directory"),
        ("map", [], 2, "issing argument"),
    ],
)
def test_errors(truth: LabVolume, command: str, arguments: list[str], code: int, message: str) -> None:
    done = run(truth, command, *arguments)
    assert done.returncode == code
    assert message in done.stderr.decode()
    assert done.stdout == b""


def test_missing_span(truth: LabVolume) -> None:
    done = run(truth, "ls", devices=1)
    assert done.returncode == 1
    assert b"device 2 of 2 is missing" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_no_vmfs(tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(4096))
    done = subprocess.run([*PROGRAM, "info", "--json", "-d", str(empty)], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "no VMFS volume starts here" in json.loads(done.stderr)["message"]


def test_reader_that_goes_away(truth: LabVolume) -> None:
    given = [part for path in truth.paths for part in ("-d", str(path))]
    with subprocess.Popen(
        [*PROGRAM, "cat", *given, "/vm/disk"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(60) in (0, 1)


def test_refuses_a_terminal(truth: LabVolume) -> None:
    master, slave = os.openpty()
    given = [part for path in truth.paths for part in ("-d", str(path))]
    done = subprocess.run(
        [*PROGRAM, "cat", *given, "/vm/small"], stdout=slave, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == 2
    assert b"stdout is a terminal" in done.stderr
