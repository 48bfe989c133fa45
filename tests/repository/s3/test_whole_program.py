"""The main job into a bucket: initialised, backed up, checked, restored; and stock restic works on the same bucket."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_json import compare
from tests.program import Lab, Program, served
from tests.real import stock_restic
from tests.real.stock_restic import Restic
from tests.repository.s3.kept import CONFIGURATION, PATIENCE, keep_in_bucket, sha256
from tests.seaweed import ADMIN, READER, Seaweed
from vcbproxy.lab import spec as specification

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]


@pytest.fixture
def lab(tmp_path: Path, s3_location: str) -> Iterator[Lab]:
    with served(tmp_path / "lab", specification.tiny(6, disks=2)) as made:
        yield keep_in_bucket(made, s3_location)


def stock(location: str, lab: Lab, scratch: Path) -> Restic:
    found = stock_restic.programs()
    if not found:
        pytest.skip("no restic")
    newest = max(found, key=stock_restic.version_of)
    return Restic(newest, location, lab.password_file.read_text().strip(), scratch)


def test_a_bucket_is_as_good_as_a_directory(lab: Lab, s3_location: str, tmp_path: Path) -> None:
    lab.vcbproxy("repo", "init")
    with lab.server.guest_writer(writes_per_s=200):
        row = lab.vcbproxy("backup", "vm1", "--json").json[0]
    assert row["outcome"] == "ok"
    assert lab.vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
    rows = lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back", "--json").json
    assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == lab.truth("vm1")
    lab.vcbproxy("verify")
    lab.vcbproxy("repo", "check", "--read-data")
    preflight = lab.vcbproxy("check", "--json").json
    assert {row["result"] for row in preflight} == {"ok"}, preflight

    restic = stock(s3_location, lab, tmp_path)
    assert b"no errors were found" in restic("check", "--read-data")
    point = json.loads(restic("snapshots", "--json"))[-1]
    restic("restore", point["id"], "--target", str(tmp_path / "by-restic"))
    found = {path.stem: sha256(path) for path in (tmp_path / "by-restic").rglob("*.raw")}
    assert found == lab.truth("vm1")
    (tmp_path / "something").write_bytes(b"of restic's own")
    restic("backup", str(tmp_path / "something"))
    lab.vcbproxy("repo", "check", "--read-data")


def test_a_repository_of_restics_own_is_opened(lab: Lab, s3_location: str, tmp_path: Path) -> None:
    restic = stock(s3_location, lab, tmp_path)
    restic("init")
    lab.vcbproxy("backup", "vm1")
    assert b"no errors were found" in restic("check", "--read-data")


def test_a_second_init_is_refused(lab: Lab) -> None:
    lab.vcbproxy("repo", "init")
    assert "there is a repository already" in lab.vcbproxy("repo", "init", code=1).err


def test_what_is_wrong_is_said_with_its_exit_code(lab: Lab, seaweed: Seaweed, s3_location: str) -> None:
    lab.vcbproxy("repo", "init")
    config = lab.directory / "bucket.toml"
    command = ("points", "list", "--no-cache")

    wrong_secret = Program(config, **{**ADMIN.environment, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert "key" in wrong_secret(*command, code=12).err
    no_keys = {**ADMIN.environment, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    assert "AWS_ACCESS_KEY_ID" in Program(config, **no_keys)(*command, code=12).err
    nobody = Program(config, **{**ADMIN.environment, "AWS_ACCESS_KEY_ID": "nobody"})
    assert "key" in nobody(*command, code=12).err
    other = ("--repo", f"s3:{seaweed.endpoint}/no-such-bucket", "--password-file", lab.password_file)
    assert "no bucket no-such-bucket" in lab.vcbproxy(*command, *other, code=10).err
    empty = ("--repo", f"s3:{seaweed.endpoint}/{seaweed.new_bucket()}", "--password-file", lab.password_file)
    assert "no repository at" in lab.vcbproxy(*command, *empty, code=10).err
    away = lab.directory / "away.toml"
    away.write_text(
        CONFIGURATION.format(location="s3:http://127.0.0.1:1/bucket", more="") + PATIENCE.format(patience_s=0)
    )
    assert "cannot be reached" in Program(away, **ADMIN.environment)(*command, code=1).err
    reader = Program(config, **READER.environment)
    reader(*command, code=0)
    refused = reader("backup", "vm1", "--no-cache", code=12).err
    assert "refused" in refused
    assert "cannot write locks/" in refused
    assert not lab.snapshots("vm1"), "and no VM snapshot is left"


def test_a_locked_bucket_from_init_to_check(lab: Lab, seaweed: Seaweed, tmp_path: Path) -> None:
    location = f"s3:{seaweed.endpoint}/locked-{uuid.uuid4().hex[:8]}/x"
    locking = keep_in_bucket(lab, location, 'object_lock = "governance"\nobject_lock_days = 7')
    locking.vcbproxy("repo", "init")
    locking.vcbproxy("backup", "vm1")
    locking.vcbproxy("backup", "vm1")
    found = locking.vcbproxy("repo", "check", "--json").json
    compare("repo check", found)
    assert [lock["short"] for lock in found["locks"]] == [0, 0]
    assert "2 of 2 restore points, the first until" in locking.vcbproxy("repo", "check").out
    refused = locking.vcbproxy("forget", "vm1@latest", code=1).err
    assert "is locked until" in refused
    locking.vcbproxy("repo", "prune")
    assert len(locking.vcbproxy("points", "list", "--json").json) == 2
    assert b"no errors were found" in stock(location, lab, tmp_path)("check", "--read-data")
