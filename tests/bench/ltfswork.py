"""What the bench of LTFS volumes measures: ``write FOLDER MIB``, ``read FOLDER``, ``many FOLDER FILES``."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.ltfs.format import Maker, Naming
from tape.ltfs.index import DIGEST, Extent, File, Pointer, Times
from tape.ltfs.readahead import ReadAhead
from tape.ltfs.stream import FileStream
from tape.ltfs.volume import LtfsVolume

MAKER = Maker("BENCH", "bench", "1")
PIECE = 1_234_567


def drive_with(folder: Path) -> TapeDrive:
    lun = DriveLun("BENCH")
    lun.insert(Cartridge(folder))
    drive = TapeDrive(LoopTransport(lun))
    drive.load()
    return drive


def write(folder: Path, mib: int) -> None:
    """One file of random bytes through the ring."""
    Cartridge.create(folder, Kind(capacity_mib=2 * mib + 1024))
    drive = drive_with(folder)
    LtfsVolume.format(drive, Naming("BEN001L8", "11111111-2222-3333-4444-555555555555"), MAKER, time.time_ns)
    pieces = [random.Random(number).randbytes(PIECE) for number in range(16)]
    with LtfsVolume.mount(drive, MAKER, time.time_ns) as volume, FileStream(volume.create("/image")) as stream:
        for number in range((mib << 20) // PIECE):
            stream.write(pieces[number % 16])
        done = stream.finish()
    print(f"starved {done.stats.starved_s:.2f} s, {done.stats.starvations} times")


def read(folder: Path) -> None:
    """It again, against its digest."""
    volume = LtfsVolume.mount(drive_with(folder), MAKER, time.time_ns)
    digest = hashlib.sha256()
    with ReadAhead(volume.open("/image")) as pieces:
        for piece in pieces:
            digest.update(piece.data)
    entry = volume.index.find("/image")
    assert isinstance(entry, File)
    assert entry.xattrs[DIGEST] == digest.hexdigest().encode()


def many(folder: Path, files: int) -> None:
    """An index of so many files: committed, and mounted again."""
    Cartridge.create(folder, Kind(capacity_mib=20_000))
    drive = drive_with(folder)
    LtfsVolume.format(drive, Naming("BEN001L8", "11111111-2222-3333-4444-555555555555"), MAKER, time.time_ns)
    with LtfsVolume.mount(drive, MAKER, time.time_ns) as volume:
        with FileStream(volume.create("/first")) as stream:
            stream.write(bytes(1000))
            stream.finish()
        start = volume.data_end - 1
        for number in range(files):
            home = volume.make_directory(f"/vm{number // 1000}")
            times = Times.all(1_700_000_000_000_000_000 + number)
            extents = (Extent(0, Pointer("b", start), 0, 1000),)
            home.entries[f"file{number}"] = File(f"file{number}", volume.index.new_uid(), times, 1000, extents)
        volume.commit_anew()
    began = time.monotonic()
    again = LtfsVolume.mount(drive, MAKER, time.time_ns)
    print(f"mounted in {time.monotonic() - began:.1f} s")
    assert sum(1 for _ in again.index.root.walk()) > files


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, mib]:
            write(Path(folder), int(mib))
        case ["read", folder]:
            read(Path(folder))
        case ["many", folder, count]:
            many(Path(folder), int(count))
