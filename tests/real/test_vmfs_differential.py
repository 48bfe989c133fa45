"""The reader against other readers, on ESXi-made volumes: every byte that lies on disk, and the edges of every hole.

dissect.vmfs runs as a program of its own in ``.cache/oracles`` (AGPL; never imported here). vmfs-fuse's library is used
through debugvmfs, and only on image files: on a block device it would send SCSI reservations.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.real import fetch
from vcbproxy.device import Device, FileDevice, read
from vcbproxy.extent import Kind
from vcbproxy.units import MiB
from vcbproxy.vmfs.file import VmfsFile
from vcbproxy.vmfs.inode import FileType, Layout
from vcbproxy.vmfs.volume import Volume

pytestmark = pytest.mark.real

IMAGES = {
    "vmfs5": ["vmfs5"],
    "vmfs5l": ["vmfs5l"],
    "vmfs5d": ["vmfs5d"],
    "vmfs5-resource-optimized": ["vmfs5-resource-optimized"],
    "vmfs5-no-dense-sbpc": ["vmfs5-no-dense-sbpc"],
    "vmfs5-span": ["span/vmfs5-span-0", "span/vmfs5-span-1"],
    "vmfs6": ["vmfs6"],
    "vmfs6l": ["vmfs6l"],
    "vmfs6d": ["vmfs6d"],
    "vmfs6-resource-optimized": ["vmfs6-resource-optimized"],
    "vmfs6-span": ["span/vmfs6-span-0", "span/vmfs6-span-1"],
    "zero5": ["zero5"],
    "zero6": ["zero6"],
}


def dissect_python() -> str:
    default = Path(__file__).parents[2] / ".cache" / "oracles" / "bin" / "python"
    python = os.environ.get("VCBPROXY_DISSECT_PYTHON", str(default))
    if not Path(python).exists():
        pytest.skip(f"no Python with dissect.vmfs at {python}")
    return python


def files(volume: Volume, path: str = "") -> list[str]:
    """Files to compare; of the hundred alike ones in /directory a few."""
    found: list[str] = []
    for entry in list(volume.entries(path or "/"))[:40]:
        below = f"{path}/{entry.name}"
        if entry.type is FileType.DIRECTORY:
            found += files(volume, below)
        elif entry.type in (FileType.FILE, FileType.SYSTEM) and entry.name != ".sdd.sf":
            found.append(below)
    return found


def ranges_of(file: VmfsFile) -> list[tuple[int, int]]:
    """All data, up to 16 MiB of each extent, and 64 KiB at either end of each hole."""
    ranges = []
    for extent in file.extents():
        if extent.kind is Kind.DATA:
            ranges.append((extent.start, min(extent.length, 16 * MiB)))
            ranges.append((extent.end - min(extent.length, 4096), min(extent.length, 4096)))
        else:
            ranges.append((extent.start, min(extent.length, 65536)))
            ranges.append((extent.end - min(extent.length, 65536), min(extent.length, 65536)))
    return ranges


def digest(device: Device, offset: int, length: int) -> str:
    return hashlib.sha256(read(device, offset, length)).hexdigest()


@pytest.mark.parametrize("label", IMAGES)
def test_dissect_reads_the_same(label: str) -> None:
    paths = [fetch.image(f"vmfs/{name}.bin") for name in IMAGES[label]]
    devices = [FileDevice(path) for path in paths]
    volume = Volume.open(devices)
    opened = {path: volume.open_file(path) for path in files(volume)}
    asked = {path: ranges_of(file) for path, file in opened.items()}
    done = subprocess.run(
        [dissect_python(), str(Path(__file__).with_name("dissect_ranges.py"))],
        input=json.dumps({"images": [str(path) for path in paths], "ranges": asked}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert len(theirs) >= 6
    for path, file in opened.items():
        ours = [digest(file, offset, length) for offset, length in asked[path]]
        assert theirs[path] == [file.size_bytes, ours], path
    for device in devices:
        device.close()


@pytest.mark.parametrize("label", ["vmfs5", "zero5"])
def test_vmfs_tools_read_the_same(label: str) -> None:
    """Whole files up to 128 MiB; doubly indirect files are beyond what vmfs-tools 0.2.5 can read."""
    if shutil.which("debugvmfs") is None:
        pytest.skip("debugvmfs is not installed")
    image = fetch.image(f"vmfs/{label}.bin")
    with FileDevice(image) as device:
        volume = Volume.open([device])
        compared = 0
        for path in files(volume)[:30]:
            file = volume.open_file(path)
            if file.info.layout is Layout.DOUBLE or file.size_bytes > 128 * MiB or file.size_bytes == 0:
                continue
            theirs = subprocess.run(
                ["debugvmfs", str(image), "cat", path], capture_output=True, check=False, timeout=60
            )
            assert theirs.returncode == 0, theirs.stderr[-500:]
            assert hashlib.sha256(theirs.stdout).hexdigest() == digest(file, 0, file.size_bytes), path
            compared += 1
    assert compared >= 5
