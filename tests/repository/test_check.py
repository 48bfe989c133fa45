"""Damage of every kind is found, named, and laid at the door of the restore points it hurts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from tests.repository.repositories import (
    PASSWORD,
    SMALL,
    chunk,
    content,
    info,
    made,
    reopened,
    uncompressed,
    write_point,
)
from vcbproxy.device import read
from vcbproxy.errors import Cancelled, Error, IntegrityError, TargetError, UsageError
from vcbproxy.repository import codec, tree
from vcbproxy.repository.backend.around import Around
from vcbproxy.repository.backend.base import CONFIG, Backend, FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.report import Report, Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.snapshot import Snapshot
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.tree import Node, NodeKind

ONE, OTHER = "web01@2026-11-22T01:00:00Z", "web02@2026-11-22T02:00:00Z"


@pytest.fixture
def backend() -> MemoryBackend:
    """Two VMs; they share the chunks a to h, and each has its own."""
    kept = MemoryBackend()
    repository = made(kept)
    write_point(repository, info("web01"), scsi0_0="abcdefgh" + "ijklmno")
    write_point(repository, info("web02", hours=1), scsi0_0="abcdefgh" + "pqrstuv")
    return kept


def flipped(backend: MemoryBackend, name: FileName, bit: int) -> MemoryBackend:
    files = backend.files()
    content = bytearray(files[name])
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    return MemoryBackend({**files, name: bytes(content)})


def checked(backend: MemoryBackend, subset: Subset | None = Subset()) -> Report:  # noqa: B008
    return check(reopened_without_index(backend), subset)


def reopened_without_index(backend: MemoryBackend) -> Repository:
    return Repository.open(backend, PASSWORD)


def hurt(report: Report) -> set[str]:
    return {point for problem in report.problems for point in problem.points}


def of_kind(backend: MemoryBackend, kind: FileKind) -> list[FileName]:
    return sorted((stored.name for stored in backend.list(kind)), key=lambda name: name.path)


def test_a_sound_repository_has_no_problems(backend: MemoryBackend) -> None:
    report = checked(backend)
    assert (report.problems, report.hints) == ([], [])
    assert report.packs_read == report.packs
    assert report.snapshots == 2
    report.raise_if_damaged("it")


def test_every_flipped_bit_in_every_file_is_found(backend: MemoryBackend) -> None:
    seed = random.Random(1)
    for name, stored in backend.files().items():
        for _ in range(6):
            damaged = flipped(backend, name, seed.randrange(len(stored) * 8))
            try:
                assert checked(damaged).problems, name
            except Error:
                assert name.kind.single or name.kind is FileKind.KEY, name


def test_a_damaged_chunk_names_pack_blob_and_the_points_that_need_it(backend: MemoryBackend) -> None:
    repository = reopened(backend)
    for letter, points in (("i", {ONE}), ("p", {OTHER}), ("a", {ONE, OTHER})):
        [location] = repository.index.lookup(BlobKind.DATA, digest(chunk(letter)))
        name = FileName(FileKind.PACK, location.pack_id.hex())
        report = checked(flipped(backend, name, (location.blob.offset + 100) * 8))
        assert hurt(report) == points
        assert location.pack_id.hex() in report.problems[0].message
        assert location.blob.blob_id.hex() in report.problems[0].message
        with pytest.raises(IntegrityError, match="hurt") as caught:
            report.raise_if_damaged("it")
        assert caught.value.exit_code == 4


def test_a_missing_pack_hurts_those_who_need_it(backend: MemoryBackend) -> None:
    for name in of_kind(backend, FileKind.PACK):
        files = backend.files()
        del files[name]
        report = checked(MemoryBackend(files), None)
        assert any(name.stem in problem.message for problem in report.problems)
        assert hurt(report)


def test_a_truncated_pack_is_found_without_reading_data(backend: MemoryBackend) -> None:
    for name in of_kind(backend, FileKind.PACK):
        files = backend.files()
        files[name] = files[name][:-1]
        assert any(name.stem in problem.message for problem in checked(MemoryBackend(files), None).problems)


def test_a_missing_index_hurts_all_that_lies_in_it(backend: MemoryBackend) -> None:
    files = {name: content for name, content in backend.files().items() if name.kind is not FileKind.INDEX}
    report = checked(MemoryBackend(files), None)
    assert hurt(report) == {ONE, OTHER}
    assert report.hints  # the packs, which nothing lists now


def test_a_second_copy_saves_the_point(backend: MemoryBackend) -> None:
    """The same chunks lie in two packs; one is damaged: reported, but nobody is hurt, and restores go on."""
    files = backend.files()
    twice = MemoryBackend({name: content for name, content in files.items() if name.kind is not FileKind.INDEX})
    write_point(reopened(twice), info("web01", hours=5), uncompressed(), scsi0_0="abcdefgh" + "ijklmno")
    both = MemoryBackend({**twice.files(), **files})
    repository = reopened(both)

    copies = repository.index.lookup(BlobKind.DATA, digest(chunk("i")))
    assert len(copies) == 2
    for location in copies:
        damaged = flipped(both, FileName(FileKind.PACK, location.pack_id.hex()), (location.blob.offset + 99) * 8)
        report = checked(damaged)
        assert report.problems
        assert hurt(report) == set()
        with RepositoryTarget(reopened(damaged)).open(ONE) as reader:
            assert read(reader.disk("scsi0-0"), 0, 15 << 13) == content("abcdefgh" + "ijklmno")


class BadSector(MemoryBackend):
    """One pack cannot be read, as on a disk that is failing."""

    bad = FileName(FileKind.PACK, "00" * 32)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        if name == self.bad:
            raise TargetError(f"cannot read {name.path}: Input/output error")
        super().load(name, offset, buf)


def test_a_second_copy_is_read_where_the_first_one_cannot_be(backend: MemoryBackend) -> None:
    twice = MemoryBackend({name: data for name, data in backend.files().items() if name.kind is not FileKind.INDEX})
    write_point(reopened(twice), info("web01", hours=5), uncompressed(), scsi0_0="abc")
    both = BadSector({**twice.files(), **backend.files()})
    repository = reopened(both)
    for location in repository.index.lookup(BlobKind.DATA, digest(chunk("a"))):
        both.bad = FileName(FileKind.PACK, location.pack_id.hex())
        assert repository.load_blob(BlobKind.DATA, digest(chunk("a"))) == chunk("a")
    [only] = repository.index.lookup(BlobKind.DATA, digest(chunk("p")))
    both.bad = FileName(FileKind.PACK, only.pack_id.hex())
    with pytest.raises(TargetError, match="Input/output error"):
        repository.load_blob(BlobKind.DATA, digest(chunk("p")))


def test_reading_a_damaged_chunk_names_blob_pack_and_offset(backend: MemoryBackend) -> None:

    [location] = reopened(backend).index.lookup(BlobKind.DATA, digest(chunk("c")))
    name = FileName(FileKind.PACK, location.pack_id.hex())
    damaged = reopened(flipped(backend, name, (location.blob.offset + 50) * 8))
    with pytest.raises(IntegrityError) as caught:
        damaged.load_blob(BlobKind.DATA, digest(chunk("c")))
    for fact in (location.blob.blob_id.hex(), location.pack_id.hex(), f"offset {location.blob.offset}"):
        assert fact in str(caught.value)


def test_a_missing_pack_is_damage_when_read(backend: MemoryBackend) -> None:
    files = {name: content for name, content in backend.files().items() if name.kind is not FileKind.PACK}

    with pytest.raises(IntegrityError, match="no file data"):
        reopened(MemoryBackend(files)).load_blob(BlobKind.DATA, digest(chunk("c")))


def forged(backend: MemoryBackend, *nodes: Node) -> Report:
    """A snapshot that someone with the key made of these nodes."""
    repository = reopened(backend)
    with repository.locked() as held, repository.writing(held, SMALL) as session:
        packer = session.packer()
        root = packer.add_text(BlobKind.TREE, tree.encode(nodes, repository.clock.now()))
        packer.finish()
        session.flush()
    repository.save_snapshot(Snapshot("", repository.clock.now(), root, ("/x",), "host"), None)
    return checked(backend, None)


def test_chunks_that_do_not_add_up_to_the_size_are_found(backend: MemoryBackend) -> None:
    """Stock restic does not look."""
    ids = np.frombuffer(digest(chunk("a")), np.uint8).reshape(1, 32)
    assert not forged(backend, Node("right", NodeKind.FILE, 8192, ids)).problems
    report = forged(backend, Node("wrong", NodeKind.FILE, 8191, ids))
    assert "8192 bytes, its size is 8191" in report.problems[0].message
    never = np.frombuffer(digest(b"never"), np.uint8).reshape(1, 32)
    report = forged(backend, Node("gone", NodeKind.FILE, 5, never))
    assert any("in no index" in problem.message for problem in report.problems)


def test_a_missing_subtree_is_found(backend: MemoryBackend) -> None:
    report = forged(backend, Node("gone", NodeKind.DIRECTORY, subtree=digest(b"never")))
    assert any("/gone" in problem.message and problem.points for problem in report.problems)


def test_two_who_share_a_missing_tree_are_both_hurt(backend: MemoryBackend) -> None:
    gone = Node("gone", NodeKind.DIRECTORY, subtree=digest(b"never"))
    forged(backend, gone)
    report = forged(backend, gone, Node("more", NodeKind.DIRECTORY, subtree=digest(b"never too")))
    assert len([point for point in hurt(report) if point.startswith("snapshot")]) == 2


def test_subsets_together_are_all(backend: MemoryBackend) -> None:
    whole = checked(backend).packs
    assert sum(checked(backend, Subset(part, 5)).packs_read for part in range(1, 6)) == whole
    assert 1 <= checked(backend, Subset(percent=1.0)).packs_read < whole
    assert checked(backend, None).packs_read == 0
    assert checked(backend, Subset(size_bytes=1)).packs_read == 1
    assert checked(backend, Subset(size_bytes=1 << 40)).packs_read == whole
    some = check(reopened_without_index(backend), Subset(size_bytes=150_000), chance=random.Random(3))
    assert 1 <= some.packs_read < whole


@pytest.mark.parametrize(
    ("text", "subset"),
    [("2/7", Subset(2, 7)), ("5%", Subset(percent=5.0)), ("1/1", Subset()), ("10G", Subset(size_bytes=10 << 30))],
)
def test_subsets_are_read(text: str, subset: Subset) -> None:
    assert Subset.parse(text) == subset


@pytest.mark.parametrize("text", ["", "0", "5X", "0/7", "8/7", "1/257", "0%", "101%", "x%", "1/2/3", "nan%"])
def test_what_is_no_subset_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Subset.parse(text)


def test_an_index_that_lists_a_pack_differently_is_damage(backend: MemoryBackend) -> None:
    repository = reopened(backend)
    [pack, *_] = [found for found in repository.index.packs() if len(found.blobs) > 1]
    fields = {
        "packs": [
            {
                "id": pack.pack_id.hex(),
                "blobs": [{"id": "ab" * 32, "type": "data", "offset": 0, "length": 99}],
            }
        ]
    }
    repository.files.save_sealed(FileKind.INDEX, codec.encode(fields))
    with pytest.raises(IntegrityError, match="different blobs"):
        reopened(backend)
    assert any("different blobs" in problem.message for problem in checked(backend, None).problems)


def test_the_config_and_keys_are_damage_too(backend: MemoryBackend) -> None:
    with pytest.raises(IntegrityError):
        checked(flipped(backend, CONFIG, 200))
    [key] = of_kind(backend, FileKind.KEY)
    with pytest.raises(IntegrityError, match="does not match its name"):
        checked(flipped(backend, key, 200))


class LongText:
    """As long as the list of a disk of 8 TiB."""

    size_bytes = (1 << 30) + (1 << 20)

    def __iter__(self) -> Iterator[bytes]:
        yield from itertools.repeat(b'{"nodes":[]}'.ljust(1 << 20), self.size_bytes >> 20)


def test_the_list_of_a_huge_disk_is_whole() -> None:
    backend = MemoryBackend()
    repository = made(backend)
    with repository.locked() as held, repository.writing(held) as session:
        packer = session.packer()
        packer.add_text(BlobKind.TREE, LongText())
        packer.finish()
        session.flush()
    report = checked(backend)
    assert (report.problems, report.packs_read) == ([], 1)


class Interrupted(Around):
    """The operator presses Ctrl-C while so many files are loaded already."""

    def __init__(self, inner: Backend, after: int) -> None:
        super().__init__(inner)
        self.left = after

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        self.left -= 1
        if self.left == -1:  # only once: who catches it goes on
            raise Cancelled
        super().load(name, offset, buf)


def test_a_check_that_is_interrupted_finds_no_damage(backend: MemoryBackend) -> None:
    loads = 10_000
    counting = Interrupted(backend, loads)
    assert check(Repository.open(counting, PASSWORD), Subset()).problems == []
    loads -= counting.left
    assert loads > 20
    for after in range(loads):
        with pytest.raises(Cancelled):
            check(Repository.open(Interrupted(backend, after), PASSWORD), Subset())
    assert of_kind(backend, FileKind.SUSPECT) == []


def test_packs_without_any_restore_point_are_told_of(backend: MemoryBackend) -> None:
    """Somebody, or a bucket's rule for old files, removed the records: all is there still, until the next prune."""
    for name in of_kind(backend, FileKind.SNAPSHOT):
        backend.remove(name)
    assert any("no restore point" in hint for hint in checked(backend).hints)
    fresh = MemoryBackend()
    made(fresh)
    assert checked(fresh).hints == []
