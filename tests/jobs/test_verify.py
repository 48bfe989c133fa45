"""Verification finds what a restore would stumble over, and names the restore points it hurts."""

from __future__ import annotations

import pytest

from tests.program import served
from vcbproxy.lab import spec as specification


@pytest.fixture
def lab(tmp_path):
    with served(tmp_path / "lab", specification.tiny(6)) as lab:
        lab.vcbproxy("repo", "init")
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
