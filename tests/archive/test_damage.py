"""Damage on tape: found by verify, named by its place, and the rest salvaged; parts read at random."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.tapewanted import Where
from tape.ltfs.index import File
from tests.archive.tapes import Tapes, disks_in, spec
from tests.archive.test_deltas import night, tracked, write
from tests.jobs.rehearsal import VM
from vcbproxy.archive.frames import FRAME_BYTES
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import IntegrityError, UsageError
from vcbproxy.units import KiB, MiB


def damage(tapes: Tapes, point: ArchivedPoint, file: str, *, at: float = 0.5, lost: bool = False) -> None:
    """Turn some bits of a file as they lie on the cartridge, or lose the whole block."""
    part = next(part for part in point.parts if part.file == file)
    with tapes.shelf.for_reading(part.barcode) as cartridge:
        entry = cartridge.volume.index.find(part.path)
        assert isinstance(entry, File)
        block = entry.extents[0].start.block + int(part.size_bytes * at) // tapes.shelf.block_bytes
    [record] = (tapes.shelf.root / part.barcode).glob(f"1_{block}_R")
    data = bytearray(record.read_bytes())
    if lost:
        record.write_bytes(data[: len(data) // 2])
        return
    data[len(data) // 2] ^= 0x55
    record.write_bytes(data)


def salvaged(path: Path) -> tuple[bytes, list[tuple[int, int]]]:
    """What was written, and what its map says is missing."""
    lines = path.with_name(f"{path.name}.map").read_text().splitlines()
    return path.read_bytes(), [(int(offset), int(length)) for offset, length in map(str.split, lines)]


@pytest.mark.parametrize("lost", [False, True])
def test_the_rest_of_a_damaged_disk_is_salvaged(tmp_path: Path, lost: bool) -> None:
    with Tapes.of(tmp_path, spec(VM, disks=2, size_bytes=20 * MiB, used=0.95)) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        tapes.restored(tmp_path / "whole", point)
        whole = (tmp_path / "whole" / VM / "scsi0-0.raw").read_bytes()
        damage(tapes, point, "scsi0-0.raw.zst", lost=lost)
        done = tapes.restoring(salvage=True).run([Where(point, tmp_path / "back")])
        with pytest.raises(IntegrityError, match=r"scsi0-0.raw.damaged lacks \d+ bytes"):
            done.raise_unless_whole()
        assert disks_in(tmp_path / "back") == {"scsi0-1": tapes.truth(VM)["scsi0-1"]}
        data, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert 1 <= len(missing) <= 2, "a frame, or the two that share a block"
        assert all(offset % FRAME_BYTES == 0 for offset, _ in missing)
        assert len(data) == len(whole)
        for at in range(0, len(whole), FRAME_BYTES):
            known = data[at : at + FRAME_BYTES] == whole[at : at + FRAME_BYTES]
            assert known or at in dict(missing)


def test_without_its_seek_table_a_disk_is_salvaged_frame_by_frame(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec(VM, disks=1, size_bytes=20 * MiB, used=0.95)) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        tapes.restored(tmp_path / "whole", point)
        whole = (tmp_path / "whole" / VM / "scsi0-0.raw").read_bytes()
        damage(tapes, point, "scsi0-0.raw.zst", at=0.9999, lost=True)
        tapes.restoring(salvage=True).run([Where(point, tmp_path / "back")])
        data, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert missing == [(16 * MiB, FRAME_BYTES)]
        assert data[: 16 * MiB] == whole[: 16 * MiB]


def test_whose_changes_are_unknown_is_not_relied_upon(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB, data=random.Random(1).randbytes(256 * KiB))
        night(tapes).raise_unless_ok()
        _, delta = tapes.ledger.points
        damage(tapes, delta, "scsi0-0.delta.map", at=0)
        tapes.restoring(salvage=True).run([Where(delta, tmp_path / "back")], tapes.ledger.points)
        data, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert missing == [(0, len(data))]


def test_a_wrong_digit_in_a_map_puts_nothing_to_a_wrong_place(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB, data=random.Random(1).randbytes(60 * KiB))
        night(tapes).raise_unless_ok()
        _, delta = tapes.ledger.points
        [record] = [path for path in tapes.shelf.root.rglob("1_*_R") if path.read_bytes() == b"2097152 65536\n"]
        record.write_bytes(b"1097152 65536\n")
        done = tapes.restoring().run([Where(delta, tmp_path / "back")], tapes.ledger.points)
        with pytest.raises(IntegrityError, match="its digest differs"):
            done.raise_unless_whole()
        assert disks_in(tmp_path / "back") == {}
        with pytest.raises(IntegrityError, match="its digest differs"):
            tapes.restoring().part(delta, "scsi0-0", tmp_path / "part", (0, 4096), tapes.ledger.points)


def test_a_delta_that_is_lost_is_told_by_its_ranges(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB, data=random.Random(1).randbytes(30 * KiB))
        night(tapes).raise_unless_ok()
        _, delta = tapes.ledger.points
        damage(tapes, delta, "scsi0-0.delta.raw.zst", at=0, lost=True)
        tapes.restoring(salvage=True).run([Where(delta, tmp_path / "back")], tapes.ledger.points)
        _, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert missing == [(2 * MiB, 64 * KiB)]


def test_a_damaged_delta_leaves_what_was_there_before_and_says_so(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB, data=random.Random(1).randbytes(256 * KiB))
        night(tapes).raise_unless_ok()
        _, delta = tapes.ledger.points
        damage(tapes, delta, "scsi0-0.delta.raw.zst", at=0.1)
        done = tapes.restoring(salvage=True).run([Where(delta, tmp_path / "back")], tapes.ledger.points)
        with pytest.raises(IntegrityError):
            done.raise_unless_whole()
        _, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert missing == [(2 * MiB, 256 * KiB)]


def test_a_damaged_small_file_costs_no_disk(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec(VM)) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        damage(tapes, point, "vm1.vmx")
        done = tapes.restoring().run([Where(point, tmp_path / "back")])
        with pytest.raises(IntegrityError, match=r"vm1\.vmx"):
            done.raise_unless_whole()
        assert disks_in(tmp_path / "back") == tapes.truth(VM)


def test_every_image_is_proved_by_itself(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked(disks=2)) as tapes:
        for _ in range(3):
            write(tapes, 3 * MiB, data=random.Random(2).randbytes(64 * KiB))
            night(tapes).raise_unless_ok()
        points = tapes.ledger.points
        wheres = [Where(point, prove=True) for point in points]
        done = tapes.restoring().run(wheres, points)
        done.raise_unless_whole()
        assert len(done.proved) == 6
        damage(tapes, points[1], "scsi0-0.delta.map", at=0)
        damage(tapes, points[2], "scsi0-1.delta.raw.zst", at=0)
        done = tapes.restoring().run(wheres, points)
        assert set(done.failed) == {f"{points[1].name} scsi0-0.delta.map", f"{points[2].name} scsi0-1"}


def test_a_part_of_a_disk_is_read_by_the_seek_tables(tmp_path: Path) -> None:
    rng = random.Random(3)
    with Tapes.of(tmp_path, tracked(), 6, 64) as tapes:
        night(tapes).raise_unless_ok()
        for _ in range(3):
            write(tapes, *(rng.randrange(24 * MiB - 64 * KiB) for _ in range(4)), data=rng.randbytes(50 * KiB))
            night(tapes).raise_unless_ok()
        points = tapes.ledger.points
        tapes.restoring().run([Where(points[-1], tmp_path / "back")], points)
        whole = (tmp_path / "back" / "scsi0-0.raw").read_bytes()
        for number in range(12):
            offset, length = rng.randrange(20 * MiB), rng.choice((1, 700, 128 * KiB, 4 * MiB))
            out = tmp_path / f"part{number}"
            tapes.restoring().part(points[-1], "scsi0-0", out, (offset, length), points)
            assert out.read_bytes() == whole[offset : offset + length]
        with pytest.raises(UsageError, match="the range ends at"):
            tapes.restoring().part(points[-1], "scsi0-0", tmp_path / "no", (24 * MiB, 1), points)


@pytest.mark.parametrize("prove", [False, True])
def test_a_disk_of_which_the_catalog_names_no_part_is_not_passed_over(tmp_path: Path, prove: bool) -> None:
    with Tapes.of(tmp_path, spec(VM)) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        lacking = replace(point, parts=tuple(part for part in point.parts if part.file != "scsi0-0.raw.zst"))
        done = tapes.restoring().run([Where(lacking, None if prove else tmp_path / "back", prove=prove)])
        with pytest.raises(IntegrityError, match="scsi0-0: parts of it are missing"):
            done.raise_unless_whole()


def test_of_an_image_of_which_a_part_is_missing_nothing_is_restored(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec(VM, disks=1, size_bytes=20 * MiB, used=0.95), 8, 64) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        lacking = replace(
            point, parts=tuple(part for part in point.parts if (part.file, part.number) != ("scsi0-0.raw.zst", 2))
        )
        with pytest.raises(IntegrityError, match="scsi0-0"):
            tapes.restoring().run([Where(lacking, tmp_path / "back")]).raise_unless_whole()
        assert disks_in(tmp_path / "back") == {}


def shift_in_table(tapes: Tapes, point: ArchivedPoint, file: str, frames: int) -> None:
    """Turn a bit of the seek table on tape: the first frame claims to be shorter than it is."""
    part = next(part for part in point.parts if part.file == file)
    with tapes.shelf.for_reading(part.barcode) as cartridge:
        entry = cartridge.volume.index.find(part.path)
        assert isinstance(entry, File)
        last = entry.extents[0].start.block + (part.size_bytes - 1) // tapes.shelf.block_bytes
    [record] = (tapes.shelf.root / part.barcode).glob(f"1_{last}_R")
    data = bytearray(record.read_bytes())
    at = len(data) - 9 - 12 * frames + 4
    assert int.from_bytes(data[at : at + 4], "little") == FRAME_BYTES
    data[at + 2] ^= 0x20
    record.write_bytes(data)


def test_a_wrong_length_in_a_seek_table_salvages_nothing_to_a_wrong_place(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, spec(VM, disks=1, size_bytes=20 * MiB, used=0.95)) as tapes:
        tapes.backed_up(VM).raise_unless_ok()
        [point] = tapes.ledger.points
        tapes.restored(tmp_path / "whole", point)
        shift_in_table(tapes, point, "scsi0-0.raw.zst", 5)
        tapes.restoring(salvage=True).run([Where(point, tmp_path / "back")])
        data, missing = salvaged(tmp_path / "back" / "scsi0-0.raw.damaged")
        assert missing == []
        assert data == (tmp_path / "whole" / VM / "scsi0-0.raw").read_bytes()


def test_a_wrong_length_in_a_deltas_seek_table_reads_nothing_from_a_wrong_place(tmp_path: Path) -> None:
    with Tapes.of(tmp_path, tracked()) as tapes:
        night(tapes).raise_unless_ok()
        write(tapes, 2 * MiB, data=random.Random(1).randbytes(12 * MiB))
        night(tapes).raise_unless_ok()
        last = tapes.ledger.points[-1]
        shift_in_table(tapes, last, "scsi0-0.delta.raw.zst", 3)
        with pytest.raises(IntegrityError, match="seek table"):
            tapes.restoring().part(last, "scsi0-0", tmp_path / "part", (12 * MiB, MiB), tapes.ledger.points)
