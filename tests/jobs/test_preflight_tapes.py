"""What the preflight says of tape libraries, with nothing moved."""

from __future__ import annotations

import pytest

from jobs.preflight.result import Level
from jobs.preflight.tapes import looked_at
from tape.cleaninglog import CleaningLog
from tape.emulator.iscsi.target import IscsiTarget
from tape.emulator.library import VirtualLibrary
from tape.locks import LockFolder
from vcbproxy.config import Library

ONE, TWO = "VLIB0001-D1", "VLIB0001-D2"


@pytest.fixture
def virtual(tmp_path):
    return VirtualLibrary.create(tmp_path / "library", barcodes=("TAP001L8", "CLN001L8"))


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def said(state, **libraries):
    return [(result.level, result.detail, result.remedy) for result in looked_at(libraries, state)]


def test_a_library_in_which_all_is_well(virtual, state):
    [result] = looked_at({"main": Library(folder=virtual.folder)}, state)
    assert (result.check, result.level) == ("tape library main", Level.OK)
    assert result.detail == "cartridges in 2 of 8 slots, 0 of 2 drives, 0 of 2 mail slots"


def test_a_library_that_is_not_there_hides_no_other(virtual, state, tmp_path):
    (missing, there) = looked_at({"a": Library(folder=tmp_path / "no"), "b": Library(folder=virtual.folder)}, state)
    assert (missing.level, there.level) == (Level.FAILED, Level.OK)
    with LockFolder(virtual.folder, command="vcbproxy tape library serve").held("library"):
        [busy] = looked_at({"main": Library(folder=virtual.folder)}, state)
    assert busy.exit_code == 11
    assert "library serve" in busy.detail


def test_drives_that_may_not_be_used_and_the_want_of_cleaning_are_warned_of(virtual, state):
    log = CleaningLog(state / "tape" / "cleaning.json")
    log.expired("CLN001L8")
    log.ask(TWO)
    commands = []
    for lun in virtual.drives:
        lun.before = lambda _, command: commands.append(command[0])
    with IscsiTarget(virtual.luns, "iqn.2026-11.test:lib") as target:
        portal = f"iscsi://{target.portal}/iqn.2026-11.test:lib"
        found = said(state, main=Library(portal=portal, drives=(ONE,)))
    assert [level for level, _, _ in found] == [Level.OK, Level.WARNING, Level.WARNING, Level.WARNING]
    assert TWO in found[1][1]
    assert "CLN001L8" in found[2][1]
    assert "drive clean" in found[3][2]
    assert set(commands) <= {0x12, 0xA0}  # who they are was asked, and nothing that could disturb
