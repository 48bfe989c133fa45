"""A cartridge's folder: what is touched, what is not, and what a full or broken disk below it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.errors import HardwareError, TransportError, WriteProtected
from tape.scsi.iscsi import IscsiTransport
from tape.sequential import Position
from tests.tape.libraries import served, small_library
from tests.tape.shim import ROOT


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tape = Cartridge.create(tmp_path / "TAP001L8", Kind(capacity_mib=100))
    for number, record in enumerate((b"one", b"two", b"three")):
        tape.tracks[0].write(number, record)
    tape.flush()
    return tape.folder


def drive_with(folder: Path, *, read_only: bool = False) -> TapeDrive:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge(folder, read_only=read_only))
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    drive.load()
    return drive


def test_looking_touches_nothing_not_even_on_a_torn_tape(folder: Path) -> None:
    (folder / "0_3_E").unlink()
    (folder / "0_2_R.cut").write_bytes(b"left over")
    before = state(folder)
    drive = drive_with(folder)
    drive.locate(Position(0, 0))
    assert drive.read(memoryview(bytearray(10))) == 3
    drive.locate_end(0)
    drive.flush()
    drive.unload()
    assert state(folder) == before


def test_what_a_writer_that_died_left_over_goes_with_the_next_write(folder: Path) -> None:
    (folder / "0_2_R.cut").write_bytes(b"left over")
    tape = Cartridge(folder)
    tape.tracks[0].write(3, b"four")
    tape.flush()
    assert sorted(path.name for path in folder.glob("0_*")) == ["0_0_R", "0_1_R", "0_2_R", "0_3_R", "0_4_E"]


def test_read_only_is_as_if_the_tab_were_set(folder: Path) -> None:
    drive = drive_with(folder, read_only=True)
    drive.locate_end(0)
    with pytest.raises(WriteProtected):
        drive.write(b"no")
    assert Cartridge(folder).kind.write_protected is False


def test_half_a_record_is_none(folder: Path) -> None:
    """In a process of its own, whose files may not grow beyond a thousand bytes."""
    code = f"""
import resource, signal
from pathlib import Path
from tape.emulator.cartridge import Cartridge
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
tape = Cartridge(Path({str(folder)!r}))
try:
    tape.tracks[0].write(3, bytes(1500))
except OSError as error:
    print(error.strerror)
print(tape.tracks[0].end)
tape.tracks[0].write(3, bytes(500))
tape.flush()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["No space left on device", "3"]
    assert Cartridge(folder).tracks[0].end == 4
    assert Cartridge(folder).tracks[0].size(3) == 500


def test_a_disk_that_fails_is_named_and_not_the_tapes_fault(folder: Path) -> None:
    drive = drive_with(folder)
    drive.locate_end(0)
    folder.rename(folder.with_name("gone"))
    with pytest.raises(TransportError, match=r"TAP001L8/\w+: No such file or directory"):
        drive.write(b"four")


def test_over_iscsi_it_is_a_failure_of_the_drive_and_the_session_goes_on(tmp_path: Path) -> None:
    library = small_library(tmp_path / "library")
    with served(library) as made:
        library.drives[0].insert(library.cartridge("TAP001L8"))
        drive = TapeDrive(IscsiTransport(made.target.url(1)), sleep=lambda _: None)
        drive.load()
        drive.locate(Position(0, 0))
        gone = library.folder / "TAP001L8"
        gone.rename(gone.with_name("gone"))
        with pytest.raises(HardwareError):
            drive.write(b"one")
        gone.with_name("gone").rename(gone)
        drive.locate(Position(0, 0))
        drive.write(b"one")
        drive.close()


def test_what_is_flushed_is_put_on_disk_where_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    from tests.san import loops

    loops.need("strace")
    code = f"""
from pathlib import Path
from tape.emulator.cartridge import Cartridge
for durable in (False, True):
    tape = Cartridge(Path({str(folder)!r}), durable=durable)
    tape.tracks[0].write(tape.tracks[0].end, b"more")
    tape.flush()
    tape.flush()
"""
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=syncfs", "-o", trace, sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert trace.read_text().count("syncfs(") == 1


def test_a_lost_record_leaves_no_second_end_behind(tmp_path):
    """The mark of the end outlived records before it; it must not end what is written there afterwards."""
    tape = Cartridge.create(tmp_path / "TAP001L8")
    for number in range(6):
        tape.tracks[0].write(number, b"%d" % number)
    tape.flush()
    for number in (3, 4, 5):
        (tmp_path / "TAP001L8" / f"0_{number}_R").unlink()
    tape = Cartridge(tmp_path / "TAP001L8")
    assert tape.tracks[0].end == 3
    for number in range(3, 9):
        tape.tracks[0].write(number, b"again")
    tape.flush()
    assert Cartridge(tmp_path / "TAP001L8").tracks[0].end == 9
