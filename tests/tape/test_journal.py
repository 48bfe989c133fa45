"""Indexes at intervals, and a crash between two of them: by the journal, nothing that was finished is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.emulator.drive import DriveLun
from tape.errors import Inconsistent, JournalFailed
from tape.ltfs.index import Extent, File, Pointer, Times
from tape.ltfs.interval import Interval
from tape.ltfs.journal import Journal, State
from tape.ltfs.recover import Recovered, recover
from tape.ltfs.volume import LtfsVolume
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

NEVER = Interval(size_bytes=1 << 60, time_s=1e9)


@pytest.fixture
def lun(tmp_path: Path) -> DriveLun:
    return formatted(tmp_path / "TAP001L8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def writing(lun: DriveLun, folder: Path, interval: Interval = NEVER) -> LtfsVolume:
    return LtfsVolume.mount(drive_with(lun), MAKER, Ticks(), journal=Journal(folder), interval=interval)


def recovered(lun: DriveLun, folder: Path | None) -> Recovered:
    return recover(drive_with(lun), MAKER, Ticks(), None if folder is None else Journal(folder))


def test_a_checkpoint_comes_with_what_was_written(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder, Interval(size_bytes=4 * BLOCK, time_s=1e9))
    put(volume, "/a", content(1, 3 * BLOCK))
    assert not volume.checkpoint()
    put(volume, "/b", content(2, BLOCK))
    assert volume.checkpoint()
    assert volume.index_partition_behind
    again = mounted(lun, search=True)  # as after a crash right here
    assert set(files_of(again)) == {"/a", "/b"}
    assert again.index_partition_behind


def test_a_checkpoint_comes_with_time(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder, Interval(size_bytes=1 << 60, time_s=20.0))
    put(volume, "/a", b"x")
    told = [volume.checkpoint() for _ in range(40)]
    assert told[0] is False
    assert told[-1] is True


def test_checkpoints_write_no_index_for_nothing(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder, Interval(size_bytes=0, time_s=0.0))
    put(volume, "/a", b"x")
    assert [volume.checkpoint(), volume.checkpoint()] == [True, True]
    assert volume.index.generation == 2
    volume.commit()
    assert not volume.index_partition_behind
    assert volume.index.generation == 2


def test_what_was_finished_is_found_again_after_a_crash(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder)
    data = {f"/web01/{number}": content(number, number * BLOCK + 5) for number in range(4)}
    for path, one in data.items():
        put(volume, path, one)
    volume.create("/web01/empty").finish()
    volume.create("/half").write(content(9, 3 * BLOCK))
    volume.drive.flush()
    del volume  # the process is gone
    with pytest.raises(Inconsistent):
        mounted(lun, search=True)
    done = recovered(lun, folder)
    assert (set(done.found), done.lost) == ({*data, "/web01/empty"}, ())
    assert done.orphan_blocks == 1 + 2 + 3 + 4 + 3
    for search in (False, True):
        assert files_of(mounted(lun, search=search)) == {**data, "/web01/empty": b""}
    assert list(folder.iterdir()) == []


def test_without_the_journal_the_same_crash_costs_them(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder)
    put(volume, "/a", b"finished")
    volume.drive.flush()
    assert recovered(lun, None).found == ()
    assert files_of(mounted(lun)) == {}


def test_of_one_name_what_was_written_last_is_found(lun: DriveLun, folder: Path) -> None:
    """A file that was finished, taken out again, and written anew: the first is not to stand in its place."""
    volume = writing(lun, folder)
    put(volume, "/a", content(1, 2 * BLOCK))
    del volume.index.root.entries["a"]
    put(volume, "/a", content(2, 3 * BLOCK))
    volume.drive.flush()
    done = recovered(lun, folder)
    assert (done.found, done.lost) == (("/a",), ())
    assert files_of(mounted(lun)) == {"/a": content(2, 3 * BLOCK)}


def test_what_the_power_cut_took_is_named(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder)
    put(volume, "/safe", content(1, 2 * BLOCK))
    volume.drive.flush()
    put(volume, "/buffered", content(2, 2 * BLOCK))
    lun.power_cut(keep=1)
    done = recovered(lun, folder)
    assert done.found == ("/safe",)
    assert [path for path, _ in done.lost] == ["/buffered"]
    assert files_of(mounted(lun)) == {"/safe": content(1, 2 * BLOCK)}


def test_what_lies_there_instead_is_not_taken_for_the_file(lun: DriveLun, folder: Path) -> None:
    """Somebody else wrote over the orphans, and died as well: only the digest tells."""
    volume = writing(lun, folder)
    put(volume, "/mine", content(1, 2 * BLOCK))
    volume.drive.flush()
    tape = cartridge(lun)
    tape.tracks[1].write(tape.tracks[1].end - 2, content(3, BLOCK))
    tape.tracks[1].write(tape.tracks[1].end, content(4, BLOCK))
    tape.flush()
    assert [path for path, _ in recovered(lun, folder).lost] == ["/mine"]
    assert files_of(mounted(lun)) == {}


def test_a_journal_of_another_state_is_refused(lun: DriveLun, folder: Path) -> None:
    put(writing(lun, folder), "/a", b"x")
    recovered(lun, None)
    put(mounted(lun), "/b", b"y")
    cartridge(lun).flush()
    with pytest.raises(JournalFailed, match="recover without it"):
        recovered(lun, folder)


def test_a_checkpoint_begins_the_journal_anew(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder, Interval(size_bytes=BLOCK, time_s=1e9))
    put(volume, "/a", content(1, BLOCK))
    assert volume.checkpoint()
    put(volume, "/b", b"y")
    volume.drive.flush()
    noted = Journal(folder).read(UUID)
    assert noted is not None
    assert [path for path, _ in noted.files] == ["/b"]
    assert recovered(lun, folder).found == ("/b",)
    assert files_of(mounted(lun)) == {"/a": content(1, BLOCK), "/b": b"y"}


def test_a_clean_end_leaves_no_journal(lun: DriveLun, folder: Path) -> None:
    with writing(lun, folder) as volume:
        put(volume, "/a", b"x")
        assert len(list(folder.iterdir())) == 1
    assert list(folder.iterdir()) == []


def test_a_journal_that_cannot_be_kept_is_told_before_anything_is_written(lun: DriveLun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    volume = writing(lun, tmp_path / "file" / "journals")
    end = volume.data_end
    with pytest.raises(JournalFailed, match="Not a directory"):
        volume.create("/a")
    assert volume.data_end == end


def test_a_journal_on_a_full_disk_costs_no_file(lun: DriveLun, folder: Path) -> None:
    volume = writing(lun, folder)
    put(volume, "/a", b"noted")
    writer = volume.create("/b")
    writer.write(b"not noted")
    fd = volume._journal._fd  # type: ignore[union-attr]
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, fd)
    os.close(full)
    with pytest.raises(JournalFailed, match="No space left"):
        writer.finish()
    volume.commit()
    assert set(files_of(mounted(lun, search=True))) == {"/a", "/b"}


# ---------------------------------------------------------------------- the journal itself

STATE = State(UUID, 7, Pointer("b", 12), 15)
paths = st.lists(st.text(st.sampled_from("aé漢 %:\n\"'"), min_size=1, max_size=9), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    path=paths,
    length=st.integers(0, 1 << 50),
    start=st.integers(4, 1 << 40),
    xattrs=st.dictionaries(st.text(max_size=5), st.binary(max_size=9), max_size=3),
)
def test_what_is_noted_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, path: str, length: int, start: int, xattrs: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    journal.begin(STATE)
    extents = (Extent(0, Pointer("b", start), 0, length),) if length else ()
    file = File(path.rpartition("/")[2], 9, Times.all(5), length, extents, xattrs=xattrs)
    journal.note(path, file)
    journal.close()
    noted = Journal(folder).read(UUID)
    assert noted is not None
    assert (noted.state, noted.files) == (STATE, ((path, file),))


def test_a_line_cut_off_is_no_line(folder: Path) -> None:
    journal = Journal(folder)
    journal.begin(STATE)
    journal.note("/a", File("a", 9, Times.all(5)))
    journal.close()
    path = folder / f"{UUID}.jsonl"
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:end])
        noted = Journal(folder).read(UUID)
        assert noted is not None
        assert noted.files == ()
    path.write_bytes(whole[:10])
    assert Journal(folder).read(UUID) is None


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        json.dumps({"path": "/a"}),
        json.dumps({"path": "/..", "uid": 9, "length": 0, "start": None, "times": [1] * 5, "xattrs": {}}),
        json.dumps({"path": "/a", "uid": 9, "length": -1, "start": None, "times": [1] * 5, "xattrs": {}}),
        json.dumps({"path": "/a", "uid": 9, "length": 5, "start": "b", "times": [1] * 5, "xattrs": {}}),
        json.dumps({"path": "/a", "uid": 9, "length": 0, "start": None, "times": [1] * 4, "xattrs": {}}),
        json.dumps({"path": "/a", "uid": 9, "length": 0, "start": None, "times": [1] * 5, "xattrs": {"k": "%"}}),
    ],
)
def test_a_damaged_journal_is_refused(folder: Path, line: str) -> None:
    journal = Journal(folder)
    journal.begin(STATE)
    journal.close()
    with (folder / f"{UUID}.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(JournalFailed, match="damaged"):
        Journal(folder).read(UUID)
