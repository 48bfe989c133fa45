"""A month of one VM: a full backup, thirty incrementals, forgotten and pruned by ours and by stock restic in turns.

The program as a user runs it, against a lab; what is restored, by both, is compared with what the guest had on its
disk when each snapshot was taken. The whole month is run by `make bench`, a week of it by `make test`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Lab, served
from tests.real.stock_restic import Restic, programs, version_of
from vcbproxy.lab.spec import ContentSpec, DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import GiB, MiB

pytestmark = pytest.mark.real
PROGRAMS = programs()
if not PROGRAMS:
    pytest.skip("restic is not installed", allow_module_level=True)
SIZE_BYTES = 12 * MiB


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    spec = LabSpec(
        datastores=(DatastoreSpec("ds1", 6, lun_size_bytes=GiB),),
        vms=(VmSpec("vm1", "ds1", disks=(DiskSpec(SIZE_BYTES, content=ContentSpec(used=0.6)),), change_tracking=True),),
        truth=Truth.DIGEST,
    )
    with served(tmp_path / "lab", spec) as lab:
        lab.new_repository()
        yield lab


class Month:
    """What was backed up: for each restore point, by its first id, the digest of the disk it must restore to."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.disks: dict[str, str] = {}
        self._chance = random.Random(seed)

    def night(self, method: str) -> str:
        """One backup, read in this way; then the guest goes on writing."""
        [row] = self.lab.vcbproxy("backup", "vm1", "--json").json
        assert (row["outcome"], row["method"]) == ("ok", method)
        self.disks[row["point_id"]] = self.lab.truth("vm1")["scsi0-0"]
        machine = self.lab.datacenter.machine("vm1")
        for _ in range(3):
            length = self._chance.randrange(1, 200_000)
            data = self._chance.randbytes(length) if self._chance.random() < 0.8 else bytes(length)
            machine.guest_write("scsi0-0", self._chance.randrange(SIZE_BYTES - length), data)
        return str(row["point_id"])

    def left(self) -> dict[str, str]:
        """Names of the restore points that are listed, by their first ids."""
        rows = self.lab.vcbproxy("points", "list", "--json").json
        return {row["first_id"]: row["point_id"] for row in rows}

    def hold(self, restic: Restic, expected: set[str], to: Path) -> None:
        """Exactly these are listed, both programs find all sound, and each is restored to what it was."""
        left = self.left()
        assert set(left) == expected
        assert b"no errors were found" in restic("check", "--read-data")
        found = self.lab.vcbproxy("repo", "check", "--read-data", "--json").json
        assert (found["result"], found["problems"]) == ("ok", [])
        self.lab.vcbproxy("verify")
        for first_id in left:
            [row] = self.lab.vcbproxy("restore", first_id, "--to", to / first_id[:8], "--json").json
            assert sha256(Path(row["file"])) == self.disks[first_id]
            Path(row["file"]).unlink()
        oldest = next(iter(left.items()))
        dumped = restic("dump", oldest[1], "/vm1/scsi0-0/scsi0-0.raw")
        assert hashlib.sha256(dumped).hexdigest() == self.disks[oldest[0]]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packs(lab: Lab) -> set[str]:
    return {path.name for path in (lab.repo / "data").rglob("*") if path.is_file()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("nights", [7, pytest.param(30, marks=pytest.mark.bench)])
def test_a_month_of_nights_forgotten_and_pruned_by_both(lab: Lab, tmp_path: Path, nights: int) -> None:
    restic = Restic(max(PROGRAMS, key=version_of), lab.repo, lab.password_file.read_text().strip(), tmp_path)
    month = Month(lab, seed=30)
    made = [month.night("full"), *(month.night("incremental") for _ in range(nights))]
    lab.vcbproxy("points", "pin", made[1], "--reason", "before the upgrade")
    before = packs(lab)

    told = lab.vcbproxy("forget", "--keep-last", 3, "--prune", "--json").json
    actions = [row["action"] for row in told["points"]]
    assert (actions.count("forgotten"), actions.count("keep")) == (nights - 3, 4)
    assert told["prune"]["result"] == "pruned"
    assert before - packs(lab)
    month.hold(restic, {made[1], *made[-3:]}, tmp_path / "ours")
    restic("prune", "--max-unused", "0")

    # the next night builds on what was pruned
    made += [month.night("incremental"), month.night("incremental")]
    restic("forget", "--keep-last", "2", "--keep-tag", "pinned", "--group-by", "host")
    restic("prune", "--max-unused", "0")
    month.hold(restic, {made[1], *made[-2:]}, tmp_path / "theirs")
    assert lab.vcbproxy("repo", "prune", "--json").json["result"] == "nothing to do"

    # and ours on what restic pruned
    lab.vcbproxy("points", "unpin", made[1])
    made.append(month.night("incremental"))
    lab.vcbproxy("forget", "--keep-last", 1)
    assert lab.vcbproxy("repo", "prune", "--max-unused", "0%", "--json").json["result"] == "pruned"
    month.hold(restic, set(made[-1:]), tmp_path / "again")
    assert json.loads(restic("snapshots", "--json"))[-1]["hostname"] == "vm1"
