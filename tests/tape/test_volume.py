"""LTFS volumes on the emulated drive: what was committed is there, whole, whatever happens afterwards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tape import memory
from tape.emulator.cartridge import Cartridge
from tape.emulator.drive import DriveLun
from tape.errors import FormatError, PositionLost, VolumeOverflow, WriteProtected
from tape.ltfs import coherency
from tape.ltfs.coherency import Coherency
from tape.ltfs.index import Lock
from tape.ltfs.layout import read_index
from tape.ltfs.recover import for_reading
from tape.ltfs.volume import LtfsVolume
from tape.sequential import Position
from tests.tape import golden
from tests.tape.volumes import (
    BLOCK,
    MAKER,
    UUID,
    Ticks,
    cartridge,
    content,
    drive_with,
    files_of,
    formatted,
    mounted,
    put,
)


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


# ---------------------------------------------------------------------- the plain path


def test_a_fresh_volume_is_empty_and_known_by_its_memory(lun: DriveLun) -> None:
    volume = mounted(lun)
    assert (volume.uuid, volume.index.root.name, volume.index.generation) == (UUID, "backups", 1)
    assert volume.by_memory
    assert files_of(volume) == {}
    assert not mounted(lun, search=True).by_memory


BY_MEMORY, SEARCHED, REFUSED = "by memory", "searched", "refused"


@pytest.mark.parametrize(
    ("said", "of_index_partition", "of_data_partition"),
    [
        (lambda told: told, BY_MEMORY, BY_MEMORY),
        (lambda told: replace(told, reference=told.reference - 1), SEARCHED, SEARCHED),  # somebody has written since
        (lambda told: replace(told, volume_uuid=UUID[::-1]), SEARCHED, SEARCHED),
        (lambda told: None, SEARCHED, SEARCHED),
        (lambda told: replace(told, generation=told.generation + 1), REFUSED, SEARCHED),  # the other may be behind
        (lambda told: replace(told, block=told.block + 1), REFUSED, REFUSED),
    ],
    ids=["as it was written", "stale", "of another volume", "nothing", "of a later state", "of another place"],
)
@pytest.mark.parametrize("partition", [0, 1], ids=["index partition", "data partition"])
def test_what_the_cartridges_memory_says_is_held_against_the_tape(
    lun: DriveLun,
    partition: int,
    said: Callable[[Coherency], Coherency | None],
    of_index_partition: str,
    of_data_partition: str,
) -> None:
    """Stale, it is not believed, and the tape is searched; where it is current and wrong, nothing is sure."""
    with mounted(lun) as volume:
        put(volume, "/kept", b"kept")
    drive = drive_with(lun)
    told = coherency.read(drive, partition)
    assert told is not None
    now = said(told)
    value = b"" if now is None else now.encode()
    memory.write(drive, partition, [memory.Attribute(memory.Id.VOLUME_COHERENCY, memory.Form.BINARY, value)])
    outcome = (of_index_partition, of_data_partition)[partition]
    if outcome == REFUSED:
        with pytest.raises(FormatError):
            mounted(lun)
        return
    volume = mounted(lun)
    assert volume.by_memory is (outcome == BY_MEMORY)
    assert files_of(volume) == {"/kept": b"kept"}


def test_a_tape_that_ends_before_what_its_memory_vouches_for_is_not_appended_to(lun: DriveLun) -> None:
    """Records were lost, and nothing was written since: the next would take the place of files, or of the index."""
    with mounted(lun) as volume:
        put(volume, "/kept", content(1, 3 * BLOCK))
    tape = cartridge(lun)
    whole = tape.tracks[1].end
    assert mounted(lun).data_end == whole
    for end in range(whole - 1, 3, -1):
        tape.tracks[1].overwrite(end)
        with pytest.raises(FormatError):
            mounted(lun)


def test_files_are_read_back_after_the_cartridge_was_away(lun: DriveLun, tmp_path: Path) -> None:
    kept = {f"/web01/{size}.bin": content(size, size) for size in (0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 77)}
    with mounted(lun) as volume:
        for path, data in kept.items():
            put(volume, path, data)
    lun.take_out()
    again = DriveLun("VDRV0002")
    again.insert(Cartridge(tmp_path / "TAP001L8"))
    for search in (False, True):
        assert files_of(mounted(again, search=search)) == kept


def test_pieces_of_any_size_make_the_same_file(lun: DriveLun) -> None:
    data = content(1, 5 * BLOCK + 11)
    volume = mounted(lun)
    writer = volume.create("/pieces")
    at = 0
    for size in itertools.cycle((1, 100, BLOCK, 2 * BLOCK + 1)):
        at += writer.write(data[at : at + size])
        if at == len(data):
            break
    writer.finish()
    volume.commit()
    assert files_of(volume)["/pieces"] == data


def test_a_file_is_read_at_any_position(lun: DriveLun) -> None:
    data = content(2, 6 * BLOCK + 5)
    volume = mounted(lun)
    put(volume, "/f", data)
    volume.commit()
    reader = volume.open("/f")
    rng = random.Random(3)
    for _ in range(50):
        start = rng.randrange(len(data))
        buf = bytearray(rng.randrange(len(data) - start + 1))
        reader.read_into(start, memoryview(buf))
        assert buf == data[start : start + len(buf)]
    with pytest.raises(FormatError, match="not all in it"):
        reader.read_into(len(data) - 1, memoryview(bytearray(2)))


def test_sessions_append_and_each_generation_stays_reachable(lun: DriveLun) -> None:
    for number in range(4):
        with mounted(lun, search=number % 2 == 1) as volume:
            put(volume, f"/night/{number}", content(number, 5000))
    volume = mounted(lun)
    assert sorted(files_of(volume)) == [f"/night/{number}" for number in range(4)]
    assert volume.index.generation == 5


def test_each_index_points_back_to_the_one_before_it(lun: DriveLun) -> None:
    """By these pointers any LTFS implementation rolls a volume back; none of our states is left out."""
    volume = mounted(lun)
    for number in range(3):
        put(volume, f"/secured/{number}", content(number, BLOCK))
        volume.secure()
    put(volume, "/committed", b"x")
    volume.commit()
    for search in (False, True):
        with mounted(lun, search=search) as volume:
            put(volume, f"/{search}", b"x")
    here = volume.recording.data_index
    generations = []
    while here is not None:
        index = read_index(volume.drive, volume.layout, here)
        generations.append(index.generation)
        here = index.previous
    assert generations == [7, 6, 5, 4, 3, 2, 1]


def test_what_was_aborted_is_not_there_and_hinders_nothing(lun: DriveLun) -> None:
    with mounted(lun) as volume:
        writer = volume.create("/gone")
        writer.write(content(1, 3 * BLOCK))
        writer.abort()
        put(volume, "/kept", b"kept")
    assert files_of(mounted(lun)) == {"/kept": b"kept"}


def test_a_session_that_ends_in_an_error_leaves_a_volume_that_is_whole(lun: DriveLun) -> None:
    """The source failed, or somebody pressed Ctrl-C: the next session mounts as ever."""
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), mounted(lun) as volume:
            interrupted(volume, error)
    assert set(files_of(mounted(lun, search=True))) == {"/KeyboardInterrupt", "/ValueError"}


def interrupted(volume: LtfsVolume, by: type[BaseException]) -> None:
    put(volume, f"/{by.__name__}", b"finished before")
    volume.create("/half").write(content(1, 3 * BLOCK))
    raise by


def test_nothing_is_written_where_nothing_changed(lun: DriveLun) -> None:
    before = sorted(path.name for path in cartridge(lun).folder.iterdir())
    with mounted(lun) as volume:
        files_of(volume)
    assert sorted(path.name for path in cartridge(lun).folder.iterdir()) == before


def test_names_that_are_there_or_cannot_be_are_refused(lun: DriveLun) -> None:
    volume = mounted(lun)
    put(volume, "/a/b", b"x")
    deep = "/".join("d" * 600)
    for path, says in (
        ("/a/b", "there already"),
        ("/a", "there already"),
        ("/a/b/c", "is a file"),
        ("/a/..", "none"),
        (deep, "500 levels"),
    ):
        with pytest.raises(FormatError, match=says):
            volume.create(path)


def test_attributes_that_others_could_not_read_are_refused(lun: DriveLun) -> None:
    with mounted(lun) as volume:
        for xattrs in ({"": b"x"}, {"long": bytes(4097)}):
            with pytest.raises(FormatError, match="the attribute"):
                volume.create("/x").finish(xattrs)
        put(volume, "/x", b"x")
    assert set(files_of(mounted(lun))) == {"/x"}


def test_a_locked_volume_takes_nothing(lun: DriveLun) -> None:
    volume = mounted(lun)
    volume.index.lock = Lock.PERMANENT
    with pytest.raises(WriteProtected, match="locked"):
        volume.create("/x")


def test_another_writer_in_between_is_noticed(lun: DriveLun) -> None:
    volume = mounted(lun)
    with mounted(lun) as other:
        put(other, "/other", b"theirs")
    volume.drive.unit.attend()
    with pytest.raises(PositionLost):
        volume.create("/mine")


def test_another_writer_that_went_back_to_where_we_stand_is_noticed(lun: DriveLun) -> None:
    """Before the first file somebody looks where the data end, even where the tape stands as it was left."""
    volume = mounted(lun)
    assert volume.drive.position() == Position(1, volume.data_end)
    other = drive_with(lun)
    other.locate_end(1)
    other.write(b"theirs")
    other.locate(Position(1, volume.data_end))
    volume.drive.unit.attend()
    with pytest.raises(PositionLost):
        volume.create("/mine")
    assert cartridge(lun).tracks[1].end == volume.data_end + 1


def test_another_initiator_that_rewinds_between_two_files_does_no_harm(lun: DriveLun) -> None:
    """No drive tells us: only who asks where the tape stands learns of it."""
    volume = mounted(lun)
    put(volume, "/one", content(1, 2 * BLOCK))
    drive_with(lun).rewind()
    put(volume, "/two", content(2, 3 * BLOCK))
    volume.commit()
    assert files_of(mounted(lun, search=True)) == {"/one": content(1, 2 * BLOCK), "/two": content(2, 3 * BLOCK)}


def test_another_initiator_that_moves_the_tape_under_a_file_is_noticed_before_anything_is_safe(lun: DriveLun) -> None:
    volume = mounted(lun)
    put(volume, "/one", content(1, 2 * BLOCK))
    writer = volume.create("/two")
    writer.write(content(2, 2 * BLOCK))
    drive_with(lun).locate(Position(1, 5))
    writer.write(content(3, 2 * BLOCK))
    writer.finish()
    with pytest.raises(PositionLost):
        volume.commit()


# ---------------------------------------------------------------------- the reference implementation's cartridge


def test_the_reference_implementations_volume_is_read_and_appended_to(tmp_path: Path) -> None:
    lun = DriveLun("VDRV0001")
    lun.insert(Cartridge(golden.unpacked(tmp_path)))
    volume = mounted(lun)
    assert volume.index.root.name == "myvol"
    before = files_of(volume)
    assert before["/dir1/hello.txt"] == b"hello\n"
    assert len(before["/big.bin"]) == 3_000_000
    assert before["/empty"] == b""
    put(volume, "/ours", b"ours")
    volume.commit()
    for search in (False, True):
        assert files_of(mounted(lun, search=search)) == {**before, "/ours": b"ours"}


# ---------------------------------------------------------------------- the end of the tape


def test_a_volume_that_is_full_says_so_and_keeps_what_fits(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP002L8", capacity_mib=100, block_bytes=512 * 1024)
    volume = mounted(lun)
    data = content(9, 1 << 20)
    writer = volume.create("/part1")
    total = 0
    while (taken := writer.write(data)) == len(data):
        total += taken
    assert volume.full
    length = writer.finish().length
    assert length == total + taken
    volume.commit()
    for search in (False, True):
        again = mounted(lun, search=search)
        assert len(files_of(again)["/part1"]) == length


@pytest.mark.parametrize("warns", [True, False])
@pytest.mark.parametrize("left", range(9))
def test_an_end_that_comes_at_any_block_costs_no_committed_file(tmp_path: Path, left: int, warns: bool) -> None:
    """The tape ends ``left`` blocks after a commit: among the data, or in the middle of the index."""
    lun = formatted(tmp_path / "TAP003L8")
    lun.warns = warns
    volume = mounted(lun)
    put(volume, "/committed", content(1, 3 * BLOCK))
    volume.commit()
    tape = cartridge(lun)
    tape.limit_bytes[1] = tape.tracks[1].used_bytes + left * BLOCK
    writer = volume.create("/more")
    data = content(2, 6 * BLOCK)
    taken = writer.write(data)
    length = writer.finish().length
    assert length == taken
    volume.commit()
    for search in (False, True):
        again = mounted(lun, search=search)
        assert again.by_memory is not search
        assert files_of(again) == {"/committed": content(1, 3 * BLOCK), "/more": data[:length]}


@pytest.mark.parametrize(
    ("left_bytes", "shared", "grows_by"),
    [
        (5000, False, 3),  # behind the index that is there: filemark, index, filemark
        (5000, True, 3),
        (1000, False, 0),  # over it: the data partition has the same
        (1000, True, None),  # what must stay there stays
        (0, False, None),
    ],
)
def test_an_index_that_finds_no_room_on_the_data_partition(
    tmp_path: Path, left_bytes: int, shared: bool, grows_by: int | None
) -> None:
    lun = formatted(tmp_path / "TAP003L8")
    lun.warns = False
    volume = mounted(lun)
    expected = {"/committed": content(1, 3 * BLOCK), "/more": content(2, BLOCK)}
    put(volume, "/committed", expected["/committed"])
    volume.commit()
    volume.recording.shared = shared
    volume.recording.protection.asks = True  # the emulated drive has no such mode
    asked: list[int] = []
    lun.before = lambda _lun, cdb: asked.append(cdb[0])
    put(volume, "/more", expected["/more"])
    volume.drive.flush()
    tape = cartridge(lun)
    tape.limit_bytes = {number: tape.tracks[number].used_bytes for number in (0, 1)}
    tape.limit_bytes[0] += left_bytes
    before = tape.tracks[0].end
    if grows_by is None:
        with pytest.raises(VolumeOverflow):
            volume.commit()
        assert files_of(for_reading(drive_with(lun), MAKER, Ticks())) == {"/committed": expected["/committed"]}
        return
    volume.commit()
    assert tape.tracks[0].end == before + grows_by
    assert asked.count(0x82) == (grows_by == 0), "a drive that only appends wants to be asked"
    for search in (False, True):
        again = mounted(lun, search=search)
        assert (again.by_memory, again.full) == (not search, True)
        assert files_of(again) == expected


EARLY_BYTES = 4 << 20  # of an emulated cartridge that is small


@pytest.mark.parametrize("programmable", [False, True])
def test_a_warning_at_any_record_ends_the_data_there_and_nothing_is_lost(tmp_path: Path, programmable: bool) -> None:
    """Announced before each of twelve records in turn: among data, between files, in either index."""
    for record in range(12):
        lun = formatted(tmp_path / f"T{record:05}L8")
        volume = mounted(lun)
        put(volume, "/committed", content(1, BLOCK))
        volume.commit()
        tape = cartridge(lun)
        tape.limit_bytes[1] = tape.tracks[1].used_bytes + EARLY_BYTES + record * BLOCK
        if programmable:  # 3 MiB earlier: see ``Room``
            tape.limit_bytes[1] += 3 << 20
        expected = {"/committed": content(1, BLOCK)}
        for number in range(4):
            writer = volume.create(f"/{number}")
            data = content(number, 2 * BLOCK + 9)
            taken = writer.write(data)
            writer.finish()
            expected[f"/{number}"] = data[:taken]
        assert volume.full or record >= 8, "the files are of eight full records, and four short ones"
        volume.commit()
        for search in (False, True):
            again = mounted(lun, search=search)
            assert files_of(again) == expected
            assert not again.index_partition_behind, "the indexes had room"


def test_the_drive_is_told_how_early_to_warn(lun: DriveLun) -> None:
    volume = mounted(lun)
    told: list[bytes] = []
    lun.before = lambda _lun, cdb: told.append(cdb)
    put(volume, "/a", b"x")
    put(volume, "/b", b"y")
    assert [cdb[0] for cdb in told].count(0x55) == 1, "once is enough"


def test_a_volume_that_is_nearly_full_is_mounted_as_full(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP002L8")
    with mounted(lun) as volume:
        put(volume, "/a", content(1, 4 * BLOCK))
    tape = cartridge(lun)
    tape.limit_bytes[1] = tape.tracks[1].used_bytes + 100_000
    again = mounted(lun)
    assert again.full
    writer = again.create("/b")
    assert writer.write(b"data") == 0
    writer.abort()
    assert set(files_of(again)) == {"/a"}
