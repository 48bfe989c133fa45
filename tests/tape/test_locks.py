"""A device belongs to one program at a time, and whoever waits is told who has it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tape.errors import InUse, TapeError, TransportError
from tape.locks import LockFolder
from tape.scsi.sg import SgTransport

HOLDS_IT = """
import sys, pathlib
from tape.locks import LockFolder
with LockFolder(pathlib.Path(sys.argv[1]), command="backup --to tape:daily").held("SN1"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_program_is_named_and_waited_for(tmp_path: Path) -> None:
    locks = LockFolder(tmp_path / "locks")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS_IT, str(tmp_path / "locks")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        told = rf"SN1 is in use by process {other.pid} \(backup --to tape:daily\); wait"
        with pytest.raises(InUse, match=told), locks.held("SN1"):
            pass
        assert str(other.pid) in str(locks.holder("SN1"))
        with locks.held("SN2"):  # another device is nobody's
            pass
        other.kill()  # the lock ends with the process, however that ends
        with locks.held("SN1", wait_s=20):
            pass
    assert locks.holder("SN1") is None


def test_a_wait_ends_in_time(tmp_path: Path) -> None:
    seconds = iter(range(100))
    slept: list[float] = []
    locks = LockFolder(tmp_path, sleep=slept.append, monotonic=lambda: float(next(seconds)))
    with LockFolder(tmp_path).held("SN1"), pytest.raises(InUse), locks.held("SN1", wait_s=5):
        pass
    assert len(slept) == 4


def test_a_holder_without_a_note_is_another_program(tmp_path: Path) -> None:
    with LockFolder(tmp_path).held("SN1"):
        (tmp_path / "SN1.lock").write_text("{")
        assert LockFolder(tmp_path).holder("SN1") == "another program"


@pytest.mark.parametrize("serial", ["../../etc/passwd", "", "a/b", "a\0b"])
def test_no_serial_number_leads_elsewhere(tmp_path: Path, serial: str) -> None:
    with LockFolder(tmp_path / "locks").held(serial):
        assert len(list((tmp_path / "locks").iterdir())) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"locks"}


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TapeError, match="cannot be opened"), LockFolder(tmp_path / "file").held("SN1"):
        pass


def test_users_of_one_directory_can_take_each_others_locks(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with LockFolder(tmp_path).held("SN1"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "SN1.lock").stat().st_mode & 0o777 == 0o666


def test_a_device_is_one_sessions_even_where_no_folder_is_shared() -> None:
    """/dev/zero stands for the device: what is locked is the node, whatever is behind it."""
    held = os.open("/dev/zero", os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(InUse, match="/dev/zero is in use by another program"):
            SgTransport("/dev/zero", alone=True)
        with pytest.raises(TransportError, match="no sg device"):  # one that only asks is let in, as far as this goes
            SgTransport("/dev/zero")
    finally:
        os.close(held)
    with pytest.raises(TransportError, match="no sg device"):
        SgTransport("/dev/zero", alone=True)
