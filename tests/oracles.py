"""Other people's readers of VMFS, as judges of what ours writes and reads. Only ever on image files.

dissect.vmfs 3.13 (AGPL) runs in a virtual environment of its own, as another process: ``$VCBPROXY_DISSECT_PYTHON`` or
``.cache/oracles/bin/python``. It knows VMFS-5 and -6. debugvmfs and fsck.vmfs (Debian's vmfs-tools) know VMFS-3 and -5
up to single indirection. Where one is missing, the test that asks for it is skipped by name.

Known to be wrong, so do not ask: debugvmfs about double indirection and volumes whose .fdc.sf lies behind pointer
blocks; fsck.vmfs about resident files and blocks to be zeroed; any of vmfs-tools about a block device, which they would
SCSI-reserve.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 60

_DISSECT = """
import json, sys
from dissect.util.stream import RangeStream
from dissect.vmfs import LVM, VMFS

asked = json.load(sys.stdin)
handles = []
for path in asked["paths"]:
    handle = open(path, "rb")
    if asked["start"]:
        size = handle.seek(0, 2) - asked["start"]
        handle = RangeStream(handle, asked["start"], size)
    handles.append(handle)
volume = LVM(handles).volumes[0]
out = sys.stdout.buffer
if asked["runs"]:
    out.write(json.dumps([[a, b, c, volume.devices.index(d)] for a, b, c, d in volume.dataruns()]).encode())
    raise SystemExit
files = VMFS(volume.open())
for name in asked["list"]:
    names = [entry.name for entry in files.get(name).iterdir() if entry.name not in (".", "..")]
    out.write(json.dumps(names).encode())
for name, offset, length in asked["read"]:
    stream = files.get(name).open()
    stream.seek(offset)
    out.write(stream.read(length))
for name in asked["link"]:
    out.write(json.dumps(files.get(name).link).encode())
"""


def dissect_python() -> str:
    """The interpreter that has dissect.vmfs, or skip."""
    python = os.environ.get("VCBPROXY_DISSECT_PYTHON", str(_ROOT / ".cache/oracles/bin/python"))
    if not Path(python).exists():
        pytest.skip("no dissect.vmfs: set VCBPROXY_DISSECT_PYTHON or make .cache/oracles with dissect.vmfs==3.13")
    return python


def _dissect(paths: Sequence[Path], start: int, **asked: object) -> bytes:
    request = {
        "paths": [str(path) for path in paths],
        "start": start,
        "list": [],
        "read": [],
        "link": [],
        "runs": False,
    }
    done = subprocess.run(
        [dissect_python(), "-W", "ignore", "-c", _DISSECT],
        input=json.dumps(request | asked).encode(),
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def dissect_read(paths: Sequence[Path], file: str, offset: int, length: int, *, start: int = 0) -> bytes:
    """Bytes of a file, by dissect.vmfs; ``start`` is where the partition begins."""
    return _dissect(paths, start, read=[(file, offset, length)])


def dissect_reads(paths: Sequence[Path], wanted: Sequence[tuple[str, int, int]], *, start: int = 0) -> list[bytes]:
    """Many ranges (file, offset, length), each wholly inside its file, by one process."""
    got = _dissect(paths, start, read=list(wanted))
    assert len(got) == sum(length for _, _, length in wanted), "dissect returned another number of bytes"
    parts, at = [], 0
    for _, _, length in wanted:
        parts.append(got[at : at + length])
        at += length
    return parts


def dissect_list(paths: Sequence[Path], directory: str, *, start: int = 0) -> list[str]:
    """Names in a directory, in its own order, by dissect.vmfs."""
    return list(json.loads(_dissect(paths, start, list=[directory])))


def dissect_link(paths: Sequence[Path], file: str, *, start: int = 0) -> str:
    """Where a symbolic link points, by dissect.vmfs."""
    return str(json.loads(_dissect(paths, start, link=[file])))


def dissect_runs(paths: Sequence[Path], *, start: int = 0) -> list[tuple[int, int, int, int]]:
    """(logical, physical, length, device) of the logical volume, by dissect.vmfs."""
    return [tuple(run) for run in json.loads(_dissect(paths, start, runs=True))]


def debugvmfs(paths: Sequence[Path], *command: str) -> bytes:
    """What ``debugvmfs`` prints for a command; fails when it fails."""
    done = _vmfs_tool("debugvmfs", paths, command)
    assert done.returncode == 0, (command, done.stderr.decode(errors="replace"))
    return done.stdout


def debugvmfs_read(paths: Sequence[Path], file: str) -> bytes:
    """A whole file."""
    return debugvmfs(paths, "cat", file)


def bitmap_errors(paths: Sequence[Path]) -> int:
    """How many bitmaps ``debugvmfs check_vol_bitmaps`` calls wrong."""
    found = re.search(rb"Total errors: (\d+)", debugvmfs(paths, "check_vol_bitmaps"))
    assert found is not None
    return int(found[1])


def fsck_vmfs(paths: Sequence[Path]) -> dict[str, int]:
    """What ``fsck.vmfs`` counts: Lost blocks, Unallocated blocks, ..."""
    done = _vmfs_tool("fsck.vmfs", paths, ())
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return {
        name.strip(): int(count)
        for name, count in re.findall(r"^\s*([\w -]+?)\s*: (\d+)$", done.stdout.decode(), re.MULTILINE)
    }


FSCK_COMPLAINTS = ("Unallocated blocks", "Lost blocks", "Undefined inodes", "Orphaned inodes", "Directory errors")


def fsck_complaints(paths: Sequence[Path]) -> dict[str, int]:
    """Only what is not as it should be; empty is clean."""
    counted = fsck_vmfs(paths)
    return {name: counted[name] for name in FSCK_COMPLAINTS if counted[name]}


def _vmfs_tool(program: str, paths: Sequence[Path], command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: apt-get install vmfs-tools")
    for path in paths:
        assert stat.S_ISREG(path.stat().st_mode), f"{path}: {program} would SCSI-reserve a device"
    arguments = [program, *map(str, paths), *command]
    return subprocess.run(arguments, capture_output=True, timeout=_TIMEOUT_S, check=False)
