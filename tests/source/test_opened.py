"""No device is opened twice, whatever a command does with it: the kernel counts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import Lab, served
from tests.san import loops
from vcbproxy.lab import spec as specification
from vcbproxy.san.discover import ImageLun, configured
from vcbproxy.san.opened import OpenLuns


def test_a_lun_is_opened_once_and_closed_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "lun.img").write_bytes(bytes(4096))
    [info] = configured([ImageLun(tmp_path / "lun.img")])
    before = len(list(Path("/proc/self/fd").iterdir()))
    with OpenLuns() as opened:
        assert opened.get(info) is opened.get(info)
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    opened.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("opened") / "lab", specification.tiny(6)) as lab:
        lab.new_repository()
        yield lab


@pytest.mark.parametrize("command", [["lun", "list"], ["check"], ["backup", "vm1", "--dry-run"], ["backup", "vm1"]])
def test_one_command_opens_each_lun_once(lab: Lab, tmp_path: Path, command: list[str]) -> None:
    loops.need("strace")
    [image] = (lab.directory / "luns").glob("*.img")
    out = tmp_path / "strace"
    trace = ["strace", "-f", "-e", "trace=open,openat,openat2", "-P", str(image), "-o", str(out)]
    ours = [sys.executable, "-m", "vcbproxy", *command]
    done = subprocess.run([*trace, *ours], env=lab.vcbproxy.environment, capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("needs permission to trace processes")
    assert done.returncode == 0, done.stderr
    calls = [line for line in out.read_text().splitlines() if re.search(r"\bopen(at2?)?\(", line)]
    assert len(calls) == 1, calls
