"""``vcbproxy repo`` as an operator meets it: what it prints, and with which code it ends."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.repository.repositories import PASSWORD, info, made_in, write_point
from vcbproxy.cli.main import main
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.lockfile import LockRecord
from vcbproxy.repository.repository import Repository


@dataclass(frozen=True)
class Program:
    place: Path
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str, password: str = PASSWORD) -> tuple[int, Any, str]:
        """Exit code, JSON of stdout (None when there is none), stderr."""
        file = self.place.parent / "password"
        file.write_text(password + "\n")
        with pytest.raises(SystemExit) as ended:
            main(["repo", *arguments, "--repo", str(self.place), "--password-file", str(file), "--json"])
        out, said = self.capture.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, json.loads(out) if out else None, said


@pytest.fixture
def program(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    for name in [name for name in os.environ if name.startswith("VCBPROXY_")]:
        monkeypatch.delenv(name)
    return Program(tmp_path / "repository", capsys)


@pytest.fixture
def repository(program: Program) -> Repository:
    return made_in(program.place)


def test_init_makes_one_and_never_twice(program: Program) -> None:
    code, made, _ = program.run("init", "--window", "32")
    assert (code, made["window"], made["location"]) == (0, 32, str(program.place))
    code, _, said = program.run("init")
    assert code == 1
    assert "already" in json.loads(said)["message"]
    assert program.run("check")[0] == 0
    assert program.run("init", "--window", "7")[0] == 2


def test_init_wants_a_directory_of_its_own(program: Program) -> None:
    (program.place / "lost+found").mkdir(parents=True)
    (program.place / "letters").touch()
    code, _, said = program.run("init")
    assert code == 2
    assert "letters" in json.loads(said)["message"]
    (program.place / "letters").unlink()
    (program.place / "data").mkdir()
    (program.place / "data" / "photos").touch()
    code, _, said = program.run("init")
    assert (code, "data/photos" in json.loads(said)["message"]) == (2, True)
    (program.place / "data" / "photos").unlink()
    assert program.run("init")[0] == 0


def test_init_goes_on_where_another_broke_off(program: Program) -> None:
    """Killed between its directories and its key, or with a key file half written."""
    DirectoryBackend(program.place).create()
    (program.place / "keys" / f"{'ab' * 32}-tmp-0123").touch()
    assert program.run("init")[0] == 0


def test_a_repository_that_lost_its_config_is_not_called_missing(program: Program, repository: Repository) -> None:
    config = program.place / "config"
    kept = config.rename(program.place.parent / "config")
    code, _, said = program.run("check")
    assert (code, json.loads(said)["error"]) == (4, "IntegrityError")
    assert "bring the file `config` back" in json.loads(said)["message"]
    code, _, said = program.run("init")
    assert (code, "bring that back from a copy" in json.loads(said)["message"]) == (1, True)
    kept.rename(config)
    assert program.run("check")[0] == 0


def test_check_of_a_sound_one(program: Program, repository: Repository) -> None:
    write_point(repository, scsi0_0="abC0")
    for options, packs_read in (
        ((), 0),
        (("--read-data",), 3),
        (("--read-data-subset", "1/1"), 3),
        (("--no-lock",), 0),
    ):
        code, found, _ = program.run("check", *options)
        assert (code, found["result"], found["snapshots"], found["packs_read"]) == (0, "ok", 1, packs_read)
    assert program.run("check", "--read-data", "--read-data-subset", "5%")[0] == 2
    assert program.run("check", "--read-data-subset", "7/5")[0] == 2


def test_damage_ends_with_4_and_names_all(program: Program, repository: Repository) -> None:
    write_point(repository, scsi0_0="abcdefgh")
    stored = max(repository.backend.list(FileKind.PACK), key=lambda found: found.size_bytes)
    path = program.place / stored.name.path
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    code, found, said = program.run("check", "--read-data")
    assert code == 4
    [problem] = found["problems"]
    assert stored.name.stem in problem["message"]
    assert problem["points"] == ["web01@2026-11-22T01:00:00Z"]
    assert "web01@2026-11-22T01:00:00Z" in json.loads(said)["message"]


def test_exit_codes_of_what_cannot_be_opened(program: Program, tmp_path: Path) -> None:
    assert program.run("check")[0] == 10
    made_in(program.place)
    assert program.run("check", password="wrong")[0] == 12


def test_a_lock_ends_check_with_11_and_unlock_frees_it(program: Program, repository: Repository) -> None:
    now = datetime.now(UTC)
    old = LockRecord(now - timedelta(hours=1), True, Identity("elsewhere", "restic", 12))
    fresh = LockRecord(now, False, Identity("elsewhere", "restic", 13))
    for record in (old, fresh):
        repository.files.save_sealed(FileKind.LOCK, record.encode())
    code, _, said = program.run("check")
    assert code == 11
    assert "restic@elsewhere" in json.loads(said)["message"]
    code, removed, said = program.run("unlock")
    assert (code, len(removed)) == (0, 1)
    assert "process 12" in removed[0]["was"]
    assert "process 13" in said
    assert program.run("check")[0] == 11
    assert len(program.run("unlock", "--all")[1]) == 1
    assert program.run("check")[0] == 0


def test_prune_says_what_would_go_then_does_it(program: Program, repository: Repository) -> None:
    first = write_point(repository, info(), scsi0_0="abcdefgh")
    write_point(repository, info(hours=1), scsi0_0="efghijkl")
    repository.backend.remove(FileName(FileKind.SNAPSHOT, first.point.id))
    code, foreseen, _ = program.run("prune", "--dry-run", "--max-unused", "0")
    assert (code, foreseen["result"], foreseen["snapshots"]) == (0, "would prune", 1)
    assert foreseen["unused_bytes"] > 4 * 8192
    code, done, _ = program.run("prune", "--max-unused", "0")
    assert (code, done["result"], done["packs_repacked"]) == (0, "pruned", foreseen["packs_repacked"])
    code, again, _ = program.run("prune", "--max-unused", "0")
    assert (code, again["result"]) == (0, "nothing to do")
    assert program.run("check", "--read-data")[0] == 0


@pytest.mark.parametrize("option", [("--max-unused", "100%"), ("--max-repack-size", "much"), ("--grace", "soon")])
def test_prune_refuses_what_it_cannot_read(program: Program, repository: Repository, option: tuple[str, str]) -> None:
    assert program.run("prune", *option)[0] == 2


def test_prune_of_something_damaged_ends_with_4_and_of_a_busy_one_with_11(
    program: Program, repository: Repository
) -> None:
    write_point(repository, scsi0_0="abcdefgh")
    with repository.locked():
        assert program.run("prune")[0] == 11
    largest = max(repository.backend.list(FileKind.PACK), key=lambda found: found.size_bytes)
    repository.backend.remove(largest.name)
    code, _, said = program.run("prune")
    assert code == 4
    assert largest.name.stem in json.loads(said)["message"]
    assert "nothing was removed" in json.loads(said)["message"]


def test_the_configuration_says_how_to_prune(program: Program, repository: Repository) -> None:
    forgotten = write_point(repository, scsi0_0="abcdefgh")
    repository.backend.remove(FileName(FileKind.SNAPSHOT, forgotten.point.id))
    config = program.place.parent / "vcbproxy.toml"
    text = '[repository]\nlocation = "{}"\npassword_file = "password"\n[repository.prune]\ngrace = "{}"\n'
    config.write_text(text.format(program.place, "24h"))
    code, done, _ = program.run("prune", "--config", str(config))
    assert (code, done["packs_waiting"]) == (0, done["packs_removed"])
    assert done["packs_waiting"] > 0
    config.write_text(text.format("/another", "0"))
    assert program.run("prune", "--config", str(config))[1]["packs_waiting"] == done["packs_waiting"]
    assert program.run("prune", "--config", str(config), "--grace", "0")[1]["strays_removed"] == done["packs_waiting"]
    config.write_text(text.format(program.place, "soon"))
    assert program.run("prune", "--config", str(config))[0] == 2
