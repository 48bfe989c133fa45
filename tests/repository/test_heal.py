"""A damaged pack is noted, and the next backup that still has its blocks makes older restore points whole again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.repository.repositories import (
    CHUNK,
    ME,
    PASSWORD,
    SMALL,
    START,
    chunk,
    content,
    info,
    made,
    reopened,
    write_point,
)
from tests.repository.test_check import flipped, hurt
from tests.repository.test_prune import ALL, everything, forget, pruned
from vcbproxy.clock import ManualClock
from vcbproxy.device import read
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import codec, indexfile, points, suspects
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.prune.options import Unused
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.report import Report, Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo

LETTERS = "abcdefghijklmnop"


def remembered(backend: MemoryBackend, subset: Subset | None = Subset()) -> Report:  # noqa: B008
    return check(Repository.open(backend, PASSWORD), subset, remember=True)


def restored(backend: MemoryBackend, point: str) -> bytes:
    with RepositoryTarget(reopened(backend), lock=False).open(point) as reader:
        return read(reader.disk("scsi0-0"), 0, len(LETTERS) * CHUNK)


def damaged_at(backend: MemoryBackend, letter: str) -> tuple[MemoryBackend, FileName]:
    [location] = reopened(backend).index.lookup(BlobKind.DATA, digest(chunk(letter)))
    name = FileName(FileKind.PACK, location.pack_id.hex())
    return flipped(backend, name, (location.blob.offset + 50) * 8), name


@pytest.fixture
def damaged() -> tuple[MemoryBackend, FileName]:
    """A point, one of whose chunks is damaged."""
    backend = MemoryBackend()
    write_point(made(backend), scsi0_0=LETTERS)
    return damaged_at(backend, "e")


def test_the_whole_way_from_damage_to_health(damaged: tuple[MemoryBackend, FileName]) -> None:
    backend, pack = damaged
    first = "web01@2026-11-22T01:00:00Z"
    found = remembered(backend)
    assert hurt(found) == {first}
    assert any(pack.stem in problem.message for problem in found.problems)
    assert hurt(remembered(backend, None)) == {first}, "the next check, which reads no data, must not call it sound"

    write_point(reopened(backend), info(hours=1), scsi0_0=LETTERS)
    assert restored(backend, first) == content(LETTERS)
    healed = remembered(backend)
    assert healed.problems == []
    assert any(pack.stem in hint and "healed" in hint for hint in healed.hints)
    assert any("healed" in hint for hint in remembered(backend, None).hints)

    assert not pruned(reopened(backend)).idle
    assert pack not in backend.files()
    assert not list(backend.list(FileKind.SUSPECT))
    everything(reopened(backend))
    sound = remembered(backend)
    assert (sound.problems, sound.hints) == ([], [])
    assert restored(backend, first) == content(LETTERS)


def test_a_note_stays_as_long_as_its_pack(damaged: tuple[MemoryBackend, FileName]) -> None:
    """A damaged pack that waits may be taken back into the index, and must not be taken for whole there."""
    backend, pack = damaged
    remembered(backend)
    write_point(reopened(backend), info(hours=1), scsi0_0=LETTERS)
    for hours, there in ((2, True), (3, True), (27, False)):
        clock = ManualClock(START + timedelta(hours=hours))
        pruned(Repository.open(backend, PASSWORD, clock=clock, me=ME), replace(ALL, grace=timedelta(hours=24)))
        assert (pack in backend.files()) == bool(list(backend.list(FileKind.SUSPECT))) == there


def test_without_the_note_the_next_backup_would_build_on_it(damaged: tuple[MemoryBackend, FileName]) -> None:
    """What the note is for: nothing but reading every byte finds such damage."""
    backend, _ = damaged
    assert check(Repository.open(backend, PASSWORD), Subset()).problems
    write_point(reopened(backend), info(hours=1), scsi0_0=LETTERS)
    with pytest.raises(IntegrityError):
        restored(backend, "web01@2026-11-22T02:00:00Z")


def test_prune_keeps_its_hands_off_while_the_only_copy_is_damaged(damaged: tuple[MemoryBackend, FileName]) -> None:
    backend, pack = damaged
    remembered(backend)
    before = backend.files()
    with pytest.raises(IntegrityError, match=digest(chunk("e")).hex()) as caught:
        pruned(reopened(backend))
    assert pack.stem in str(caught.value)
    assert "nothing was removed" in str(caught.value)
    assert backend.files() == before


def test_damage_that_prune_meets_is_noted_and_nothing_is_removed() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    gone = write_point(repository, scsi0_0="abcdef")
    write_point(repository, info(hours=1), scsi0_0="defghi")
    backend, pack = damaged_at(backend, "e")
    repository = reopened(backend)
    forget(repository, gone)
    before = backend.files()
    with pytest.raises(IntegrityError, match=pack.stem):
        pruned(repository, ALL)
    assert before.items() <= backend.files().items()
    [suspect] = suspects.load(repository.files)
    assert suspect.pack_id.hex() == pack.stem


def test_a_pack_that_reads_whole_again_is_suspect_no_more(damaged: tuple[MemoryBackend, FileName]) -> None:
    """A bad cable: the bytes on the disk are right."""
    backend, pack = damaged
    remembered(backend)
    original = bytearray(backend.files()[pack])
    [location] = reopened(backend).index.lookup(BlobKind.DATA, digest(chunk("e")))
    original[location.blob.offset + 50] ^= 1
    mended = MemoryBackend({**backend.files(), pack: bytes(original)})
    report = remembered(mended)
    assert (report.problems, report.hints) == ([], [])
    assert not list(mended.list(FileKind.SUSPECT))


def test_a_pack_that_is_gone_is_suspect_no_more(damaged: tuple[MemoryBackend, FileName]) -> None:
    backend, pack = damaged
    remembered(backend)
    write_point(reopened(backend), info(hours=1), scsi0_0=LETTERS)
    backend.remove(pack)
    remembered(backend, None)
    assert not list(backend.list(FileKind.SUSPECT))


def test_a_damaged_pack_is_emptied_whatever_may_stay_unused(damaged: tuple[MemoryBackend, FileName]) -> None:
    """Most of it is whole, and still needed."""
    backend, pack = damaged
    bare = MemoryBackend({name: data for name, data in backend.files().items() if name.kind is not FileKind.INDEX})
    write_point(reopened(bare), info(hours=1), scsi0_0="e")
    both = MemoryBackend({**bare.files(), **backend.files()})
    remembered(both)
    outcome = pruned(reopened(both), replace(ALL, max_unused=Unused(None)))
    assert outcome.packs_repacked
    assert pack not in both.files()
    assert restored(both, "web01@2026-11-22T01:00:00Z") == content(LETTERS)


@pytest.mark.parametrize("change", [{"format": "vcbproxy.suspect/2"}, {"blobs": [{"type": "leaf", "id": "ab" * 32}]}])
def test_a_note_that_is_not_understood_ends_a_prune(change: dict[str, object]) -> None:
    backend = MemoryBackend()
    repository = made(backend)
    forget(repository, write_point(repository, scsi0_0=LETTERS))
    fields = {"format": "vcbproxy.suspect/1", "time": "2026-11-22T01:00:00Z", "pack": "ab" * 32, "reason": "read badly"}
    repository.files.save_sealed(FileKind.SUSPECT, codec.encode({**fields, "blobs": [], **change}))
    before = backend.files()
    with pytest.raises(IntegrityError, match="vcbproxy/suspect/"):
        pruned(repository)
    assert backend.files() == before


def test_prune_removes_nothing_while_a_note_cannot_be_read(damaged: tuple[MemoryBackend, FileName]) -> None:
    """It would not know which of two copies is the whole one."""
    backend, _ = damaged
    remembered(backend)
    write_point(reopened(backend), info(hours=1), scsi0_0=LETTERS)
    [note] = [stored.name for stored in backend.list(FileKind.SUSPECT)]
    torn = flipped(backend, note, 400)
    before = torn.files()
    with pytest.raises(IntegrityError, match="read-data") as caught:
        pruned(reopened(torn), ALL)
    assert note.path in str(caught.value)
    assert torn.files() == before


@pytest.mark.parametrize("healed", ["d", "e"] * 4)
def test_of_two_notes_of_one_pack_both_count(healed: str) -> None:
    """Prune notes a chunk when it meets it, so there may be several; luck decides which is listed last."""
    backend = MemoryBackend()
    write_point(made(backend), scsi0_0="de")
    for letter in "de":
        backend, pack = damaged_at(backend, letter)
        [place] = reopened(backend).index.lookup(BlobKind.DATA, digest(chunk(letter)))
        files = reopened(backend).files
        suspects.note(files, place.pack_id, [place.blob], f"{letter} is damaged", START)
    write_point(reopened(backend), info(hours=1), scsi0_0=healed)
    assert hurt(remembered(backend, None)) == {"web01@2026-11-22T01:00:00Z"}
    remembered(backend)
    [note] = suspects.load(reopened(backend).files)
    assert note.pack_id.hex() == pack.stem
    assert {blob for _, blob in note.blobs} == {digest(chunk("d")), digest(chunk("e"))}


def test_a_check_without_a_lock_notes_nothing(damaged: tuple[MemoryBackend, FileName]) -> None:
    backend, _ = damaged
    before = backend.files()
    assert check(Repository.open(backend, PASSWORD), Subset()).problems
    assert backend.files() == before


def test_lost_chunks_are_told_to_an_incremental(damaged: tuple[MemoryBackend, FileName]) -> None:
    """With their lengths, which the index does not know any more."""
    backend, _ = damaged
    remembered(backend)
    repository = reopened(backend)
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info(hours=1)) as writer:
        reader = PointReader.unlocked(repository, target.find("web01@latest"))
        with pytest.raises(IntegrityError):
            reader.disk_content("scsi0-0")
        vouched = reader.vouched("scsi0-0")
        ids, lengths, lost = vouched.ids, vouched.lengths, vouched.lost
        writer.abort()
    assert [ids[row].tobytes() for row in lost if LETTERS[row] == "e"] == [digest(chunk("e"))]
    assert len(lost) < len(LETTERS)
    assert lengths.tolist() == [CHUNK] * len(LETTERS)


def test_chunks_that_no_index_lists_any_more_are_told_to_an_incremental() -> None:
    """After ``restic repair index``, which takes what is lost out of it: else each night would end in an error."""
    backend = MemoryBackend()
    repository = made(backend)
    write_point(repository, scsi0_0=LETTERS)
    repository = reopened(backend)
    [location] = repository.index.lookup(BlobKind.DATA, digest(chunk("e")))
    left = [pack for pack in repository.index.packs() if pack.pack_id != location.pack_id]
    old = [stored.name for stored in backend.list(FileKind.INDEX)]
    repository.files.save_sealed(FileKind.INDEX, indexfile.encode(left))
    for name in [*old, FileName(FileKind.PACK, location.pack_id.hex())]:
        backend.remove(name)
    repository = reopened(backend)
    with RepositoryTarget(repository, SMALL).begin(info(hours=1)) as writer:
        reader = PointReader.unlocked(repository, points.listed(repository.snapshots())[-1])
        vouched = reader.vouched("scsi0-0")
        ids, lengths, lost = vouched.ids, vouched.lengths, vouched.lost
        assert "e" in [LETTERS[row] for row in lost]
        disk = writer.disk("scsi0-0", len(LETTERS) * CHUNK)
        packer = disk.packer()
        for row in lost:
            packer.add(BlobKind.DATA, chunk(LETTERS[row]))
        disk.finish(ids, lengths)
        writer.commit({})
    assert restored(backend, "web01@2026-11-22T01:00:00Z") == content(LETTERS)
    assert restored(backend, "web01@latest") == content(LETTERS)


def test_a_damaged_note_is_named_and_hinders_no_backup(damaged: tuple[MemoryBackend, FileName]) -> None:
    backend, _ = damaged
    remembered(backend)
    [note] = [stored.name for stored in backend.list(FileKind.SUSPECT)]
    torn = flipped(backend, note, 400)
    write_point(reopened(torn), info(hours=1), scsi0_0="xyz")
    assert any(note.stem in problem.message for problem in remembered(torn, None).problems)


class ReadOnly(MemoryBackend):
    """Takes nothing new."""

    def save(self, name: FileName, parts: object) -> None:
        raise TargetError(f"cannot write {name.path}: Read-only file system")


def test_a_repository_that_takes_no_note_is_checked_all_the_same(damaged: tuple[MemoryBackend, FileName]) -> None:
    report = check(Repository.open(ReadOnly(damaged[0].files()), PASSWORD), Subset(), remember=True)
    assert report.problems
    assert any("could not be noted" in hint for hint in report.hints)


def test_prune_takes_the_whole_copy_though_it_costs_more() -> None:
    """The damaged pack is full of what is needed; the whole copy lies among things that nobody needs."""
    backend = MemoryBackend()
    kept = write_point(made(backend), scsi0_0=LETTERS)
    backend, pack = damaged_at(backend, "e")
    found = MemoryBackend({name: data for name, data in backend.files().items() if name.kind is not FileKind.INDEX})
    passing = write_point(reopened(found), info(hours=1), scsi0_0="XexyzABC")  # stores e once more
    both = MemoryBackend({**found.files(), **backend.files()})
    forget(reopened(both), passing)
    remembered(both)
    pruned(reopened(both))
    assert pack not in both.files()
    everything(reopened(both))
    assert restored(both, kept.point.name) == content(LETTERS)


def test_of_two_vms_of_one_name_and_moment_the_hurt_one_is_named() -> None:
    """VCenters let two VMs bear one name; what the second does not need must not acquit what the first needs."""
    backend = MemoryBackend()
    repository = made(backend)
    write_point(repository, PointInfo("web01", "50-one", START), scsi0_0=LETTERS)
    write_point(repository, PointInfo("web01", "50-two", START), scsi0_0="qrstuv")
    damaged, _ = damaged_at(backend, "e")
    for _ in range(2):  # found first, then known
        assert hurt(remembered(damaged)) == {"web01@2026-11-22T01:00:00Z"}
