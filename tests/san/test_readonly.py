"""Read-only by construction: what the kernel sees of us, and what the source can do at all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.san import loops
from vcbproxy import san
from vcbproxy.san import lun

READER = """
import sys
from vcbproxy import device
from vcbproxy.san import lun
with lun.open_lun(sys.argv[1]) as opened:
    device.read(opened, 100, 10_000)
    opened.read_into(0, device.aligned_buffer(8192))
"""

ALLOWED_CALLS = {
    "openat",
    "newfstatat",
    "fstat",
    "stat",
    "statx",
    "lseek",
    "ioctl",
    "preadv",
    "preadv2",
    "fadvise64",
    "close",
}


def traced(path: Path, out: Path) -> list[str]:
    """The system calls that a process of its own makes on ``path``, as strace prints them."""
    loops.need("strace")
    command = ["strace", "-f", "-P", str(path), "-o", str(out), sys.executable, "-c", READER, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if "ptrace" in done.stderr.lower():
        pytest.skip("needs permission to trace processes")
    assert done.returncode == 0, done.stderr
    return [line for line in out.read_text().splitlines() if "+++" not in line and "---" not in line]


def check_calls(calls: list[str]) -> None:
    assert any("preadv" in call for call in calls), "nothing was traced"
    for call in calls:
        match = re.match(r"\d*\s*(\w+)\(", call)
        assert match is not None, call
        assert match[1] in ALLOWED_CALLS, call
        if match[1] == "openat":
            assert "O_RDONLY" in call, call
            assert "O_DIRECT" in call, call
            assert "O_CLOEXEC" in call, call
            assert not re.search("O_(RDWR|WRONLY|EXCL|CREAT|TRUNC)", call), call
        if match[1] == "ioctl":
            assert re.search(r"BLKSSZGET|BLKGETSIZE64|BLKPBSZGET\b", call), call


def test_the_kernel_sees_only_reads_of_a_file(tmp_path: Path) -> None:
    image = tmp_path / "lun.img"
    image.write_bytes(bytes(100_000))
    check_calls(traced(image, tmp_path / "strace"))


def test_the_page_cache_is_emptied_of_whole_pages(tmp_path: Path) -> None:
    """A page that is asked for in part only would be kept, and with it what some other host has overwritten since."""
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        pytest.skip(f"needs {path}, a file on a file system without direct I/O")
    calls = traced(path, tmp_path / "strace")
    emptied = [re.search(r"fadvise64\(\d+, (\d+), (\d+), POSIX_FADV_DONTNEED\)", call) for call in calls]
    ranges = [(int(found[1]), int(found[1]) + int(found[2])) for found in emptied if found]
    assert ranges
    assert all(start % 4096 == 0 and end % 4096 == 0 for start, end in ranges)
    assert ranges[0][0] <= 100
    assert ranges[0][1] >= 10_100


@pytest.mark.root
def test_the_kernel_sees_only_reads_of_a_block_device(tmp_path: Path) -> None:
    image = tmp_path / "lun.img"
    image.write_bytes(bytes(1 << 20))
    with loops.attached(image) as loop:
        check_calls(traced(loop, tmp_path / "strace"))


def test_the_source_names_no_call_that_could_write() -> None:
    """No write, no open for writing, and only two ioctls, in all of the package that touches LUNs."""
    allowed = {
        "os": {"open", "close", "fstat", "lseek", "preadv", "posix_fadvise", "fspath"},
        "fcntl": {"ioctl"},
    }
    for module in Path(str(san.__file__)).parent.glob("*.py"):
        tree = ast.parse(module.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not imported & {"subprocess", "ctypes", "mmap", "shutil", "io"}, module
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for function in called:
            assert not (isinstance(function, ast.Name) and function.id == "open"), module
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                owner = function.value.id
                assert function.attr in allowed.get(owner, {function.attr}), f"{module}: {owner}.{function.attr}"


def test_the_two_ioctls_only_ask() -> None:
    """linux/fs.h: _IO(0x12, 104) asks for the sector, _IOR(0x12, 114, size_t) for the size."""
    assert lun.BLKSSZGET == 0x12 << 8 | 104
    assert lun.BLKGETSIZE64 == 2 << 30 | 8 << 16 | 0x12 << 8 | 114
