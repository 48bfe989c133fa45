"""``vcbproxy vmfs`` as a program: its output, its errors and its exit codes.

Most commands run inside the test's process, through the ``main`` that the installed program calls.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, overlaid
from vcbproxy.cli.main import main
from vcbproxy.device import read
from vcbproxy.lab.vmfs import Allocation, LabVolume, VolumeSpec, corrupt
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


def run(truth: LabVolume, *arguments: str, devices: int = 2) -> subprocess.CompletedProcess[bytes]:
    return program(*arguments, devices=truth.paths[:devices])


def program(command: str, *arguments: str, devices: Sequence[Path]) -> subprocess.CompletedProcess[bytes]:
    given = [part for path in devices for part in ("-d", str(path))]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main(["vmfs", command, *given, *arguments])
    code = end.value.code
    assert isinstance(code, int)
    found = []
    for stream in (out, err):
        stream.flush()
        found.append(stream.buffer.getvalue())
    return subprocess.CompletedProcess([command, *arguments], code, *found)


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
    done = program("info", "--json", devices=[empty])
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


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Neither names nor device paths that are not UTF-8 stop a listing, and such a file can be asked for."""
    folder = tmp_path / os.fsdecode(b"img\xff")
    folder.mkdir()
    with lab(folder, VolumeSpec(version=5, size_bytes=SMALL)) as volume:
        volume.create_file("/plain", data=b"x")
        volume.create_file("/bad-XX-name", data=b"bytes")
        with overlaid(volume) as (opened, overlay):
            tree = opened.tree()
            run = next(iter(opened.logical.place(tree.view.map_of(tree.root()))))
            content = read(overlay, run.device_offset, run.length)
        with volume.paths[0].open("r+b") as image:
            image.seek(run.device_offset + content.index(b"bad-XX-name"))
            image.write(b"bad-\xff\xfe-name")
        done = program("ls", "/", devices=volume.paths)
        assert done.returncode == 0, done.stderr
        assert b"bad-\\xff\\xfe-name" in done.stdout.split()
        rows = json.loads(program("ls", "-R", "--json", devices=volume.paths).stdout)
        assert "/bad-\\xff\\xfe-name" in [row["path"] for row in rows]
        assert program("cat", os.fsdecode(b"/bad-\xff\xfe-name"), devices=volume.paths).stdout == b"bytes"
        [device] = json.loads(program("info", "--json", devices=volume.paths).stdout)["devices"]
        assert device.endswith("img\\xff/lun0.img")
        assert json.loads(program("map", "--json", "/plain", devices=volume.paths).stdout)["devices"] == [device]
        assert b"lun0.img" in program("map", "/plain", devices=volume.paths).stdout
        missing = program("cat", os.fsdecode(b"/no-\xff"), devices=volume.paths)
        assert (missing.returncode, missing.stderr.count(b"\n")) == (1, 1)


def test_a_circle_of_directories_and_a_damaged_one(tmp_path: Path) -> None:
    """A damaged volume's listing ends, tells what is wrong, and leaves nothing else out."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=SMALL)) as volume:
        for path in ("/a", "/a/b", "/a/b/c", "/broken", "/z"):
            volume.mkdir(path)
        volume.create_file("/z/file", data=b"x")
        corrupt.directory_cycle(volume, "/a/b")
        corrupt.directory_version(volume, "/broken")
        done = program("ls", "-R", "--json", devices=volume.paths)
        rows = json.loads(done.stdout)
        paths = [row["path"] for row in rows]
        assert len(paths) < 40
        assert {"/a/b", "/broken", "/z/file"} <= set(paths)
        assert done.returncode == 3
        problems = {row["path"]: row["problem"] for row in rows if "problem" in row}
        assert "directory version 0xf50002 is unknown" in problems["/broken"]
        plain = program("ls", "-R", devices=volume.paths)
        assert plain.returncode == 3
        assert b"/z/file" in plain.stdout.split()
        assert program("ls", "/broken", devices=volume.paths).returncode == 1
