"""A proxy on a real SAN: one boot of a guest, one suite (tests/guest/inside/san.py), and what must be true of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.guest import machine
from vcbproxy.units import MiB

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("guest"), pytest.mark.timeout(machine.TIMEOUT_S + 60)]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Run]:
    run = machine.run("san", tmp_path_factory.mktemp("guest"), machine.TIMEOUT_S)
    steps = ", ".join(f"{step.name} {step.seconds:.0f} s" for step in run.steps.values())
    print(f"the guest ran {run.seconds:.0f} s, of which it computed {run.cpu_s:.0f} s: {steps}")
    return run


def assert_protected(facts: dict[str, Any]) -> None:
    [row] = facts["report"]
    assert (row["outcome"], row["error"], row["snapshot_left"]) == ("ok", None, None)
    assert facts["restored"] == facts["truth"], "bit for bit"


def test_a_lun_is_listed_once_by_the_name_that_vcenter_has_for_it(guest: machine.Run) -> None:
    name = f"naa.{guest.step('san_comes_up').facts['naa']}"
    rows = [row for row in guest.step("luns_are_listed").facts["luns"] if row["wwn"] == name]
    assert [row["kind"] for row in rows] == ["multipath"]
    [row] = rows
    assert row["lun"] == f"/dev/mapper/3{name.removeprefix('naa.')}"
    assert (row["volume"], row["datastore"], row["missing"], row["problem"]) == ("san6", "san6", None, None)
    assert sorted(path[:-1] for path in row["paths"]) == ["/dev/sd", "/dev/sd"]
    assert row["read_only"], "the udev rule closed it to writers"


def test_without_multipathd_it_is_listed_once_too(guest: machine.Run) -> None:
    facts = guest.step("san_comes_up").facts
    name = f"naa.{facts['naa']}"
    assert [lun["kind"] for lun in facts["bare"] if lun["name"] == name and lun["kind"] != "partition"] == ["disk"]
    assert [lun["kind"] for lun in facts["mapped"] if lun["name"] == name] == ["multipath"]


def test_the_preflight_is_content(guest: machine.Run) -> None:
    checks = guest.step("luns_are_listed").facts["checks"]
    assert {row["check"]: row["detail"] for row in checks if row["result"] == "FAILED"} == {}
    assert {"datastore san6", "datastore nfs1", "repository"} <= {row["check"] for row in checks}


def test_a_backup_outlives_the_cut_of_a_path(guest: machine.Run) -> None:
    facts = guest.step("one_path_is_cut").facts
    print("\n".join(facts["log"]))
    [cut] = facts["cables"]
    other = {"1": "2", "2": "1"}[str(cut)]
    assert facts["read_before"][str(cut)] >= 5 * MiB, "it was cut in the middle of the read"
    assert facts["read_after"][other] >= 4 * MiB, "and the other path took over"
    assert_protected(facts)
    assert facts["snapshots"] == []


def test_the_cut_of_all_paths_is_a_clean_failure_in_bounded_time(guest: machine.Run) -> None:
    facts = guest.step("both_paths_are_cut").facts
    assert facts["cables"] == [1, 2]
    assert facts["failed_after_s"] < 90
    assert "Input/output error" in facts["stderr"]
    assert facts["snapshots"] == [], "the VM's snapshot is gone"


def test_when_the_paths_are_back_so_is_the_backup(guest: machine.Run) -> None:
    assert_protected(guest.step("paths_come_back").facts)


def test_a_vm_on_an_nfs_export_is_protected(guest: machine.Run) -> None:
    mount = guest.step("nfs_is_mounted").facts["mount"]
    assert " nfs ro," in mount
    assert ",vers=3," in mount
    assert_protected(guest.step("nfs_is_backed_up").facts)


def test_a_file_on_the_export_is_read_past_the_page_cache(guest: machine.Run) -> None:
    facts = guest.step("nfs_is_read_directly").facts
    assert facts["direct"]
    assert facts["read"] == ["before", "before", "after!"]


def test_what_others_do_to_a_file_on_the_export_is_noticed_at_once(guest: machine.Run) -> None:
    """Though the client may answer stat(2) from attributes that are seconds old."""
    noticed = guest.step("nfs_changes").facts["noticed"]
    assert sorted(noticed) == ["cut", "deleted", "grown", "overwritten", "replaced"]
    assert {name for name, message in noticed.items() if not message.startswith("Changed: ")} == set()


@pytest.mark.parametrize(
    ("deed", "witness", "words"),
    [
        ("write", "calls", "O_WRONLY"),
        ("write", "requests", " W"),
        ("write", "commands", "WRITE_"),
        ("register", "calls", "SG_IO"),
        ("register", "commands", "PERSISTENT_RESERVE_OUT"),
        ("reserve", "calls", "SG_IO"),
        ("reserve", "commands", "RESERVE"),
        ("set read-only", "calls", "BLKROSET"),
    ],
)
def test_the_witnesses_know_guilt(guest: machine.Run, deed: str, witness: str, words: str) -> None:
    """Else their silence on a backup proves nothing."""
    told = guest.step("the_detectors_detect").facts[deed][witness]["accusations"]
    assert any(words in line for line in told), told


def test_the_array_counts_what_is_written(guest: machine.Run) -> None:
    assert guest.step("the_detectors_detect").facts["array"] > 0


@pytest.mark.parametrize("witness", ["calls", "requests", "commands"])
def test_a_backup_is_innocent(guest: machine.Run, witness: str) -> None:
    """No write, no reservation, no ioctl but questions, nothing opened but for reading."""
    facts = guest.step("a_backup_is_traced").facts
    assert facts["code"] == 0
    assert set(facts["read_only"]) == {"0"}, "it could have written"
    assert facts[witness]["seen"] > 50, "the witness was there"
    assert facts[witness]["accusations"] == []


def test_the_array_saw_no_write_and_holds_no_reservation(guest: machine.Run) -> None:
    facts = guest.step("a_backup_is_traced").facts
    assert facts["array"] == 0
    assert "NO registered reservation keys" in facts["keys"]
    assert facts["snapshots"] == []
