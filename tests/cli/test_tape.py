"""`vcbproxy tape volume`, on the cartridge that the reference implementation wrote, and on damaged ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.loop import LoopTransport
from tape.encryption import Key, encrypted
from tape.ltfs.journal import Journal
from tape.ltfs.volume import LtfsVolume
from tests.program import Program
from tests.tape import golden
from vcbproxy.cli.maker import maker


@pytest.fixture
def cartridge(tmp_path: Path) -> Path:
    return golden.unpacked(tmp_path)


@pytest.fixture
def vcbproxy() -> Program:
    return Program()


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_foreign_volume_is_listed_read_and_checked_and_left_as_it_was(vcbproxy: Program, cartridge: Path) -> None:
    before = state(cartridge)
    listed = vcbproxy("tape", "volume", "ls", cartridge, "--json").json
    assert {row["path"]: row["type"] for row in listed} == {
        "/a:b<c>%25 é.txt": "file",
        "/big.bin": "file",
        "/dir1": "directory",
        "/dir1/hello.txt": "file",
        "/empty": "file",
        "/lnk": "symlink",
    }
    assert [row["path"] for row in vcbproxy("tape", "volume", "ls", cartridge, "/dir1", "--json").json] == [
        "/dir1/hello.txt"
    ]
    checked = vcbproxy("tape", "volume", "check", cartridge, "--read-data", "--json").json
    assert (checked["name"], checked["files"], checked["bytes"], checked["damaged"]) == ("myvol", 4, 3_000_006, [])
    assert state(cartridge) == before


def test_a_files_bytes_go_to_standard_output(vcbproxy: Program, cartridge: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vcbproxy", "tape", "volume", "cat", str(cartridge), "/big.bin"],
        env=vcbproxy.environment,
        check=True,
        capture_output=True,
    )
    blocks = b"".join((cartridge / f"1_{number}_R").read_bytes() for number in range(8, 14))
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(blocks).digest()


@pytest.mark.parametrize(
    ("path", "says"),
    [("/nope", "no /nope on volume"), ("/dir1", "is a directory"), ("/lnk", "a symbolic link to dir1/hello.txt")],
)
def test_what_is_no_file_is_no_damage(vcbproxy: Program, cartridge: Path, path: str, says: str) -> None:
    assert says in vcbproxy("tape", "volume", "cat", cartridge, path, code=2).err


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tape: (tape / "1_16_F").rename(tape / "1_16_R"), "blocks lie behind the last index"),
        (lambda tape: (tape / "0_0_R").write_bytes(b"x" * 80), "not an LTFS volume"),
        (lambda tape: (tape / "1_2_R").write_bytes((tape / "0_2_R").read_bytes()), "both partitions say"),
        (lambda tape: (tape / "1_15_R").write_bytes(b"<?xml version='1.0'?><ltfsindex>"), "index"),
        (lambda tape: [path.unlink() for path in tape.glob("*_R")], "end of data where the label belongs"),
    ],
)
def test_what_is_not_whole_ends_with_4_and_says_why(
    vcbproxy: Program, cartridge: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(cartridge)
    done = vcbproxy("tape", "volume", "check", cartridge, code=4)
    assert says in done.err
    assert len(done.err.splitlines()) == 1


def test_a_block_that_is_short_damages_its_file_alone(vcbproxy: Program, cartridge: Path) -> None:
    path = cartridge / "1_10_R"
    path.write_bytes(path.read_bytes()[:-1])
    assert vcbproxy("tape", "volume", "check", cartridge, "--json").json["damaged"] == []
    done = vcbproxy("tape", "volume", "check", cartridge, "--read-data", "--json", code=4)
    assert done.json["damaged"] == ["/big.bin"]


def test_a_name_on_a_volume_does_not_reach_the_terminal_as_it_is(vcbproxy: Program, cartridge: Path) -> None:
    """Whoever wrote the cartridge would move the cursor of who looks at it."""
    for index in ("1_15_R", "0_5_R"):
        path = cartridge / index
        text = path.read_text()
        assert "<name>big.bin</name>" in text
        path.write_text(text.replace("<name>big.bin</name>", '<name percentencoded="true">%1B%5B2Jbig.bin</name>'))
    path = cartridge / "1_10_R"
    path.write_bytes(path.read_bytes()[:-1])
    done = vcbproxy("tape", "volume", "check", cartridge, "--read-data", code=4)
    listed = vcbproxy("tape", "volume", "ls", cartridge)
    for said in (done.out, done.err, listed.out):
        assert "\x1b" not in said
        assert "\\x1b[2Jbig.bin" in said


def test_a_writer_that_died_is_rolled_back(vcbproxy: Program, cartridge: Path) -> None:
    (cartridge / "1_17_E").rename(cartridge / "1_18_E")
    (cartridge / "1_17_R").write_bytes(b"data that no index knows")
    (cartridge / "attr_1_80c").unlink()
    assert vcbproxy("tape", "volume", "recover", cartridge, "--dry-run", "--json").json["consistent"] is False
    listed = vcbproxy("tape", "volume", "ls", cartridge, "--json", code=4)
    assert "this is an older state" in listed.err
    assert "recover" in listed.err
    assert "/big.bin" in {row["path"] for row in listed.json}
    assert vcbproxy("tape", "volume", "recover", cartridge, "--json").json == {
        "generation": 3,
        "orphan_blocks": 1,
        "written": True,
        "found": [],
        "lost": [],
    }
    checked = vcbproxy("tape", "volume", "check", cartridge, "--read-data", "--json").json
    assert (checked["generation"], checked["files"], checked["damaged"]) == (3, 4, [])


def test_what_a_dead_writer_had_finished_is_found_by_its_journal(
    vcbproxy: Program, cartridge: Path, tmp_path: Path
) -> None:
    journals = tmp_path / "journals"
    lun = DriveLun("WRITER")
    lun.insert(Cartridge(cartridge))
    drive = TapeDrive(LoopTransport(lun))
    drive.load()
    volume = LtfsVolume.mount(drive, maker(), time.time_ns, journal=Journal(journals))
    for path in ("/kept", "/taken"):
        writer = volume.create(path)
        writer.write(path.encode())
        writer.finish()
    drive.flush()
    end = lun.cartridge.tracks[1].end if lun.cartridge is not None else 0
    (cartridge / f"1_{end - 1}_R").write_bytes(b"/rotten")
    done = vcbproxy("tape", "volume", "recover", cartridge, "--journal", journals, "--json", code=4)
    assert (done.json["found"], done.json["lost"]) == (["/kept"], ["/taken"])
    assert "/taken: what lies there" in done.err
    rows = vcbproxy("tape", "volume", "ls", cartridge, "--json").json
    assert {row["path"] for row in rows} & {"/kept", "/taken"} == {"/kept"}


def test_what_a_drive_encrypted_is_read_with_its_key_alone(vcbproxy: Program, cartridge: Path, tmp_path: Path) -> None:
    key = Key(bytes(range(32)))
    lun = DriveLun("WRITER")
    lun.insert(Cartridge(cartridge))
    drive = TapeDrive(LoopTransport(lun))
    drive.load()
    with encrypted(drive, key), LtfsVolume.mount(drive, maker(), time.time_ns) as volume:
        writer = volume.create("/secret")
        writer.write(b"secret")
        writer.finish()
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(bytes(range(32)).hex())
    wrong.write_bytes(bytes(32))
    command = ("tape", "volume", "check", cartridge, "--read-data", "--json")
    assert vcbproxy(*command, "--key-file", right).json["damaged"] == []
    assert f"wants the key {key.identity}, none was given" in vcbproxy(*command, code=12).err
    assert f"wants the key {key.identity}, the key of" in vcbproxy(*command, "--key-file", wrong, code=12).err
    assert "cannot read the key" in vcbproxy(*command, "--key-file", tmp_path / "none", code=12).err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ls", "/nowhere"], 1, "No such file"),
        (["ls", "/dev/null"], 1, "no sg device"),
    ],
)
def test_what_is_no_drive_is_named(vcbproxy: Program, arguments: list[str], code: int, says: str) -> None:
    assert says in vcbproxy("tape", "volume", *arguments, code=code).err
