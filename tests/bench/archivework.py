"""One archive or restore of the bench, as a program of its own: run by measure.py, says how it went in a JSON file.

archivework.py write LUN SHELF SAYS LEVEL     /disk of the VMFS on a LUN ─▶ the shelf's first cartridge
archivework.py read  RAW SHELF SAYS           the cartridge's image      ─▶ a raw file
"""

from __future__ import annotations

import json
import mmap
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tape.ltfs.stream import FileStream
from tests.archive.shelves import FolderShelf
from tests.pipeline.rawfile import restored
from vcbproxy.pipeline.archive import image_stream
from vcbproxy.san.lun import open_lun
from vcbproxy.vmfs.volume import Volume

BLOCK_BYTES = 512 * 1024
IMAGE = "/bench/scsi0-0.raw.zst"


@dataclass(frozen=True, slots=True)
class Said:
    """How it went."""

    disk_bytes: int
    image_bytes: int
    wall_s: float
    cpu_s: float
    starved_s: float = 0.0


def shelf(folder: Path) -> FolderShelf:
    return FolderShelf(folder, (6000,), block_bytes=BLOCK_BYTES)


def write(lun: Path, folder: Path, level: int) -> Said:
    with shelf(folder).for_writing() as cartridge:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        with open_lun(lun) as device:
            disk = Volume.open([device]).open_file("/disk")
            with (
                FileStream(cartridge.volume.create(IMAGE)) as tape,
                image_stream(disk, lambda: level) as image,
            ):
                for piece in image:
                    assert tape.write(piece), "the cartridge is too small for this bench"
                written = tape.finish()
            disk.recheck()
        cartridge.volume.commit()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Said(image.facts.size_bytes, written.taken, wall_s, cpu_s, written.stats.starved_s)


def put(file: Path, folder: Path) -> Said:
    with shelf(folder).for_writing() as cartridge:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        with file.open("rb") as source, FileStream(cartridge.volume.create(IMAGE)) as tape:
            whole = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
            for at in range(0, len(whole), 4 * BLOCK_BYTES):
                assert tape.write(whole[at : at + 4 * BLOCK_BYTES]), "the cartridge is too small for this bench"
            written = tape.finish()
        cartridge.volume.commit()
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Said(written.taken, written.taken, wall_s, cpu_s, written.stats.starved_s)


def read(raw: Path, folder: Path) -> Said:
    with shelf(folder).for_reading("TAP001L8") as cartridge:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        file = cartridge.volume.open(IMAGE)
        done = restored((piece.data for piece in file.pieces()), raw, int(sys.argv[5]), sha256=sys.argv[6])
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Said(done.size_bytes, file.size_bytes, wall_s, cpu_s)


def main() -> None:
    place, folder, says = (Path(argument) for argument in sys.argv[2:5])
    match sys.argv[1]:
        case "write":
            said = write(place, folder, int(sys.argv[5]))
        case "put":
            said = put(place, folder)
        case _:
            said = read(place, folder)
    says.write_text(json.dumps(asdict(said)))


if __name__ == "__main__":
    main()
