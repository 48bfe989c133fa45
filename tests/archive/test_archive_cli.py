"""The commands, against a lab and a library in a folder, as the manual shows them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyrage
import pytest

from tape.encryption import Key
from tests.archive.shelves import read_file
from tests.archive.tapes import disks_in, follow, spec
from tests.program import Lab, served
from vcbproxy.lab.spec import LabSpec
from vcbproxy.units import MiB

POOL = """
[tape.library.vtl]
folder = "vtl"

[tape.pool.daily]
barcodes = ["TAP001L8-TAP009L8"]
retention = "30d"
"""


@contextmanager
def lab_with_tape(
    tmp_path: Path, lab_spec: LabSpec, *, cartridges: int = 3, capacity: str = "64M", more: str = ""
) -> Iterator[Lab]:
    with served(tmp_path / "lab", lab_spec) as lab:
        config = lab.directory / "vcbproxy.toml"
        config.write_text(config.read_text() + POOL + more)
        barcodes = f"TAP001L8-TAP00{cartridges}L8"
        lab.vcbproxy("tape", "library", "create", lab.directory / "vtl", "--barcodes", barcodes, "--capacity", capacity)
        yield lab


def test_backed_up_to_tape_listed_and_restored(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", "vm2")) as lab:
        rows = lab.vcbproxy("backup", "--all", "--to", "tape:daily", "--json").json
        assert [row["outcome"] for row in rows] == ["ok", "ok"]
        assert rows[0]["barcodes"] == ["TAP001L8"]
        assert rows[0]["tape"]["pool"] == "daily"
        assert rows[0]["tape"]["bytes_on_tape"] > 0
        lab.new_repository()
        listed = lab.vcbproxy("points", "list", "--json")
        assert [(row["vm"], row["on"], row["barcodes"]) for row in listed.json] == [
            ("vm1", "tape:daily", ["TAP001L8"]),
            ("vm2", "tape:daily", ["TAP001L8"]),
        ]
        [needed] = lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--dry-run", "--json").json
        assert (needed["barcode"], needed["where"]) == ("TAP001L8", "library")
        done = lab.vcbproxy("restore", "vm1@latest", "--from", "tape:daily", "--to", tmp_path / "back")
        assert "needed, in this order: TAP001L8" in done.err.splitlines()[0]
        assert disks_in(tmp_path / "back") == lab.truth("vm1")
        both = ("restore", "vm1@latest", "vm2@latest", "--from", "tape")
        refused = lab.vcbproxy(*both, "--disk", "scsi0-0", "--output", tmp_path / "one", code=2)
        assert "--output takes one disk of one" in refused.err
        lab.vcbproxy(*both, "--to", tmp_path / "both")
        for vm in ("vm1", "vm2"):
            [folder] = (tmp_path / "both" / vm).iterdir()
            assert disks_in(folder) == lab.truth(vm)


def test_the_folder_of_a_cartridge_is_restored_by_hand(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1")) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.vcbproxy("tape", "volume", "check", lab.directory / "vtl" / "TAP001L8", "--read-data")
        follow_from(lab, tmp_path / "hand")
        assert disks_in(tmp_path / "hand") == lab.truth("vm1")


def follow_from(lab: Lab, to: Path, key: Path | None = None) -> None:
    """Copy what lies on the first cartridge, and do as its RESTORE.txt says."""
    volume = lab.directory / "vtl" / "TAP001L8"
    to.mkdir()
    for row in lab.vcbproxy("tape", "volume", "ls", volume, "--json").json:
        if row["type"] == "file":
            file = read_file(volume, row["path"])
            (to / row["path"].rpartition("/")[2]).write_bytes(file)
    if key is not None:
        shutil.copy(key, to / "key.txt")
    follow(to)


@pytest.mark.parametrize("target", ["daily", "disk:daily", "tape:"])
def test_what_is_no_target_is_refused(tmp_path: Path, target: str) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        assert "tape:POOL" in lab.vcbproxy("backup", "vm1", "--to", target, code=2).err
        assert "no pool other" in lab.vcbproxy("backup", "vm1", "--to", "tape:other", code=2).err


def test_encrypted_images_are_read_with_the_identity_and_by_stock_age(tmp_path: Path) -> None:
    made = pyrage.x25519.Identity.generate()
    key = tmp_path / "key.txt"
    key.write_text(f"{made}\n")
    sealed = f'encryption = "age"\nrecipients = ["{made.to_public()}"]\n'
    with lab_with_tape(tmp_path, spec("vm1"), more=sealed) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        assert (
            "--identity"
            in lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "no", code=12).err
        )
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back", "--identity", key)
        assert disks_in(tmp_path / "back") == lab.truth("vm1")
        config = lab.directory / "vcbproxy.toml"
        config.write_text(config.read_text() + f'identity_command = ["cat", "{key}"]\n')
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "again")
        assert disks_in(tmp_path / "again") == lab.truth("vm1")
        vm_json = json.loads((tmp_path / "back" / "vm.json").read_text())
        assert vm_json["encryption"] == {"method": "age", "recipients": [str(made.to_public())]}
        if shutil.which("age") is None:
            pytest.skip("age is not installed (apt: age): what RESTORE.txt says of it was not carried out")
        follow_from(lab, tmp_path / "hand", key)
        assert disks_in(tmp_path / "hand") == lab.truth("vm1")


def test_the_drive_encrypts_with_a_key_that_is_named_and_not_told(tmp_path: Path) -> None:
    key = tmp_path / "drive.key"
    key.write_text("5a" * 32)
    sealed = f'encryption = "hardware"\nhardware_key_file = "{key}"\n'
    with lab_with_tape(tmp_path, spec("vm1", disks=1), more=sealed) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        assert disks_in(tmp_path / "back") == lab.truth("vm1")
        text = (tmp_path / "back" / "vm.json").read_text()
        identity = Key(b"\x5a" * 32).identity
        assert json.loads(text)["encryption"] == {"method": "hardware", "key": identity}
        assert "5a5a" not in text
        key.write_text("5b" * 32)
        done = lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "no", code=12)
        assert identity in done.err, "which key is wanted"
        assert not list((tmp_path / "no").glob("*.raw"))


def test_a_copy_from_the_repository_is_what_the_repository_has(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", size_bytes=16 * MiB, used=0.9), capacity="16M", cartridges=4) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        [row] = lab.vcbproxy("copy", "vm1@latest", "--to", "tape:daily", "--json").json
        assert row["name"].startswith("vm1@")
        stored = lab.vcbproxy("points", "list", "--json").json
        assert [(one["on"], one["time"]) for one in stored] == [
            ("repository", stored[0]["time"]),
            ("tape:daily", stored[0]["time"]),
        ]
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "other")
        assert disks_in(tmp_path / "back") == disks_in(tmp_path / "other") == lab.truth("vm1")
        for path in (tmp_path / "other").glob("vm1*"):
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
        vm_json = json.loads((tmp_path / "back" / "vm.json").read_text())
        assert vm_json["manifest"]["copied_from"]["point"] == stored[0]["first_id"]


def test_a_damaged_chunk_is_not_copied(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        lab.new_repository()
        lab.vcbproxy("backup", "vm1")
        for pack in (lab.repo / "data").glob("*/*"):
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
        lab.vcbproxy("copy", "vm1@latest", "--to", "tape:daily", "--no-cache", code=4)
        assert [row["on"] for row in lab.vcbproxy("points", "list", "--json").json] == ["repository"]


def test_tape_is_verified_and_read_in_parts(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1")) as lab:
        assert "nothing could be verified" in lab.vcbproxy("verify", "--from", "tape", code=1).err
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        [row] = lab.vcbproxy("verify", "--from", "tape:daily", "--json").json
        assert (row["result"], row["disks"], row["bytes_read"]) == ("ok", ["scsi0-0", "scsi0-1"], 8 * MiB)
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        part = ("restore", "vm1@latest", "--from", "tape", "--disk", "scsi0-1", "--range", "1M:64K")
        lab.vcbproxy(*part, "--output", tmp_path / "part")
        whole = (tmp_path / "back" / "scsi0-1.raw").read_bytes()
        assert (tmp_path / "part").read_bytes() == whole[MiB : MiB + 65536]
        assert "--range takes" in lab.vcbproxy(*part, "--to", tmp_path / "x", code=2).err
        for record in (lab.directory / "vtl" / "TAP001L8").glob("1_*_R"):
            data = bytearray(record.read_bytes())
            if b"\x28\xb5\x2f\xfd" in data[:64]:
                data[-9] ^= 1
                record.write_bytes(data)
        [row] = lab.vcbproxy("verify", "--from", "tape:daily", "--json", code=4).json
        assert row["result"] == "DAMAGED"
        done = lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "again", "--salvage", code=4)
        assert ".raw.damaged lacks" in done.err


def test_three_vms_over_three_cartridges_the_catalog_deleted_and_rebuilt(tmp_path: Path) -> None:
    """The exhibit, command by command."""
    lab_spec = spec("vm1", "vm2", "vm3", size_bytes=16 * MiB, used=0.95)
    with lab_with_tape(tmp_path, lab_spec, capacity="24M", cartridges=3) as lab:
        rows = lab.vcbproxy("backup", "--all", "--to", "tape:daily", "--json").json
        assert [row["outcome"] for row in rows] == ["ok", "ok", "ok"]
        assert {barcode for row in rows for barcode in row["barcodes"]} == {"TAP001L8", "TAP002L8", "TAP003L8"}
        spanning = next(row["vm"] for row in rows if len(row["barcodes"]) > 1)
        lab.new_repository()
        before = lab.vcbproxy("points", "list", "--json").json

        [catalog] = lab.directory.rglob("catalog.db")
        for file in catalog.parent.glob("catalog.db*"):
            file.unlink()
        assert lab.vcbproxy("points", "list", "--json").json == []
        lab.vcbproxy("tape", "catalog", "rebuild", "--complete")
        assert lab.vcbproxy("points", "list", "--json").json == before

        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        assert disks_in(tmp_path / "back") == lab.truth("vm1")
        barcodes = next(row["barcodes"] for row in rows if row["vm"] == spanning)
        copied_by_hand(lab, spanning, barcodes, tmp_path / "hand")
        assert follow(tmp_path / "hand").count(": OK\n") >= 4
        assert disks_in(tmp_path / "hand") == lab.truth(spanning)


def copied_by_hand(lab: Lab, vm: str, barcodes: list[str], to: Path) -> None:
    """What RESTORE.txt says: the VM's files of each cartridge, in their order, into one directory."""
    to.mkdir()
    for barcode in barcodes:
        volume = lab.directory / "vtl" / barcode
        for row in lab.vcbproxy("tape", "volume", "ls", volume, f"/{vm}", "--json").json:
            if row["type"] == "file":
                (to / row["path"].rpartition("/")[2]).write_bytes(read_file(volume, row["path"]))


def test_what_is_missing_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.vcbproxy("tape", "media", "vault", "TAP001L8", "--to", "bank")
        lab.vcbproxy("tape", "library", "export", lab.directory / "vtl", "TAP001L8")
        [row] = lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--dry-run", "--json").json
        assert (row["in_library"], row["vault"], row["where"]) == (False, "bank", "vault bank")
        wanted = lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "no", code=14)
        assert "TAP001L8 (vault bank)" in wanted.err
        assert "TAP001L8" in lab.vcbproxy("verify", "--from", "tape", code=14).err


def test_who_waits_for_a_cartridge_is_brought_it(tmp_path: Path) -> None:
    """... though its library in a folder is the waiting program's alone."""
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        lab.vcbproxy("tape", "library", "export", lab.directory / "vtl", "TAP001L8")
        waiting = lab.vcbproxy.start("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back", "--wait")
        with waiting:
            assert waiting.stderr is not None
            assert "TAP001L8" in waiting.stderr.readline()
            lab.vcbproxy("tape", "library", "import", lab.directory / "vtl", "TAP001L8")
            assert waiting.wait(timeout=60) == 0
        assert disks_in(tmp_path / "back") == lab.truth("vm1")


def test_what_lies_on_tape_is_listed_though_the_repository_is_lost(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        assert lab.vcbproxy("points", "list", code=10).out == ""
        assert "catalog rebuild" in lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", "x", code=2).err
        lab.vcbproxy("backup", "vm1", "--to", "tape:daily")
        listed = lab.vcbproxy("points", "list", "--json", code=10)
        assert [row["on"] for row in listed.json] == ["tape:daily"]
        assert "no repository" in listed.err
        wrong = lab.vcbproxy("restore", "vm1@latest", "--from", "tape:nope", "--to", tmp_path / "x", code=2)
        assert "no pool nope is configured; there are: daily" in wrong.err


def test_what_builds_upon_something_damaged_is_not_verified(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1, size_bytes=16 * MiB)) as lab:
        [base] = lab.vcbproxy("backup", "vm1", "--enable-cbt", "--to", "tape:daily", "--json").json
        before = set((lab.directory / "vtl" / "TAP001L8").glob("1_*_R"))
        [delta] = lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--json").json
        assert delta["method"] == "incremental"
        rows = lab.vcbproxy("verify", "vm1@latest", "--from", "tape", "--json").json
        assert [(row["point_id"], row["result"]) for row in rows] == [
            (base["point_id"], "ok"),
            (delta["point_id"], "ok"),
        ]
        for record in before:
            data = bytearray(record.read_bytes())
            if b"\x28\xb5\x2f\xfd" in data[:64]:
                data[-9] ^= 1
                record.write_bytes(data)
        rows = lab.vcbproxy("verify", "vm1@latest", "--from", "tape", "--json", code=4).json
        assert [row["result"] for row in rows] == ["DAMAGED", "DAMAGED"]
        assert "builds on" in rows[1]["errors"][0]


def test_another_key_makes_a_whole_one(tmp_path: Path) -> None:
    """A delta under a new key upon a base under the old one: neither key alone would bring it back."""
    for number in (1, 2):
        (tmp_path / f"{number}.key").write_text(f"5{number}" * 32)
    (tmp_path / "key").write_bytes((tmp_path / "1.key").read_bytes())
    sealed = f'encryption = "hardware"\nhardware_key_file = "{tmp_path / "key"}"\n'
    with lab_with_tape(tmp_path, spec("vm1", disks=1, size_bytes=16 * MiB), more=sealed) as lab:
        lab.vcbproxy("backup", "vm1", "--enable-cbt", "--to", "tape:daily")
        [delta] = lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--json").json
        (tmp_path / "key").write_bytes((tmp_path / "2.key").read_bytes())
        [whole] = lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--json").json
        assert (delta["method"], whole["method"]) == ("incremental", "full")
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        assert disks_in(tmp_path / "back") == lab.truth("vm1")


def test_nothing_more_is_built_upon_a_cartridge_that_failed(tmp_path: Path) -> None:
    """Its label is gone: the next backup goes onto another cartridge, and would be worth nothing without this one."""
    with lab_with_tape(tmp_path, spec("vm1", disks=1, size_bytes=16 * MiB)) as lab:
        lab.vcbproxy("backup", "vm1", "--enable-cbt", "--to", "tape:daily")
        (lab.directory / "vtl" / "TAP001L8" / "0_0_R").write_bytes(bytes(80))
        [first] = lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--json").json
        assert (first["method"], first["barcodes"]) == ("full", ["TAP002L8"])
        [second] = lab.vcbproxy("backup", "vm1", "--to", "tape:daily", "--json").json
        assert second["method"] == "incremental"
        lab.vcbproxy("restore", "vm1@latest", "--from", "tape", "--to", tmp_path / "back")
        assert disks_in(tmp_path / "back") == lab.truth("vm1")


def test_what_was_done_before_a_pool_ran_dry_is_in_the_result(tmp_path: Path) -> None:
    lab_spec = spec("vm1", "vm2", "vm3", "vm4", disks=1, size_bytes=16 * MiB, used=0.95)
    with lab_with_tape(tmp_path, lab_spec, capacity="24M", cartridges=1) as lab:
        dry = lab.vcbproxy("backup", "--all", "--to", "tape:daily", "--json", code=14)
        done = [row["vm"] for row in dry.json if row["outcome"] == "ok"]
        assert done
        assert done == [row["vm"] for row in lab.vcbproxy("points", "list", "--json", code=10).json]


def test_what_was_copied_before_a_pool_ran_dry_is_in_the_result(tmp_path: Path) -> None:
    lab_spec = spec("vm1", "vm2", "vm3", "vm4", disks=1, size_bytes=16 * MiB, used=0.95)
    with lab_with_tape(tmp_path, lab_spec, capacity="24M", cartridges=1) as lab:
        lab.new_repository()
        points = [row["point_id"] for row in lab.vcbproxy("backup", "--all", "--json").json]
        dry = lab.vcbproxy("copy", *points, "--to", "tape:daily", "--json", code=14)
        listed = lab.vcbproxy("points", "list", "--json").json
        assert dry.json
        assert [row["point_id"] for row in dry.json] == [row["point_id"] for row in listed if row["barcodes"]]


def test_a_folder_that_is_no_cartridge_is_said(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1)) as lab:
        assert "is a library" in lab.vcbproxy("tape", "volume", "ls", lab.directory / "vtl", code=2).err
        assert "is no cartridge" in lab.vcbproxy("tape", "volume", "check", tmp_path, code=2).err


def test_copies_build_upon_one_another(tmp_path: Path) -> None:
    with lab_with_tape(tmp_path, spec("vm1", disks=1, size_bytes=16 * MiB)) as lab:
        lab.new_repository()
        truths = []
        for number in range(3):
            lab.datacenter.machine("vm1").guest_write("scsi0-0", (3 + number) * MiB, bytes([65 + number]) * 70_000)
            lab.vcbproxy("backup", "vm1")
            truths.append(lab.truth("vm1"))
        points = [row["point_id"] for row in lab.vcbproxy("points", "list", "--json").json]
        first, second = lab.vcbproxy("copy", *points[:2], "--to", "tape:daily", "--drives", "2", "--json").json
        assert second["bytes_stored"] < first["bytes_stored"] / 4
        [third] = lab.vcbproxy("copy", points[2], "--to", "tape:daily", "--json").json
        assert third["bytes_stored"] < first["bytes_stored"] / 4
        for row, truth in zip((first, second, third), truths, strict=True):
            to = tmp_path / str(row["point"])
            lab.vcbproxy("restore", row["point_id"], "--from", "tape", "--to", to)
            assert disks_in(to) == truth
        [whole] = lab.vcbproxy("copy", points[2], "--to", "tape:daily", "--full", "--json").json
        assert whole["bytes_stored"] > first["bytes_stored"] / 2
