"""Images that are longer than a cartridge: every way to fall across its end."""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tape.ltfs.index import File
from tests.archive.shelves import FolderShelf
from vcbproxy.archive import layout, reader
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.manifest import Image, Kind
from vcbproxy.archive.point import Identity, TapePoint
from vcbproxy.archive.survey import survey, whole
from vcbproxy.catalog.records import ArchivedPoint
from vcbproxy.errors import CartridgeWanted, IntegrityError, SourceError
from vcbproxy.units import KiB, MiB

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def written(lane: TapeLane, files: dict[str, list[bytes]], minutes: int = 0) -> ArchivedPoint:
    """A restore point of files that are given in pieces."""
    identity = Identity(uuid.uuid4().hex, "web01", "uuid-web01")
    with TapePoint(lane, identity, NOON + timedelta(minutes=minutes)) as point:
        for name, pieces in files.items():
            file = point.begin_file(name, ring_bytes=128 * KiB)
            for piece in pieces:
                file.write(piece)
            sha256 = hashlib.sha256(b"".join(pieces)).hexdigest()
            point.add_image(Image(name, name, Kind.FULL, sum(map(len, pieces)), sha256, file.finish()))
        point.keep("web01.vmx", b"config")
        return point.commit({})


def read_back(shelf: FolderShelf, point: ArchivedPoint) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for barcode in reader.in_order([point]):
        with shelf.for_reading(barcode) as cartridge:
            for part in reader.by_place(cartridge, [part for part in point.parts if part.barcode == barcode]):
                data = b"".join(reader.pieces(cartridge, part))
                assert hashlib.sha256(data).hexdigest() == part.sha256
                found[part.file] = found.get(part.file, b"") + data
    return found


def surveyed(shelf: FolderShelf) -> tuple[list[ArchivedPoint], list[str]]:
    surveys = []
    for barcode in shelf.barcodes:
        with shelf.for_reading(barcode) as cartridge:
            surveys.append(survey(cartridge))
    return whole(surveys)


def test_a_part_that_is_another_than_was_recorded_is_not_taken_for_it(tmp_path: Path) -> None:
    """By its own digest, which its entry in the index bears: so the catalog lists nothing that does not restore."""
    shelf = FolderShelf(tmp_path, (64,))
    with TapeLane(shelf) as lane:
        point = written(lane, {"disk0": [bytes(MiB)]})
        part = next(part for part in point.parts if part.file == "disk0")
        volume = lane.cartridge.volume
        old = volume.index.find(part.path)
        assert isinstance(old, File)
        volume.index.make_directory(part.path.rpartition("/")[0], 0).entries.pop(old.name)
        writer = volume.create(part.path)
        writer.write(b"x" * MiB)
        writer.finish({layout.MARK: old.xattrs[layout.MARK]})
    points, told = surveyed(shelf)
    assert points == []
    assert "disk0" in " ".join(told)


def test_a_file_of_nothing_but_holes_is_not_read_for_ever(tmp_path: Path) -> None:
    """An index that names exabytes, and a catalog that was made anew from it."""
    shelf = FolderShelf(tmp_path, (64,))
    with TapeLane(shelf) as lane:
        point = written(lane, {"disk0": [bytes(MiB)]})
        entry = lane.cartridge.volume.index.find(point.parts[0].path)
        assert isinstance(entry, File)
        entry.length = 1 << 62
    with shelf.for_reading("TAP001L8") as cartridge, pytest.raises(IntegrityError, match="has holes"):
        reader.small(cartridge, replace(point.parts[0], size_bytes=1 << 62))


def pieces_of(data: bytes, rng: random.Random) -> list[bytes]:
    pieces = []
    while data:
        length = rng.randint(1, 300 * KiB)
        pieces.append(data[:length])
        data = data[length:]
    return pieces


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 7 * MiB), min_size=1, max_size=3),
    around=st.none() | st.integers(-32 * KiB, 32 * KiB),
    seed=st.integers(0, 2**32),
)
def test_wherever_a_cartridge_ends(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], around: int | None, seed: int
) -> None:
    shelf = FolderShelf(tmp_path_factory.mktemp("shelf"), (5, 6, 5, 12, 64), 16 * KiB)
    rng = random.Random(seed)
    if around is not None:  # end right at, or a little beside, what the first cartridge holds
        with shelf.for_writing() as cartridge:
            sizes[0] = max(cartridge.volume.recording.room.data_bytes + around, 1)
    files = {f"disk{number}": rng.randbytes(size) for number, size in enumerate(sizes)}
    with TapeLane(shelf) as lane:
        point = written(lane, {name: pieces_of(data, rng) for name, data in files.items()})
    back = read_back(shelf, point)
    assert {name: back[name] for name in files} == files
    assert back["web01.vmx"] == b"config"
    points, told = surveyed(shelf)
    assert points == [point]
    assert told == []
    for barcode in point.barcodes:
        assert_understandable(shelf, barcode, last=barcode == point.barcodes[-1])


def assert_understandable(shelf: FolderShelf, barcode: str, *, last: bool) -> None:
    """Each cartridge by itself says what lies on it."""
    with shelf.for_reading(barcode) as cartridge:
        found = survey(cartridge)
        assert len(found.points) == (1 if last else 0)
        [folder] = {part.path.rpartition("/")[0] for _, part in found.parts}
        for name in ("vm.json", "RESTORE.txt", "SHA256SUMS"):
            assert cartridge.volume.index.find(f"{folder}/{name}") is not None, f"{name} on {barcode}"


def test_what_was_broken_off_is_named_by_nobody(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path, (5, 8, 64))
    rng = random.Random(1)
    with TapeLane(shelf) as lane:
        kept = written(lane, {"disk0": [rng.randbytes(MiB)]})
        with pytest.raises(SourceError):
            break_off(lane, rng)
        later = written(lane, {"disk0": [rng.randbytes(MiB)]}, minutes=1)
    points, told = surveyed(shelf)
    assert points == [kept, later]
    assert told == []
    with shelf.for_reading(later.barcodes[-1]) as cartridge:
        assert cartridge.volume.index.find("/db01") is None, "the present cartridge does not even list it"


def break_off(lane: TapeLane, rng: random.Random) -> None:
    with TapePoint(lane, Identity("b" * 32, "db01", "uuid-db01"), NOON) as point:
        file = point.begin_file("disk0", ring_bytes=128 * KiB)
        for _ in range(20):
            file.write(rng.randbytes(512 * KiB))
        file.finish()
        file = point.begin_file("disk1", ring_bytes=128 * KiB)
        file.write(rng.randbytes(512 * KiB))
        raise SourceError("the LUN is gone")


def test_an_image_that_is_begun_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path, (5, 8, 8, 64))
    rng = random.Random(2)
    data = rng.randbytes(7 * MiB)
    with TapeLane(shelf) as lane, TapePoint(lane, Identity("a" * 32, "web01", "uuid"), NOON) as point:
        file = point.begin_file("disk0", ring_bytes=128 * KiB)
        for _ in range(13):
            file.write(rng.randbytes(512 * KiB))
        file.abort()
        point.abandon(file.parts)
        point.forget_name("disk0")
        file = point.begin_file("disk0", ring_bytes=128 * KiB)
        file.write(data)
        point.add_image(Image("disk0", "disk0", Kind.FULL, len(data), "", file.finish()))
        made = point.commit({})
    assert read_back(shelf, made)["disk0"] == data
    assert surveyed(shelf) == ([made], [])


def test_no_cartridge_left_leaves_no_restore_point(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path, (5, 5))
    rng = random.Random(3)
    with pytest.raises(CartridgeWanted), TapeLane(shelf) as lane:
        written(lane, {"disk0": [rng.randbytes(512 * KiB) for _ in range(30)]})
    assert surveyed(shelf) == ([], [])


def test_a_cartridge_formatted_anew_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "one", (5, 64))
    rng = random.Random(4)
    with TapeLane(shelf) as lane:
        point = written(lane, {"disk0": [rng.randbytes(512 * KiB) for _ in range(12)]})
    other = FolderShelf(tmp_path / "other", (5, 64))
    (tmp_path / "one" / "TAP001L8").rename(tmp_path / "gone")
    (tmp_path / "other" / "TAP001L8").rename(tmp_path / "one" / "TAP001L8")
    assert other.barcodes == shelf.barcodes
    points, [told] = surveyed(shelf)
    assert points == []
    assert point.name in told
    assert "disk0 on TAP001L8" in told


def test_points_lie_one_behind_the_other_in_whole_files(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path, (64,))
    with TapeLane(shelf) as lane:
        points = [written(lane, {"disk0": [bytes([n]) * MiB]}, minutes=n) for n in range(3)]
    found, _ = surveyed(shelf)
    assert found == points
    for n, point in enumerate(points):
        assert read_back(shelf, point)["disk0"] == bytes([n]) * MiB
