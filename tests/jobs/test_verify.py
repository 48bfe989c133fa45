"""Verification finds what a restore would stumble over, and names the restore points it hurts."""

from __future__ import annotations

import itertools
import os
import subprocess

import pytest

from jobs import verify
from jobs.watcher import Nobody
from tests.program import served
from tests.repository.repositories import info, made, write_point
from vcbproxy.lab import spec as specification
from vcbproxy.repository.backend.base import Unavailable
from vcbproxy.repository.backend.faults import FaultyBackend, Order, Verb, What
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.target import RepositoryTarget


@pytest.fixture
def lab(tmp_path):
    with served(tmp_path / "lab", specification.tiny(6)) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        yield lab


def largest_pack(lab):
    return max(
        (path for path in (lab.repo / "data").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip(path, at):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_named_and_never_restored(lab, tmp_path):
    pack = largest_pack(lab)
    flip(pack, pack.stat().st_size // 2)
    (row,) = lab.vcbproxy("verify", "--json", code=4).json
    assert row["result"] == "DAMAGED"
    assert pack.name in row["errors"][0]
    done = lab.vcbproxy("repo", "check", "--read-data", code=4)
    assert pack.name in done.err + done.out
    lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", code=4)
    assert not (tmp_path / "back" / "scsi0-0.raw").exists()


def test_a_missing_pack_is_found(lab, tmp_path):
    largest_pack(lab).unlink()
    lab.vcbproxy("verify", "vm1@latest", code=4)
    lab.vcbproxy("repo", "check", code=4)
    lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", code=4)


def unreadable(path, _at):
    """As if the storage could not give it: there by its name, and every read fails."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [flip, unreadable])
def test_the_good_points_are_told_from_the_bad(lab, harm):
    first = lab.vcbproxy("points", "list", "--json").json[0]
    with lab.server.guest_writer(writes_per_s=300):
        pass
    lab.datacenter.machine("vm1").guest_write("scsi0-0", 0, bytes(range(256)) * 256)
    before = {path for path in (lab.repo / "data").rglob("*") if path.is_file()}
    lab.vcbproxy("backup", "vm1")
    fresh = [path for path in (lab.repo / "data").rglob("*") if path.is_file() and path not in before]
    for path in fresh:
        harm(path, 40)
    rows = {row["point_id"]: row["result"] for row in lab.vcbproxy("verify", "--json", code=4).json}
    assert rows[first["point_id"]] == "ok"
    assert sorted(rows.values()) == ["DAMAGED", "ok"]


@pytest.fixture
def read_only(lab):
    """The repository, on media that nobody can write to."""
    subprocess.run(["mount", "--bind", "-o", "ro", lab.repo, lab.repo], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", lab.repo], check=True)
    try:
        yield lab
    finally:
        subprocess.run(["umount", lab.repo], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_cannot_be_locked_is_not_damaged(read_only):
    for command in (("verify",), ("restore", "vm1@latest", "--to", read_only.repo.parent / "back"), ("repo", "check")):
        done = read_only.vcbproxy(*command, code=1)
        assert "--no-lock" in done.err
        assert "DAMAGED" not in done.out
        read_only.vcbproxy(*command, "--no-lock")


def repository_of(backend):
    repository = made(backend)
    write_point(repository, info("web01"), scsi0_0="abcd")
    write_point(repository, info("web02", hours=1), scsi0_0="efgh")
    return repository


def test_storage_that_is_away_is_no_damage():
    """Nor is what was proved before it went forgotten."""
    backend = FaultyBackend(MemoryBackend())
    target = RepositoryTarget(repository_of(backend))
    first, second = target.points()
    told = set()
    for loads in itertools.count():
        backend.order(Order(What.LOST, verbs=frozenset({Verb.LOAD}), after=loads, times=0))
        findings = []
        try:
            verify.run(target, [first, second], Nobody(), workers=1, findings=findings)
        except Unavailable:
            assert all(finding.ok for finding in findings)
            told.add(len(findings))
        else:
            break
    assert told == {0, 1}
    assert [finding.ok for finding in findings] == [True, True]
