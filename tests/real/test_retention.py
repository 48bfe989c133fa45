"""What stays and why, compared with stock `restic forget --dry-run` on the same snapshots.

The differences of decision 23 (partial, suspect and future points, pins, the doubled hour) do not occur here: each is
looked at by itself in `tests/jobs/test_retention.py`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.retention import UNLIMITED, Duration, Rule, judge
from tests.real.stock_restic import Restic, programs, version_of
from tests.repository.repositories import PASSWORD, made_in, write_point
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.target import RepositoryTarget

SEEDS = range(12)
NEWEST = datetime(2025, 3, 31, 22, 17, tzinfo=UTC)
RULES = [
    Rule(daily=7, weekly=5, monthly=12, yearly=10),
    Rule(last=3, hourly=20, weekly=2),
    Rule(last=1, daily=400),
    Rule(within=Duration(months=1, hours=5), yearly=3),
    Rule(last=2, within_hourly=Duration(hours=30), within_daily=Duration(months=13)),
    Rule(within_weekly=Duration(years=1, months=1), within_monthly=Duration(years=2), within_yearly=Duration(years=9)),
    Rule(monthly=UNLIMITED),
]


def record_moments(repository: Repository, tree: bytes) -> None:
    """One VM a seed: in bursts and with gaps, over the ends of days, weeks, months and years."""
    for seed in SEEDS:
        dice = random.Random(seed)
        moment = NEWEST - timedelta(hours=dice.randrange(24 * 40))
        for _ in range(dice.randrange(1, 60)):
            moment -= timedelta(minutes=dice.choice((7, 43, 60, 300, 1440, 1440, 1441, 10_000, 44_000)), seconds=seed)
            tags = ("vcbproxy", f"vm:{seed}")
            repository.save_snapshot(Snapshot("", moment, tree, (f"/vm{seed}",), f"vm{seed}", tags=tags), None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = made_in(tmp_path_factory.mktemp("retention") / "repository")
    record_moments(repository, write_point(repository, scsi0_0="a").point.tree)
    return repository


def options(rule: Rule) -> list[str]:
    given = {name: getattr(rule, name) for name in Rule.__slots__}
    counts = {name: "unlimited" if value == UNLIMITED else value for name, value in given.items() if value}
    return [f"--keep-{name.replace('_', '-')}={value}" for name, value in counts.items()]


def known_to(version: tuple[int, ...], reasons: Iterable[str]) -> set[str]:
    """Restic before 0.16 does not keep the oldest of all."""
    return {reason for reason in reasons if version >= (0, 16) or not reason.startswith("oldest ")}


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
@pytest.mark.parametrize("program", programs())
def test_restic_keeps_the_same_for_the_same_reasons(
    written: Repository, tmp_path: Path, program: str, rule: Rule
) -> None:
    version = version_of(program)
    if rule.monthly == UNLIMITED and version < (0, 16):
        pytest.skip("restic before 0.16 cannot say unlimited")
    restic = Restic(program, Path(written.location), PASSWORD, tmp_path)
    answer = restic("forget", "--dry-run", "--json", "--group-by", "host", *options(rule))
    theirs = {
        f"{found['snapshot']['hostname']}@{found['snapshot']['time']}": set(found["matches"])
        for group in json.loads(answer.decode().splitlines()[0])
        for found in group["reasons"]
    }
    points = RepositoryTarget(written, lock=False).points()
    verdicts = judge(points, rule, now=datetime.now(UTC), zone=UTC)
    ours = {one.point.name: known_to(version, one.reasons) for one in verdicts if one.keep}
    assert {name: reasons for name, reasons in ours.items() if reasons} == theirs
    assert len(points) > len(theirs)
