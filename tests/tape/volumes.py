"""Small LTFS volumes on emulated drives, for tests."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path

from tape.drive import TapeDrive
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.emulator.kinds import Kind
from tape.emulator.loop import LoopTransport
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.index import DIGEST, File
from tape.ltfs.volume import LtfsVolume

MAKER = Maker("TESTERS", "Tester", "1.0", "here")
UUID = "11111111-2222-3333-4444-555555555555"
BLOCK = 4096


class Ticks:
    """A clock that goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self._seconds = itertools.count(1_700_000_000)

    def __call__(self) -> int:
        return next(self._seconds) * 10**9


def drive_with(lun: DriveLun) -> TapeDrive:
    drive = TapeDrive(LoopTransport(lun), sleep=lambda _: None)
    drive.load()
    return drive


def formatted(folder: Path, *, capacity_mib: int = 400, block_bytes: int = BLOCK) -> DriveLun:
    """A drive with a fresh volume in it."""
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge.create(folder, Kind(capacity_mib=capacity_mib)))
    drive = drive_with(lun)
    naming = Naming(folder.name[:8], UUID, "backups", "daily")
    make_volume(drive, naming, MAKER, 10**18, block_bytes=block_bytes)
    drive.close()
    return lun


def mounted(lun: DriveLun, *, search: bool = False) -> LtfsVolume:
    return LtfsVolume.mount(drive_with(lun), MAKER, Ticks(), search=search)


def cartridge(lun: DriveLun) -> Cartridge:
    """The one in it."""
    assert lun.cartridge is not None
    return lun.cartridge


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put(volume: LtfsVolume, path: str, data: bytes) -> None:
    """One file, with its digest."""
    writer = volume.create(path)
    assert writer.write(data) == len(data)
    writer.finish({DIGEST: hashlib.sha256(data).hexdigest().encode()})


def files_of(volume: LtfsVolume) -> dict[str, bytes]:
    """Every file that the index lists, read whole and held against the digest that it bears."""
    found: dict[str, bytes] = {}
    for path, entry in volume.index.root.walk():
        if isinstance(entry, File) and entry.symlink is None:
            data = bytearray(entry.length)
            volume.open(path).read_into(0, memoryview(data))
            if DIGEST in entry.xattrs:
                assert hashlib.sha256(data).hexdigest().encode() == entry.xattrs[DIGEST], path
            found[path] = bytes(data)
    return found
