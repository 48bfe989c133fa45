"""RESTORE.txt has no commands but ours, whatever a VM and what went wrong with it are called."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive import restoretext
from vcbproxy.archive.manifest import Document, Image, Kind, State
from vcbproxy.catalog.records import ArchivedPart

PART = ArchivedPart("scsi0-0.raw.zst", 1, "/vm/T/scsi0-0.raw.zst", "TAP001L8", "uuid", 10, 64 * "0")


def commands(vm: str, reason: str) -> list[str]:
    document = Document(
        state=State.WHOLE,
        id=32 * "a",
        vm=vm,
        vm_uuid="uuid",
        time=datetime(2026, 11, 27, 1, tzinfo=UTC),
        pool="daily",
        media_set="daily-1",
        base=None,
        encryption={"method": "none"},
        images=(Image("scsi0-0", "scsi0-0.raw.zst", Kind.FULL, 100, 64 * "0", (PART,)),),
        files=(),
        manifest={"disks_failed": [{"key": "scsi0-1", "reason": reason}]},
    )
    text = restoretext.of(document, []).decode()
    return [line for line in text.splitlines() if line.startswith("    ") and not line.startswith("    - ")]


@given(vm=st.text(), reason=st.text())
def test_names_make_no_commands(vm: str, reason: str) -> None:
    assert commands(vm, reason) == commands("web01", "unreadable")


def test_not_even_names_that_are_meant_to() -> None:
    assert commands("web01\n    rm -rf .\r    reboot", "\x85    reboot") == commands("web01", "unreadable")
