"""The reference implementation as judge of what we write: ``ltfsck`` and ``ltfs``, where they are on PATH.

No distribution packages them; they are built from source, with the file backend. Exit codes of ltfsck: 0 and 1 mean
consistent (it always writes the cartridge's memory anew), 4 and more that it found something.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.ltfs.journal import Journal
from tape.ltfs.recover import recover
from tape.ltfs.volume import LtfsVolume
from tests.archive.shelves import FolderShelf
from tests.archive.test_spanning import read_back
from tests.archive.test_spanning import written as written_point
from tests.tape.volumes import BLOCK, MAKER, Ticks, cartridge, content, drive_with, files_of, formatted, mounted, put
from vcbproxy.archive.lane import TapeLane

pytestmark = pytest.mark.real
WAIT_S = 60.0

needs_ltfsck = pytest.mark.skipif(shutil.which("ltfsck") is None, reason="no ltfsck on PATH: it judges what we write")
needs_ltfs = pytest.mark.skipif(
    shutil.which("ltfs") is None or not Path("/dev/fuse").exists(),
    reason="no ltfs on PATH, or no /dev/fuse: it mounts what we write",
)

FILES = {
    "/plain": content(1, 5 * BLOCK + 7),
    "/web01/2026-11-27/scsi0-0.raw.zst": content(2, 40 * BLOCK),
    "/empty": b"",
    "/names: such, %41 and é": b"named",
}


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


def written(volume: LtfsVolume) -> None:
    for path, data in FILES.items():
        put(volume, path, data)


def hold_consistent(folder: Path) -> None:
    """Ltfsck finds nothing in a cartridge."""
    done = subprocess.run(
        ["ltfsck", "-e", "file", str(folder)], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode in (0, 1), done.stderr


def judged(lun: DriveLun) -> None:
    """Ltfsck finds nothing, and leaves every file as it was."""
    folder = lun.take_out().folder
    hold_consistent(folder)
    again = DriveLun("VDRV0002")
    again.insert(Cartridge(folder))
    assert files_of(mounted(again, search=True)) == FILES


@needs_ltfsck
def test_what_was_committed_is_consistent(lun: DriveLun) -> None:
    with mounted(lun) as volume:
        written(volume)
    judged(lun)


@needs_ltfsck
def test_what_was_only_secured_is_consistent(lun: DriveLun) -> None:
    volume = mounted(lun)
    written(volume)
    volume.secure()
    judged(lun)


@needs_ltfsck
def test_what_was_recovered_by_the_journal_is_consistent(lun: DriveLun, tmp_path: Path) -> None:
    volume = LtfsVolume.mount(drive_with(lun), MAKER, Ticks(), journal=Journal(tmp_path / "journals"))
    written(volume)
    volume.create("/half").write(content(3, 3 * BLOCK))
    cartridge(lun).flush()
    recover(drive_with(lun), MAKER, Ticks(), Journal(tmp_path / "journals"))
    judged(lun)


@needs_ltfsck
def test_cartridges_of_a_restore_point_that_spans_them_are_consistent(tmp_path: Path) -> None:
    """Full ones, too, whose last file goes on elsewhere."""
    shelf = FolderShelf(tmp_path, (5, 6, 64))
    data = content(4, 9 << 20)
    with TapeLane(shelf) as lane:
        point = written_point(lane, {"disk0": [data[: 4 << 20], data[4 << 20 :]]})
    assert len(point.barcodes) > 1
    for barcode in point.barcodes:
        hold_consistent(shelf.root / barcode)
    assert read_back(shelf, point)["disk0"] == data


@needs_ltfs
def test_what_we_write_is_mounted_and_read(lun: DriveLun, tmp_path: Path) -> None:
    with mounted(lun) as volume:
        written(volume)
    with mounted_by_the_reference(lun.take_out().folder, tmp_path / "mnt") as mount:
        for path, data in FILES.items():
            assert (mount / path.lstrip("/")).read_bytes() == data


@contextmanager
def mounted_by_the_reference(folder: Path, mount: Path) -> Iterator[Path]:
    """In the foreground, so that its end can be waited for: it writes the index after umount has returned."""
    mount.mkdir()
    options = f"devname={folder},tape_backend=file,sync_type=unmount"
    with subprocess.Popen(["ltfs", "-f", "-o", options, str(mount)], stderr=subprocess.PIPE) as process:
        try:
            until = time.monotonic() + WAIT_S
            while not os.path.ismount(mount):
                assert process.poll() is None, "ltfs ended"
                assert time.monotonic() < until, "ltfs mounted nothing"
                time.sleep(0.1)
            yield mount
            subprocess.run(["fusermount", "-u", str(mount)], check=True, timeout=WAIT_S)
            assert process.wait(WAIT_S) == 0
        finally:
            process.terminate()
