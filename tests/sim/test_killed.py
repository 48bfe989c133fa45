"""True SIGKILLs: of jobs on a directory at chosen changes, and of the whole program in the midst of a backup."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import ROOT, Lab, served
from tests.real.stock_restic import Restic, programs
from tests.repository.repositories import PASSWORD
from tests.sim import killed
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.repository import Repository
from vcbproxy.units import GiB, MiB


@pytest.mark.parametrize(
    ("kind", "share", "midst"),
    [
        ("backup", 0.3, "midst"),
        ("backup", 0.9, "after"),
        ("incremental", 0.6, "after"),
        ("forget", 0.5, "after"),
        ("prune", 0.1, "midst"),
        ("prune", 0.5, "after"),
        ("prune", 0.9, "after"),
    ],
)
def test_a_killed_job_loses_nothing(kind: str, share: float, midst: str, tmp_path: Path) -> None:
    seed = 21
    world, job = killed.history(seed, kind)
    at = round(share * world.steps(job))
    path = world.saved_to(tmp_path / "repo")
    arguments = [str(path), str(seed), kind, str(at), midst]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.killed", *arguments], cwd=ROOT, timeout=60, check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, f"{job.name}: {done.stderr.decode()}"
    assert list(path.rglob("*-tmp-*")) or midst == "after"
    before = dict(world.points)
    world.store = DirectoryBackend(path)
    world.hold_sound(before.keys() - job.forgets, before | job.makes)
    check_with_restic(path, tmp_path)
    world.points = world.listed(before | job.makes)
    world.unlock()
    world.done(world.full())
    world.done(world.thorough_prune())
    world.hold_sound(set(world.points), world.points)
    world.hold_no_garbage()


def check_with_restic(path: Path, scratch: Path) -> None:
    for program in programs()[:1]:
        restic = Restic(program, path, PASSWORD, scratch)
        restic("check", "--read-data", "--no-lock")


SPEC = LabSpec(
    truth=Truth.DIGEST,
    datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=GiB),),
    vms=(
        VmSpec(
            "vm1",
            "ds1",
            disks=(
                DiskSpec(16 * MiB, content=ContentSpec(Fill.RANDOM, 1.0)),
                DiskSpec(96 * MiB, content=ContentSpec(Fill.RANDOM, 1.0)),
            ),
        ),
    ),
)


def test_what_a_killed_backup_stored_is_not_stored_again(tmp_path: Path) -> None:
    """The first disk's packs are in an index, some of the second's are not: only those cost a second upload."""
    with served(tmp_path / "lab", SPEC) as lab:
        lab.new_repository()
        config = lab.directory / "vcbproxy.toml"
        unlimited = config.read_text()
        config.write_text(f"{unlimited}\n[repository.traffic]\nlimits = [{{ upload_mib_s = 16 }}]\n")
        kill_in_the_second_disk(lab)
        indexed = blobs(lab)
        assert sum(indexed.values()) > 15 * MiB
        packs = {path.name for path in (lab.repo / "data").rglob("*") if path.is_file()}
        config.write_text(unlimited)
        [row] = lab.vcbproxy("backup", "vm1", "--json").json
        assert row["outcome"] == "ok"
        assert row["bytes_stored"] <= 112 * MiB - sum(indexed.values()) + MiB
        again = {path.name for path in (lab.repo / "data").rglob("*") if path.is_file()} - packs
        assert not set(blobs(lab, only=again)) & set(indexed), "a blob that was listed is stored again"
        lab.vcbproxy("repo", "unlock", "--all")
        lab.vcbproxy("repo", "prune", "--max-unused", "0")
        lab.vcbproxy("repo", "check", "--read-data")
        [point] = lab.vcbproxy("points", "list", "--json").json
        assert point["vm"] == "vm1"
        assert lab.snapshots("vm1") == []


def kill_in_the_second_disk(lab: Lab) -> None:
    """Once the index of the first disk is there, and some pack more."""
    process = lab.vcbproxy.start("backup", "vm1")
    deadline = time.monotonic() + 100
    try:
        while not (files(lab, "index") and files(lab, "data") >= 3):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "it does not get there"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate(timeout=60)


def files(lab: Lab, directory: str) -> int:
    return sum(path.is_file() for path in (lab.repo / directory).rglob("*"))


def blobs(lab: Lab, only: set[str] | None = None) -> dict[bytes, int]:
    """The data that is listed in an index, and what each takes; all, or only of some packs."""
    password = lab.password_file.read_text().strip()
    repository = Repository.open(DirectoryBackend(lab.repo), password)
    repository.indexing.load()
    return {
        blob.blob_id: blob.stored_bytes
        for pack in repository.index.packs()
        if only is None or pack.pack_id.hex() in only
        for blob in pack.blobs
        if blob.kind is BlobKind.DATA
    }
