"""Who writes to cartridges, and mends them: with a journal of their own, and with one that is of the past."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tape.volumes import cartridge, drive_with, files_of, formatted, mounted, put
from vcbproxy.archive.hand import Hand
from vcbproxy.cli.maker import maker


@pytest.fixture
def hand(tmp_path: Path) -> Hand:
    return Hand(maker(), lambda: datetime(2026, 11, 27, tzinfo=UTC), tmp_path / "journals")


def test_what_was_complete_is_found_again(hand: Hand, tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    put(hand.mount(drive_with(lun)), "/complete", b"complete")
    cartridge(lun).flush()
    hand.recover(drive_with(lun))
    assert files_of(mounted(lun)) == {"/complete": b"complete"}
    assert list((tmp_path / "journals").iterdir()) == []


def test_a_journal_of_a_state_that_is_past_hinders_nothing(hand: Hand, tmp_path: Path) -> None:
    """Another host has mended and written the cartridge since, and died in its turn."""
    lun = formatted(tmp_path / "TAP001L8")
    put(hand.mount(drive_with(lun)), "/ours", b"ours")
    Hand(maker(), hand.now).recover(drive_with(lun))
    with mounted(lun) as volume:
        put(volume, "/theirs", b"theirs")
    put(mounted(lun), "/lost", b"lost")
    cartridge(lun).flush()
    hand.recover(drive_with(lun))
    assert files_of(mounted(lun)) == {"/theirs": b"theirs"}
