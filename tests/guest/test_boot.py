"""The guest itself: it boots, it is apart from the host, it tells what happened, and it ends."""

from __future__ import annotations

import platform
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.beside import until
from tests.guest import machine

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("guest")]


def test_a_machine_of_its_own_that_tells_what_failed(tmp_path: Path) -> None:
    guest = machine.run("boot", tmp_path, timeout_s=60)
    assert guest.step("kernel").facts["release"] != platform.release()
    tree = Path(guest.step("files").facts["tree"])
    assert tree == machine.TREE
    assert not (tree / "written-in-the-guest").exists(), "the host's files are for reading"
    assert (tmp_path / "kept.txt").read_text() == "goes to the host"
    assert {"iscsi_tcp", "dm_multipath", "st", "ch", "nfsd", "veth"} <= set(guest.step("drivers").facts["loaded"])
    with pytest.raises(AssertionError, match=r"as it was meant to(.|\n)*its console(.|\n)*broken: FAILED"):
        guest.step("broken")
    with pytest.raises(AssertionError, match="never got to never; steps done: kernel, files, drivers, broken"):
        guest.step("never")


def test_a_guest_that_does_not_end_is_ended(tmp_path: Path) -> None:
    guest = machine.run("endless", tmp_path, timeout_s=8)
    assert guest.seconds < 15
    with pytest.raises(AssertionError, match="never got to waits"):
        guest.step("waits")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guest_ends_with_the_test_that_booted_it(tmp_path: Path, number: signal.Signals) -> None:
    script = (
        "import pathlib, sys; from tests.guest import machine; machine.run('endless', pathlib.Path(sys.argv[1]), 60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=machine.TREE) as test:
        try:
            until(lambda: guests(tmp_path), "the guest", timeout_s=30)
        finally:
            test.send_signal(number)
    until(lambda: not guests(tmp_path), "its end", timeout_s=10)


def guests(out: Path) -> list[int]:
    """The guests that tell their results to ``out``."""
    running = psutil.process_iter(["name", "cmdline"])
    return [
        found.pid
        for found in running
        if "qemu" in found.info["name"] and str(out) in " ".join(found.info["cmdline"] or ())
    ]
