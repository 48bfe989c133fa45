"""A second, independently installed VM beside the first: what it adds to the repository, ours and stock restic's.

    make bench

Ours is the program as a user runs it, against a lab with both VMs on one LUN; restic gets the two disks as raw files.
Both compress as they do by themselves. Sizes are those of all files of a repository, index and trees included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench import image, twins
from tests.bench.test_backup_bench import newest_restic, size_of, version
from tests.bench.twins import Twin
from tests.program import Lab, served
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, Fill, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

ADDED_MAX = 0.70


@pytest.fixture
def pair() -> tuple[Twin, Twin]:
    return twins.twins()


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="twins-", dir=image.cache()) as directory:
        yield Path(directory)


@pytest.fixture
def lab(scratch: Path, pair: tuple[Twin, Twin]) -> Iterator[Lab]:
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=6 * GiB),),
        vms=tuple(
            VmSpec(
                twin.name,
                "ds1",
                disks=(DiskSpec(twins.SIZE_BYTES, content=ContentSpec(Fill.IMAGE, image=str(twin.path))),),
            )
            for twin in pair
        ),
        truth=Truth.NONE,
    )
    with served(scratch / "lab", spec) as lab:
        yield lab


def ours(lab: Lab, repository: Path, names: Sequence[str]) -> list[int]:
    """What each VM added, one after the other."""
    options = ("--repo", str(repository), "--password-command", "echo bench")
    lab.vcbproxy("repo", "init", *options)
    sizes = [size_of(repository)]
    for name in names:
        lab.vcbproxy("backup", name, *options)
        sizes.append(size_of(repository))
    shutil.rmtree(repository)
    return [after - before for before, after in pairwise(sizes)]


def theirs(restic: Path, repository: Path, disks: Sequence[Path]) -> list[int]:
    cache = str(repository.with_name("restic-cache"))
    environment = {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": cache}

    def run(*arguments: str | Path) -> None:
        subprocess.run([restic, "-q", "-r", repository, *arguments], env=environment, check=True)

    run("init")
    sizes = [size_of(repository)]
    for disk in disks:
        run("backup", disk)
        sizes.append(size_of(repository))
    shutil.rmtree(repository)
    return [after - before for before, after in pairwise(sizes)]


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_what_a_second_vm_adds(lab: Lab, pair: tuple[Twin, Twin], scratch: Path) -> None:
    restic = newest_restic()
    first, second = ours(lab, scratch / "ours", "ab")
    (alone,) = ours(lab, scratch / "ours", "b")
    their_first, their_second = theirs(restic, scratch / "theirs", [twin.path for twin in pair])
    (their_alone,) = theirs(restic, scratch / "theirs", [pair[1].path])

    print("\nTwo systems of 1.5 GiB, 1 GB in use; wanted: B adds at most 0.70 of itself, and no more than with restic")
    print(f"{'MiB stored':24}{'A':>8}{'B alone':>9}{'B beside A':>12}{'share':>8}{'both':>8}")
    for name, a, b, beside in (
        ("vcbproxy", first, alone, second),
        (version(restic), their_first, their_alone, their_second),
    ):
        numbers = f"{a / MiB:8.0f}{b / MiB:9.0f}{beside / MiB:12.0f}{beside / b:8.2f}{(a + beside) / MiB:8.0f}"
        print(f"{name:24}{numbers}")
    shared = twins.blocks_shared(pair[1].path, pair[0].path)
    print(f"{shared:.0%} of B's 4 KiB blocks that are not zero are in A, too: no chunker can save more of its bytes")
    assert second <= ADDED_MAX * alone
    assert second <= their_second
