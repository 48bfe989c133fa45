"""Small LTFS volumes on the cartridges of the library: what was written to them is known by its name."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterable

from tape.ltfs.format import Maker, Naming
from tape.ltfs.index import File
from tape.ltfs.volume import LtfsVolume
from tape.sequential import SequentialDrive
from vcbproxy.units import KiB

MAKER = Maker("TESTERS", "Guest", "1.0", "guest")
_SIZE = 700 * KiB + 11  # two blocks, the second not full


def format_volume(drive: SequentialDrive, barcode: str) -> None:
    uuid = f"00000000-0000-4000-8000-{int(barcode[3:6]):012d}"
    LtfsVolume.format(drive, Naming(barcode, uuid), MAKER, time.time_ns)


def mount(drive: SequentialDrive, *, search: bool = False) -> LtfsVolume:
    return LtfsVolume.mount(drive, MAKER, time.time_ns, search=search)


def content(name: str) -> bytes:
    return random.Random(name).randbytes(_SIZE)


def write(volume: LtfsVolume, names: Iterable[str]) -> None:
    for name in names:
        writer = volume.create(f"/{name}")
        assert writer.write(content(name)) == _SIZE
        writer.finish()


def append(drive: SequentialDrive, names: Iterable[str]) -> None:
    with mount(drive) as volume:
        write(volume, names)


def told(drive: SequentialDrive, *, search: bool = False) -> dict[str, object]:
    """What a volume holds, and whether each file is what its name says."""
    volume = mount(drive, search=search)
    whole = {}
    for path, entry in volume.index.root.walk():
        if isinstance(entry, File):
            buf = bytearray(entry.length)
            volume.open(path).read_into(0, memoryview(buf))
            whole[path.removeprefix("/")] = hashlib.sha256(buf).digest() == hashlib.sha256(content(entry.name)).digest()
    return {"files": whole, "generation": volume.index.generation, "by_memory": volume.by_memory}
