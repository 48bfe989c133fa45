"""``vcbproxy forget`` and pins as an operator meets them: what is said, what is gone, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.program import Done, Program
from tests.repository.repositories import PASSWORD, SMALL, made_in, reopened, write_disk, write_point
from vcbproxy.device import read
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.check import check
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.lockfile import LockRecord
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo

NIGHT = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)


class Place:
    """A repository and the program set up for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = made_in(directory / "repository")
        (directory / "password").write_text(PASSWORD)
        self.configure("")

    def configure(self, retention: str) -> None:
        config = self.directory / "vcbproxy.toml"
        config.write_text(f'[repository]\nlocation = "repository"\npassword_file = "password"\n{retention}\n')
        self._program = Program(config, TZ="UTC")

    def vcbproxy(self, *arguments: object, code: int = 0) -> Done:
        return self._program(*arguments, code=code)

    def forget(self, *arguments: object) -> dict[str, Any]:
        done = self.vcbproxy("forget", *arguments, "--json")
        assert isinstance(done.json, dict)
        return done.json

    def nights(self, vm: str = "web01", count: int = 5) -> list[str]:
        """Ids of restore points, oldest first, the last of last night."""
        return [self.point(vm, days=day) for day in range(count)]

    def point(self, vm: str, days: int, *, partial: bool = False) -> str:
        info = PointInfo(vm, f"50-{vm}", NIGHT + timedelta(days=days - 4))
        if not partial:
            return write_point(self.repository, info, scsi0_0=f"abc{days}"[-3:]).point.id
        with RepositoryTarget(self.repository, SMALL).begin(info) as writer:
            write_disk(writer, "scsi0-0", "ab")
            return writer.commit({"method": "full"}, partial=True).id

    def left(self) -> list[str]:
        return [point.original for point in RepositoryTarget(reopened(self.repository.backend), lock=False).points()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_dry_run_says_why_each_point_stays_or_goes(place: Place) -> None:
    place.nights()
    done = place.vcbproxy("forget", "--keep-last", 1, "--keep-daily", 2, "--dry-run")
    lines = [line.split(maxsplit=3) for line in done.out.splitlines()]
    assert [line[3] for line in lines[1:]] == [
        "forget  1 newer one, 2 newer days",
        "forget  1 newer one, 2 newer days",
        "forget  1 newer one, 2 newer days",
        "keep    daily snapshot",
        "keep    last snapshot, daily snapshot",
    ]
    assert "2 kept, 3 restore points would be forgotten; days begin at midnight in UTC" in done.err
    assert len(place.left()) == 5


def test_what_was_said_is_done_and_the_space_comes_back(place: Place) -> None:
    ids = place.nights() + place.nights("db01", 2)
    packs_before = len(list(place.repository.backend.list(FileKind.PACK)))
    told = place.forget("--keep-last", 2, "--vm", "web*", "--prune")
    assert [row["action"] for row in told["points"]] == ["forgotten"] * 3 + ["keep"] * 2
    assert sorted(place.left()) == sorted(ids[3:])
    assert told["prune"]["result"] == "pruned"
    assert len(list(place.repository.backend.list(FileKind.PACK))) < packs_before
    repository = reopened(place.repository.backend)
    assert check(repository, Subset()).problems == []
    with RepositoryTarget(repository).open("web01@latest") as reader:
        assert read(reader.disk("scsi0-0"), 0, 100)


def test_the_rule_may_be_configured_and_options_replace_it(place: Place) -> None:
    ids = place.nights()
    place.configure('[retention]\nkeep_last = 4\nkeep_within = "1d"\ntime_zone = "Europe/Berlin"')
    assert "Europe/Berlin" in place.vcbproxy("forget", "--dry-run").err
    assert [row["action"] for row in place.forget()["points"]] == ["forgotten", *["keep"] * 4]
    assert [row["action"] for row in place.forget("--keep-yearly", "unlimited")["points"]] == [
        "keep",
        "forgotten",
        "forgotten",
        "keep",
    ]
    assert place.left() == [ids[1], ids[4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no rule says what to keep"),
        (["--keep-last", "0"], "no rule says what to keep"),
        (["--keep-last", "some"], "give a number"),
        (["--keep-last", "-1"], "give a number"),
        (["--keep-within", "3w"], "no length of time"),
        (["--keep-last", "1", "--vm", "nosuch"], "there are some of: web01"),
        (["--keep-last", "1", "--time-zone", "Mars/North"], "no time zone"),
        (["--keep-last", "1", "--even-the-last", "web01"], "named restore points"),
        (["web01@latest", "--keep-last", "1"], "not both"),
        (["web01@2020-01-01T00:00:00Z"], "no restore point"),
        (["nosuch@all"], "no restore points of"),
        (["web01@all"], "--even-the-last web01"),
        (["web01@all", "--even-the-last", "web02"], "--even-the-last web01"),
    ],
)
def test_refused_with_one_line_and_nothing_lost(place: Place, arguments: list[str], message: str) -> None:
    ids = place.nights(count=2)
    done = place.vcbproxy("forget", *arguments, code=2)
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert place.left() == ids


@pytest.mark.parametrize(
    "key", ["keep_last = -1", 'keep_within = "soon"', 'keep_within = ""', 'time_zone = "Mars"', "keep = 3"]
)
def test_a_wrong_key_is_named(place: Place, key: str) -> None:
    place.configure(f"[retention]\n{key}")
    assert f"retention.{key.split()[0]}" in place.vcbproxy("forget", "--dry-run", code=2).err


def test_points_are_forgotten_by_name_and_by_id(place: Place) -> None:
    ids = place.nights()
    told = place.forget("web01@2026-11-16T01:00:00Z", ids[2][:8])
    assert [(row["point_id"], row["reasons"]) for row in told["points"]] == [(ids[0], ["named"]), (ids[2], ["named"])]
    assert place.left() == [ids[1], ids[3], ids[4]]


def test_the_last_good_point_goes_only_when_its_vm_is_named_again(place: Place) -> None:
    good = place.point("web01", 0)
    place.point("web01", 1, partial=True)
    assert "last good restore point" in place.vcbproxy("forget", good[:8], code=2).err
    assert place.forget("web01@latest")["points"][0]["action"] == "forgotten"
    assert place.left() == [good]
    assert "last good restore point" in place.vcbproxy("forget", "web01@latest", code=2).err
    place.forget("web01@all", "--even-the-last", "web01")
    assert place.left() == []


def test_a_good_one_from_the_future_is_not_relied_upon(place: Place) -> None:
    good = place.point("web01", 0)
    place.point("web01", (datetime.now(UTC) - NIGHT).days + 40)
    assert "last good restore point" in place.vcbproxy("forget", good[:8], code=2).err
    assert place.forget("web01@latest")["points"][0]["action"] == "forgotten"
    assert place.left() == [good]


def test_a_last_good_one_from_the_future_is_better_than_a_partial_one(place: Place) -> None:
    place.point("web01", 0, partial=True)
    good = place.point("web01", 20_000)
    assert "last good restore point" in place.vcbproxy("forget", good[:8], code=2).err


def test_a_vm_of_partial_points_alone_keeps_its_last_one(place: Place) -> None:
    ids = [place.point("web01", day, partial=True) for day in range(3)]
    place.forget("--keep-last", 1)
    assert place.left() == [ids[2]]
    assert "is the last restore point" in place.vcbproxy("forget", "web01@latest", code=2).err


def test_a_pin_holds_against_rules_and_names(place: Place) -> None:
    ids = place.nights()
    told = place.vcbproxy("points", "pin", ids[0][:8], "--reason", "before the move", "--json").json
    assert [(row["first_id"], row["pinned"], row["pinned_because"]) for row in told] == [
        (ids[0], True, "before the move")
    ]
    assert told[0]["point_id"] != ids[0]
    assert place.forget("--keep-last", 1)["points"][0]["reasons"] == ["pinned: before the move"]
    assert place.left() == [ids[0], ids[4]]
    assert "unpin" in place.vcbproxy("forget", ids[0], code=2).err
    shown = place.vcbproxy("points", "list").out.splitlines()
    assert shown[0].split()[-2:] == ["PINNED", "BECAUSE"]
    place.vcbproxy("points", "unpin", told[0]["point"], ids[0][:8])
    assert place.forget("--keep-last", 1)["points"][0]["action"] == "forgotten"
    assert place.left() == [ids[4]]


def test_another_reason_replaces_the_first(place: Place) -> None:
    place.nights(count=1)
    for reason in (["--reason", "one"], ["--reason", "two"], []):
        [row] = place.vcbproxy("points", "pin", "web01@latest", *reason, "--json").json
    assert row["pinned_because"] == "two"
    assert "commas" in place.vcbproxy("points", "pin", "web01@latest", "--reason", "a, b", code=2).err


def test_nothing_is_pinned_when_one_of_the_names_means_nothing(place: Place) -> None:
    ids = place.nights(count=2)
    place.vcbproxy("points", "pin", "web01@latest", "nosuch@latest", code=2)
    assert [point.id for point in points(place.repository)] == ids


def points(repository: Repository):
    return RepositoryTarget(reopened(repository.backend), lock=False).points()


@pytest.mark.parametrize("command", [["forget", "--keep-last", "1"], ["points", "pin", "web01@latest"]])
def test_a_backup_that_runs_is_waited_for_by_trying_again(place: Place, command: list[str]) -> None:
    ids = place.nights(count=2)
    record = LockRecord(datetime.now(UTC), False, Identity("elsewhere", "backup", 12))
    place.repository.files.save_sealed(FileKind.LOCK, record.encode())
    assert "is locked" in place.vcbproxy(*command, code=11).err
    assert place.left() == ids
    assert json.loads(place.vcbproxy("forget", "--keep-last", "1", "--dry-run", "--json").out)["points"]


def test_what_comes_from_the_future_is_told(place: Place) -> None:
    ids = place.nights(count=2)
    far = (datetime.now(UTC) - NIGHT).days + 40
    forged = [place.point("web01", far + day) for day in range(3)]
    done = place.vcbproxy("forget", "--keep-last", 2)
    assert "dated in the future" in done.err
    assert place.left() == [*ids, *forged]


def test_a_point_that_was_found_damaged_pushes_no_whole_one_out(place: Place) -> None:
    old = place.point("web01", 0)
    packs = {path for path in (place.directory / "repository" / "data").rglob("*") if path.is_file()}
    new = place.point("web01", 1)
    added = [path for path in (place.directory / "repository" / "data").rglob("*") if path.is_file()]
    for path in set(added) - packs:
        content = bytearray(path.read_bytes())
        content[20] ^= 1
        path.chmod(0o600)
        path.write_bytes(content)
    assert place.forget("--keep-last", 1, "--dry-run")["points"][0]["action"] == "forget"
    place.vcbproxy("repo", "check", "--read-data", code=4)
    done = place.vcbproxy("forget", "--keep-last", 1)
    assert "1 of them need data" in done.err
    assert "last snapshot (suspect)" in done.out
    assert place.left() == [old, new]
    assert "last good" in place.vcbproxy("forget", old, code=2).err


def test_nothing_goes_while_a_note_of_damage_is_unreadable(place: Place) -> None:
    """The newest may be the one that is hurt: then the one before it must stay."""
    ids = place.nights(count=2)
    notes = place.directory / "repository" / FileKind.SUSPECT.value
    notes.mkdir(parents=True, exist_ok=True)
    (notes / ("ab" * 32)).write_bytes(bytes(100))
    assert "read-data" in place.vcbproxy("forget", "--keep-last", 1, code=4).err
    assert place.left() == ids


def test_other_programs_snapshots_are_not_its_business(place: Place) -> None:
    ids = place.nights(count=2)
    [tree] = {point.tree for point in points(place.repository)[:1]}
    foreign = Snapshot("", NIGHT - timedelta(days=900), tree, ("/home",), "laptop", tags=("mine",))
    stranger = place.repository.save_snapshot(foreign, None)
    place.forget("--keep-last", 1)
    assert {found.snapshot_id for found in reopened(place.repository.backend).snapshots()} == {stranger, ids[1]}
