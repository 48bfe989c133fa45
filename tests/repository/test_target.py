"""Restore points in a repository: the contract, and how points are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.contract.target import TargetContract
from tests.repository.repositories import (
    CHUNK,
    SMALL,
    START,
    chunk,
    content,
    info,
    made,
    made_in,
    reopened,
    write_disk,
    write_point,
)
from vcbproxy.device import read
from vcbproxy.errors import Busy, IntegrityError, TargetError, UsageError
from vcbproxy.repository.backend.base import FileKind, load_all
from vcbproxy.repository.check import check
from vcbproxy.repository.diskwriter import DiskWriter
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.tree import Node, NodeKind
from vcbproxy.repository.writer import PointInfo, PointWriter


class TestInMemory(TargetContract):
    @pytest.fixture
    def target(self) -> RepositoryTarget:
        return RepositoryTarget(made(), SMALL)


class TestInDirectory(TargetContract):
    @pytest.fixture
    def target(self, tmp_path: Path) -> RepositoryTarget:
        return RepositoryTarget(made_in(tmp_path / "repository"), SMALL)


@pytest.fixture
def repository() -> Repository:
    return made()


def test_the_second_point_stores_only_what_is_new(repository: Repository) -> None:
    first = write_point(repository, info(hours=0), scsi0_0="abcdefgh" * 8)
    second = write_point(repository, info(hours=1), scsi0_0="abcdefgh" * 7 + "abcdefgz")
    assert first.point.added_bytes is not None
    assert second.point.added_bytes is not None
    assert second.point.added_bytes < first.point.added_bytes / 3
    for written in (first, second):
        with RepositoryTarget(reopened(repository.backend)).open(written.point) as reader:
            assert read(reader.disk("scsi0-0"), 0, 64 << 13) == written.disks["scsi0-0"]
    assert check(reopened(repository.backend), Subset()).problems == []


def test_points_are_named_by_vm_and_moment_or_by_id(repository: Repository) -> None:
    points = [write_point(repository, info(vm, hours)).point for vm, hours in (("a", 0), ("b", 1), ("a", 2))]
    target = RepositoryTarget(repository)
    assert target.find("a@latest").id == points[2].id
    assert target.find("50-a@latest").id == points[2].id
    assert target.find("a@2026-11-22T01:00:00Z").id == points[0].id
    assert target.find("a@2026-11-22T02:00:00+01:00").id == points[0].id
    for point in points:
        assert target.find(point.short_id).id == point.id
        assert target.find(point.id).id == point.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "write a@latest"),
        ("c@latest", "there are some of: a"),
        ("a@yesterday", "'latest' or a time"),
        ("a@2026-01-01T00:00:00Z", "no restore point"),
        ("abc", "4 digits or more"),
        ("0000", "no restore point"),
        ("", "neither"),
    ],
)
def test_what_names_no_point_lists_those_there_are(repository: Repository, text: str, message: str) -> None:
    write_point(repository, info("a"))
    with pytest.raises(UsageError, match=message):
        RepositoryTarget(repository).find(text)


def test_a_disk_that_was_cut_out_of_the_tree_is_damage(repository: Repository) -> None:
    """As `restic rewrite --exclude '*.raw'` does it; the manifest goes on to name the disk."""
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info()) as writer:
        write_disk(writer, "scsi0-0", "abcd")
        writer._trees._nodes.clear()
        point = writer.commit({})
    with target.open(point) as reader:
        with pytest.raises(IntegrityError, match="nothing is called 'scsi0-0'"):
            reader.verify()
        with pytest.raises(IntegrityError, match="nothing is called 'scsi0-0'"):
            reader.disk("scsi0-0")
    problems = check(reopened(repository.backend), Subset()).problems
    assert len(problems) == 1
    assert "nothing is called 'scsi0-0'" in str(problems[0])


def without_lengths(writer: PointWriter, lengths: bytes | None) -> None:
    """Put another file of lengths, or none, into the tree of disk scsi0-0, of four chunks; as a rewrite might."""
    ids = np.frombuffer(b"".join(digest(chunk(letter)) for letter in "abcd"), np.uint8).reshape(-1, 32)
    nodes = [Node("scsi0-0.raw", NodeKind.FILE, 4 * CHUNK, ids)]
    trees = writer._trees
    if lengths is not None:
        nodes.append(trees._store_file("scsi0-0.lengths", memoryview(lengths)))
    trees._nodes[:] = [trees._store_tree("scsi0-0", nodes)]


def test_a_base_is_its_list_and_the_file_of_its_lengths(repository: Repository) -> None:
    write_point(repository, scsi0_0="abcd", scsi0_1="")
    with RepositoryTarget(repository).open("web01@latest") as reader:
        for key in ("scsi0-0", "scsi0-1"):
            for found, expected in zip(reader.base_list(key), reader.disk_content(key), strict=True):
                assert np.array_equal(found, expected)
                assert found.dtype == expected.dtype


def test_a_base_without_its_file_of_lengths_asks_the_index(repository: Repository) -> None:
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info()) as writer:
        write_disk(writer, "scsi0-0", "abcd")
        without_lengths(writer, None)
        writer.commit({})
    with target.open("web01@latest") as reader:
        assert reader.base_list("scsi0-0")[1].tolist() == [CHUNK] * 4


@pytest.mark.parametrize("lengths", [[CHUNK] * 3, [CHUNK] * 5, [CHUNK, CHUNK, CHUNK, CHUNK + 1]])
def test_a_base_whose_lengths_are_not_those_of_its_chunks_is_damage(repository: Repository, lengths: list[int]) -> None:
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info()) as writer:
        write_disk(writer, "scsi0-0", "abcd")
        without_lengths(writer, np.array(lengths, "<u4").tobytes())
        writer.commit({})
    with target.open("web01@latest") as reader, pytest.raises(IntegrityError, match=r"lengths|come to"):
        reader.base_list("scsi0-0")


def test_two_vms_of_one_name_are_told_apart_by_uuid(repository: Repository) -> None:
    for uuid in ("50-one", "50-two"):
        write_point(repository, PointInfo("twin", uuid, START))
    target = RepositoryTarget(repository)
    with pytest.raises(UsageError, match="50-one, 50-two"):
        target.find("twin@latest")
    assert target.find("50-two@latest").instance_uuid == "50-two"


def test_a_lock_is_held_while_writing_and_while_reading(repository: Repository) -> None:
    target = RepositoryTarget(repository, SMALL)
    with target.begin(info()) as writer:
        write_disk(writer, "scsi0-0", "ab")
        with pytest.raises(Busy), repository.locked(exclusive=True):
            pass
        writer.commit({})
    with target.open("web01@latest"), pytest.raises(Busy), repository.locked(exclusive=True):
        pass
    with repository.locked(exclusive=True), pytest.raises(Busy):
        target.open("web01@latest")
    with repository.locked(exclusive=True), RepositoryTarget(repository, lock=False).open("web01@latest"):
        pass


def test_a_point_that_cannot_be_opened_leaves_no_lock(repository: Repository) -> None:
    written = write_point(repository)
    with pytest.raises(UsageError):
        RepositoryTarget(repository).open("nothing@latest")
    for pack in list(repository.backend.list(FileKind.PACK)):
        repository.backend.remove(pack.name)
    with pytest.raises(IntegrityError):
        RepositoryTarget(repository).open(written.point)
    with repository.locked(exclusive=True):
        pass


@pytest.mark.parametrize("tags", [("a,b",), ("line\nbreak",)])
def test_tags_that_restic_cannot_take_are_refused(repository: Repository, tags: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="commas"):
        RepositoryTarget(repository).begin(info(tags=tags))


def test_a_chunk_that_another_disk_or_a_file_met_first_is_awaited(repository: Repository) -> None:
    with RepositoryTarget(repository, SMALL).begin(info()) as writer:
        writer.file("web01.nvram", chunk("a"))
        one, other = writer.disk("scsi0-0", CHUNK), writer.disk("scsi0-1", 2 * CHUNK)
        ids = {letter: one.packer().add(BlobKind.DATA, chunk(letter)) for letter in "b"}
        ids |= {letter: other.packer().add(BlobKind.DATA, chunk(letter)) for letter in "ab"}
        finish(other, ids["a"], ids["b"])
        finish(one, ids["b"])
        writer.commit({})
    assert check(reopened(repository.backend), Subset()).problems == []
    with RepositoryTarget(reopened(repository.backend)).open("web01@latest") as reader:
        assert read(reader.disk("scsi0-1"), 0, 2 * CHUNK) == content("ab")


def test_a_chunk_that_nobody_stores_is_no_restore_point(repository: Repository) -> None:
    with (
        RepositoryTarget(repository, SMALL).begin(info()) as writer,
        pytest.raises(IntegrityError, match="never stored"),
    ):
        finish(writer.disk("scsi0-0", CHUNK), digest(chunk("a")))
    assert RepositoryTarget(repository).points() == []


@pytest.mark.parametrize(("harm", "message"), [("never stored", "never stored"), ("longer", "another length")])
def test_a_chunk_that_was_awaited_is_looked_up_before_the_commit(
    repository: Repository, harm: str, message: str
) -> None:
    with RepositoryTarget(repository, SMALL).begin(info()) as writer:
        length = CHUNK + (harm == "longer")
        one, other = writer.disk("scsi0-0", CHUNK), writer.disk("scsi0-1", length)
        packer = writer.session.packer() if harm == "never stored" else one.packer()  # one that nobody will finish
        chunk_id = packer.add(BlobKind.DATA, chunk("a"))
        other.finish(np.frombuffer(chunk_id, np.uint8).reshape(1, 32), np.array([length], np.uint32))
        one.abandon()
        with pytest.raises(IntegrityError, match=message):
            writer.commit({})
    assert RepositoryTarget(repository).points() == []


def finish(disk: DiskWriter, *ids: bytes) -> None:
    packed = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)
    disk.finish(packed, np.full(len(ids), CHUNK, np.uint32))


@pytest.mark.parametrize("harm", ["removed", "cut", "grown"])
def test_a_backup_never_builds_on_a_pack_that_is_lost(repository: Repository, harm: str) -> None:
    first = write_point(repository, info(hours=0), scsi0_0="abcd")
    backend = repository.backend
    packs = [stored for stored in backend.list(FileKind.PACK) if stored.size_bytes > 4 * CHUNK]
    for stored in packs:
        data = load_all(backend, stored.name, 1 << 30)
        backend.remove(stored.name)
        if harm != "removed":
            backend.save(stored.name, [data[:-1] if harm == "cut" else data + b"x"])
    again = reopened(backend)
    second = write_point(again, info(hours=1), scsi0_0="abcd")
    for point in (first.point, second.point):
        with RepositoryTarget(reopened(backend)).open(point) as reader:
            assert read(reader.disk("scsi0-0"), 0, 4 * CHUNK) == content("abcd")
    third = write_point(again, info(hours=2), scsi0_0="abcd")
    assert third.point.added_bytes is not None
    assert third.point.added_bytes < CHUNK


def test_no_point_is_committed_once_the_lock_was_removed(repository: Repository) -> None:
    with RepositoryTarget(repository, SMALL).begin(info()) as writer:
        write_disk(writer, "scsi0-0", "ab")
        for stored in list(repository.backend.list(FileKind.LOCK)):
            repository.backend.remove(stored.name)
        with pytest.raises(TargetError, match="removed by another program"):
            writer.commit({})
    assert RepositoryTarget(repository).points() == []


def test_a_disk_read_twice_is_whole_though_the_first_try_broke_off(repository: Repository) -> None:
    """What the first try's packers hold is taken for stored by the second's: all must be finished."""
    with RepositoryTarget(repository, SMALL).begin(info()) as writer:
        disk = writer.disk("scsi0-0", 3 * CHUNK)
        broken_off = disk.packer()
        broken_off.add(BlobKind.DATA, chunk("a"))
        second = disk.packer()
        ids = [second.add(BlobKind.DATA, chunk(letter)) for letter in "abc"]
        second.finish()
        finish(disk, *ids)
        writer.commit({})
    assert check(reopened(repository.backend), Subset()).problems == []
