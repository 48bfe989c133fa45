"""LUNs that fail, hang, shrink, or have large sectors, under a whole backup: on real block devices, by root.

Whatever the LUN does: one line that names device, offset and length, the right exit code, the VM snapshot gone, the
repository valid, and the next run fine.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.archive.test_archive_cli import POOL
from tests.beside import beside, until
from tests.jobs.test_faults import one_line
from tests.jobs.test_main_job import assert_restores, sha256
from tests.program import Lab, Program, served
from tests.san import faulty, loops
from tests.san.faulty import FaultyLun
from vcbproxy.lab import spec as specification
from vcbproxy.units import GiB, MiB

pytestmark = pytest.mark.root


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with served(tmp_path / "lab", specification.tiny(5)) as lab:
        lab.new_repository()
        yield lab


def image_of(lab: Lab) -> Path:
    [image] = (lab.directory / "luns").glob("*.img")
    return image


def reading_from(lab: Lab, device: Path, **san: object) -> Program:
    """The program, with this device in place of the image file."""
    text = (lab.directory / "vcbproxy.toml").read_text()
    image = f'"luns/{image_of(lab).name}"'
    assert image in text
    more = "".join(f"{key} = {value}\n" for key, value in san.items())
    config = lab.directory / f"{device.name}.toml"
    config.write_text(text.replace(image, f'"{device}"').replace("[san]\n", f"[san]\n{more}"))
    return Program(config)


def called(lab: Lab, device: Path) -> str:
    """By its name here, and by the one that the array knows."""
    [datastore] = lab.datacenter.state.datastores
    return f"{device.name} (naa.{datastore.luns[0].wwn})"


def data_of(lab: Lab) -> tuple[int, int]:
    """Where on the LUN some of the disk's data lie, beyond its first megabyte."""
    shown = lab.vcbproxy("vmfs", "map", "-d", image_of(lab), "/vm1/vm1-flat.vmdk", "--json").json
    runs = [run for run in shown["runs"] if not run["zero"] and run["file_offset"] >= MiB]
    return runs[0]["device_offset"], runs[0]["device_offset"] + 4096


def assert_nothing_left(lab: Lab) -> None:
    """No VM snapshot, no lock, no restore point."""
    assert lab.snapshots("vm1") == []
    assert list((lab.repo / "locks").iterdir()) == []
    assert list((lab.repo / "snapshots").iterdir()) == []


def test_a_bad_sector_fails_the_disk_by_place(lab: Lab) -> None:
    with faulty.lun(image_of(lab), bad=data_of(lab)) as bad:
        vcbproxy = reading_from(lab, bad.device)
        bad.fail()
        said = one_line(vcbproxy("backup", "vm1", code=1).err)
        assert bad.reached
        assert f"{called(lab, bad.device)}: cannot read " in said
        assert " bytes at offset " in said
        assert "Input/output error" in said
        assert_nothing_left(lab)
        bad.heal()
        assert vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
    assert_restores(lab, "vm1", lab.directory / "back")


def test_a_bad_sector_costs_its_disk_alone_where_that_was_asked_for(tmp_path: Path) -> None:
    with served(tmp_path / "lab", specification.tiny(6, disks=2)) as lab:
        lab.new_repository()
        with faulty.lun(image_of(lab), bad=data_of(lab)) as bad:
            bad.fail()
            vcbproxy = reading_from(lab, bad.device)
            [row] = vcbproxy("backup", "vm1", "--partial", "--json", code=3).json
        assert row["outcome"] == "partial"
        failed, kept = row["disks"]
        assert (failed["key"], kept["key"], kept["error"]) == ("scsi0-0", "scsi0-1", None)
        assert f"{called(lab, bad.device)}: cannot read " in failed["error"]
        assert lab.snapshots("vm1") == []
        [back] = lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json", code=3).json
        assert sha256(Path(back["file"])) == lab.truth("vm1")["scsi0-1"]


def test_a_bad_header_costs_no_snapshot(lab: Lab) -> None:
    header = 2 * MiB  # the partition's start and the megabyte that volumes leave free
    with faulty.lun(image_of(lab), bad=(header, header + 4096)) as bad:
        bad.fail()
        said = one_line(reading_from(lab, bad.device)("backup", "vm1", code=1).err)
        assert "Input/output error" in said
        assert f"{called(lab, bad.device)}: cannot read " in said
        assert lab.server.calls["CreateSnapshot_Task"] == 0
    assert_nothing_left(lab)


def test_a_lun_that_hangs_holds_no_snapshot_for_ever(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with faulty.lun(image_of(lab), bad=data_of(lab)) as bad:
        vcbproxy = reading_from(lab, bad.device, read_timeout_s=1)
        with bad.hanging():
            done = vcbproxy("backup", "vm1", code=1)
            assert bad.reached
            assert re.search(
                rf"{re.escape(called(lab, bad.device))}: no answer for [1-9]\d* s to a read of ", one_line(done.err)
            )
            assert "a read never came back" in caplog.text
            assert_nothing_left(lab)
            lab.vcbproxy("repo", "check", "--read-data")
        assert vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
    assert_restores(lab, "vm1", lab.directory / "back")


def test_ctrl_c_does_not_wait_for_a_lun_that_hangs(lab: Lab) -> None:
    """Nothing can end the read; the VM snapshot and the lock go all the same, at once, and so does what was said."""
    with faulty.lun(image_of(lab), bad=data_of(lab)) as bad:
        vcbproxy = reading_from(lab, bad.device, read_timeout_s=250)
        with ended(vcbproxy.start("backup", "vm1")) as process:
            with bad.hanging():
                until(lambda: bad.reached, "the read", timeout_s=60)
                process.send_signal(signal.SIGINT)
                assert process.stderr is not None
                lines = [process.stderr.readline()]
                while not lines[-1].startswith("vcbproxy: interrupted"):
                    assert lines[-1], lines
                    lines.append(process.stderr.readline())
                assert_nothing_left(lab)
            assert process.wait(timeout=60) == 130


def test_ctrl_c_does_not_wait_for_a_lun_that_hangs_under_several_drives(tmp_path: Path) -> None:
    disk = specification.DiskSpec(8 * MiB, content=specification.ContentSpec(used=0.9))
    vms = tuple(specification.VmSpec(name, "ds1", disks=(disk,)) for name in ("vm1", "vm2"))
    spec = specification.LabSpec((specification.DatastoreSpec("ds1", 5, lun_size_bytes=GiB),), vms)
    with served(tmp_path / "lab", spec) as lab, faulty.lun(image_of(lab), bad=data_of(lab)) as bad:
        config = lab.directory / "vcbproxy.toml"
        config.write_text(config.read_text() + POOL)
        vcbproxy = reading_from(lab, bad.device, read_timeout_s=250)
        vcbproxy("tape", "library", "create", lab.directory / "vtl", "--barcodes", "TAP001L8-TAP002L8")
        with ended(vcbproxy.start("backup", "--all", "--to", "tape:daily", "--drives", 2)) as process:
            with bad.hanging():
                until(lambda: bad.reached, "the read", timeout_s=60)
                process.send_signal(signal.SIGINT)
                until(lambda: not lab.snapshots("vm1") + lab.snapshots("vm2"), "the end", timeout_s=60)
            assert process.wait(timeout=60) == 130


@pytest.fixture
def two_bad(lab: Lab, tmp_path: Path) -> Iterator[tuple[FaultyLun, FaultyLun]]:
    (tmp_path / "second.img").write_bytes(bytes(MiB))
    (tmp_path / "other.img").write_bytes(bytes(MiB))
    with faulty.lun(image_of(lab)) as bad, faulty.lun(tmp_path / "second.img") as worse:
        yield bad, worse


def listing(luns: tuple[FaultyLun, FaultyLun], folder: Path, read_timeout_s: int) -> Program:
    """Configured for the two and one good image; devices are not looked for."""
    images = ", ".join(f'{{ path = "{path}" }}' for path in (luns[0].device, luns[1].device, folder / "other.img"))
    config = folder / "vcbproxy.toml"
    config.write_text(f"[san]\ndiscover = false\nread_timeout_s = {read_timeout_s}\nimages = [{images}]\n")
    return Program(config)


def test_a_lun_that_hangs_hides_no_other_in_the_list(two_bad: tuple[FaultyLun, FaultyLun], tmp_path: Path) -> None:
    with two_bad[0].hanging(), two_bad[1].hanging():
        *hung, third = listing(two_bad, tmp_path, 2)("lun", "list", "--json", code=3).json
    assert all("no answer for" in row["problem"] for row in hung)
    assert (third["lun"], third["problem"]) == (str(tmp_path / "other.img"), None)


def test_luns_that_hang_are_waited_for_together(two_bad: tuple[FaultyLun, FaultyLun], tmp_path: Path) -> None:
    """One timeout, not one for each: the second is read while the first hangs."""
    with ended(listing(two_bad, tmp_path, 250).start("lun", "list")) as process:
        with two_bad[0].hanging(), two_bad[1].hanging():
            until(lambda: two_bad[0].reached and two_bad[1].reached, "both reads", timeout_s=60)
        assert process.wait(timeout=60) == 0


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive its test."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def when_a_snapshot_is_asked_for(lab: Lab, then: Callable[[], object]) -> AbstractContextManager[None]:
    """Do something between the last look at the LUN before the snapshot and the first after it."""
    lab.server.faults.add("CreateSnapshot_Task", delay_s=1.5)

    def wait() -> None:
        until(lambda: lab.server.calls["CreateSnapshot_Task"], "the snapshot to be asked for", timeout_s=60)
        then()

    return beside(wait)


def test_a_lun_that_shrinks_is_an_error_and_never_zeroes(lab: Lab) -> None:
    """The array makes it smaller after the last look before the snapshot; the disk's data lie beyond."""
    start, _ = data_of(lab)
    with loops.attached(image_of(lab)) as loop:
        vcbproxy = reading_from(lab, loop)
        with when_a_snapshot_is_asked_for(lab, lambda: loops.resize(loop, start)):
            said = one_line(vcbproxy("backup", "vm1", code=1).err)
        assert f"{called(lab, loop)}: cannot read " in said
        assert f"it ended at {start}; was it shrunk or unmapped?" in said
        assert_nothing_left(lab)
        loops.resize(loop, 0)
        assert vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
    assert_restores(lab, "vm1", lab.directory / "back")


@pytest.mark.parametrize("version", [5, 6])
def test_a_lun_with_large_sectors(tmp_path: Path, version: Literal[5, 6]) -> None:
    with served(tmp_path / "lab", specification.tiny(version, snapshots=1)) as lab:
        lab.new_repository()
        with loops.attached(image_of(lab), 4096) as loop, lab.server.guest_writer(writes_per_s=200):
            vcbproxy = reading_from(lab, loop)
            assert vcbproxy("lun", "list", "--json").json[0]["sector_bytes"] == 4096
            assert vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
        assert_restores(lab, "vm1", tmp_path / "back")
