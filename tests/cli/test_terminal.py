"""What a person sees at a terminal, what a log gets, and that no mistake takes more than a line to tell."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import Lab, Program, served, stopped_by
from vcbproxy.lab import spec as specification


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("terminal") / "lab", specification.tiny(5)) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        yield lab


def on_terminal(lab: Lab, *arguments: object) -> str:
    """What stderr shows when it is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vcbproxy", *map(str, arguments)]
    environment = {**lab.vcbproxy.environment, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as reader:
            while True:
                try:
                    part = reader.read(4096)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                shown += part
        assert process.wait() == 0
    return shown.decode()


def test_a_terminal_sees_steps_and_a_bar_with_its_rate(lab):
    shown = on_terminal(lab, "backup", "vm1")
    assert "vm1: freezing" in shown
    assert "vm1: released after" in shown
    assert "vm1 scsi0-0: 100%" in shown
    assert "iB/s]" in shown
    for line in shown.replace("\r\n", "\n").split("\n"):
        last = line.rpartition("\r")[2]
        assert "%|" not in last or "vm1: " not in last, f"a message tears a bar: {line!r}"


def test_a_lost_terminal_leaves_no_snapshot_behind(lab):
    process = lab.vcbproxy.start("backup", "vm1")
    deadline = time.monotonic() + 30
    while not lab.snapshots("vm1") and time.monotonic() < deadline:
        time.sleep(0.01)
    done = stopped_by(process, signal.SIGHUP)
    assert done.code == 143, done.err
    assert lab.snapshots("vm1") == []


def test_a_log_gets_nothing_from_a_good_run(lab, tmp_path):
    for arguments in (
        ("backup", "vm1"),
        ("restore", "vm1@latest", "--to", tmp_path / "back"),
        ("verify",),
        ("repo", "check", "--read-data"),
    ):
        process = lab.vcbproxy.start(*arguments)
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")


@pytest.mark.parametrize(
    "arguments", [("nosuch",), ("vm", "lst"), ("vm", "show"), ("lun", "list", "more"), ("backup", "--workers", "x")]
)
def test_a_wrong_command_line_is_told_in_one_line(arguments):
    said = Program()(*arguments, code=2).err
    assert said.startswith("vcbproxy: ")
    assert said.count("\n") == 1
    assert "--help`" in said
    assert json.loads(Program()(*arguments, "--json", code=2).err)["exit_code"] == 2


def test_a_full_output_is_no_success(lab):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "vcbproxy", "points", "list"]
        done = subprocess.run(
            command, env=lab.vcbproxy.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "standard output" in done.stderr


def test_what_is_in_the_way_of_a_restore_is_told_before_it_begins(lab, tmp_path):
    point = "vm1@latest"
    (tmp_path / "vm1.vmx").touch()
    assert "vm1.vmx exists; --overwrite" in lab.vcbproxy("restore", point, "--to", tmp_path, code=2).err
    assert [path.name for path in tmp_path.iterdir()] == ["vm1.vmx"], "the disk was not even begun"
    assert "is a directory" in lab.vcbproxy("restore", point, "--output", tmp_path, code=2).err
    assert "create it first" in lab.vcbproxy("restore", point, "--output", tmp_path / "no" / "x.raw", code=2).err
    assert "not a directory" in lab.vcbproxy("restore", point, "--to", tmp_path / "vm1.vmx", code=2).err
    lab.vcbproxy("restore", point, "--to", tmp_path, "--overwrite")
    assert (tmp_path / "vm1.vmx").stat().st_size > 0


@pytest.mark.parametrize("option", ["--to", "--output", "--repo", "--password-file", "--disk", "--config"])
def test_an_empty_option_is_no_answer(lab, option):
    """As `--to "$TARGET"` is when a script has forgotten to set it: it meant the working directory."""
    said = lab.vcbproxy("restore", "vm1@latest", option, "", code=2).err
    assert f"invalid value for '{option}': it is empty" in said
    assert lab.vcbproxy("restore", "vm1@latest", f"{option}=", code=2).err == said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--output", "-"), "into a pipe streams `restic dump`"),
        (("--output", "/dev/null"), "is not a plain file"),
        (("--dry-run",), "--dry-run is of tape: it goes with --from tape"),
        (("vm1@latest", "--to", "x"), "one restore point comes at a time"),
    ],
)
def test_what_a_restore_from_the_repository_does_not_do(lab, arguments, says):
    assert says in lab.vcbproxy("restore", "vm1@latest", *arguments, code=2).err


def test_check_looks_at_the_repository_that_is_named(lab, tmp_path):
    said = lab.vcbproxy("check", "--repo", tmp_path / "elsewhere", code=10).out
    assert f"no repository at {tmp_path / 'elsewhere'}" in said
    named = Program(lab.directory / "vcbproxy.toml", VCBPROXY_REPO=str(tmp_path / "elsewhere"))
    assert named("check", code=10).out == said


def test_what_repeats_itself_is_logged_once(capsys):
    import logging

    from vcbproxy.cli.main import _Lines

    handler = _Lines()
    for message in ("waiting", "waiting", "there"):
        handler.emit(logging.LogRecord("any", logging.WARNING, "", 0, message, (), None))
    assert capsys.readouterr().err.splitlines() == ["vcbproxy: waiting", "vcbproxy: there"]
