"""Packers and the session they share: dedup, verification, back pressure, and how they end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images import pattern
from tests.repository.faulty import FailingBackend
from tests.repository.repositories import SMALL, chunk, made, reopened
from vcbproxy.clock import ManualClock
from vcbproxy.config import Compression
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository import compression, crypto, indexfile, longblob, pack, pages
from vcbproxy.repository.backend.base import FileKind, FileName
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind, Buffer, digest
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions, WriteSession

DATA, TREE = BlobKind.DATA, BlobKind.TREE


@pytest.fixture
def repository() -> Repository:
    return made()


@pytest.fixture
def session(repository: Repository) -> Iterator[WriteSession]:
    with repository.locked() as held, repository.writing(held, SMALL) as opened:
        yield opened


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("pack-writer", "lock-refresh"))]


@given(st.lists(st.binary(max_size=3000), max_size=12), st.sampled_from(list(Compression)))
@settings(max_examples=25, deadline=None)
def test_what_is_added_is_loaded(pieces: list[bytes], compress: Compression) -> None:
    repository = made()
    options = WriteOptions(compress, pack_bytes=4096, queue_bytes=8192)
    with repository.locked() as held, repository.writing(held, options) as session:
        packer_ = session.packer()
        ids = [packer_.add(kind, piece) for piece in pieces for kind in (DATA, TREE)]
        packer_.finish()
        session.flush()
    assert ids == [digest(piece) for piece in pieces for _ in (DATA, TREE)]
    again = reopened(repository.backend)
    for piece in pieces:
        assert again.load_blob(DATA, digest(piece)) == piece
        assert again.load_blob(TREE, digest(piece)) == piece
    assert check(again, Subset()).problems == []


def test_a_blob_is_stored_once(repository: Repository, session: WriteSession) -> None:
    one, other = session.packer(), session.packer()
    for _ in range(3):
        one.add(DATA, chunk("a"))
        other.add(DATA, chunk("a"))
    for made_ in (one, other):
        made_.finish()
    session.flush()
    third = session.packer()
    third.add(DATA, chunk("a"))
    assert (one.stats.blobs_new, one.stats.blobs_known) == (1, 2)
    assert (other.stats.blobs_new, other.stats.blobs_known) == (0, 3)
    assert (third.stats.blobs_new, third.stats.blobs_known) == (0, 1)
    assert len(repository.index.lookup(DATA, digest(chunk("a")))) == 1


def test_many_packers_at_once_store_every_blob_once(repository: Repository) -> None:
    letters = [bytes([number]) * 700 + np.random.default_rng(number).bytes(700) for number in range(120)]
    with (
        repository.locked() as held,
        repository.writing(held, WriteOptions(pack_bytes=9000, queue_bytes=9000)) as session,
    ):

        def work(seed: int) -> None:
            mine = session.packer()
            for number in np.random.default_rng(seed).permutation(120):
                mine.add(DATA, letters[number])
            mine.finish()

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.flush()
        assert session.stats.blobs_new == 120
        assert session.stats.blobs_known == 5 * 120
    assert check(reopened(repository.backend), Subset()).problems == []


def test_data_and_trees_lie_in_packs_of_their_own(repository: Repository, session: WriteSession) -> None:
    mine = session.packer()
    for letter in "abcd":
        mine.add(DATA, chunk(letter))
        mine.add(TREE, chunk(letter))
    mine.finish()
    session.flush()
    kinds = [{blob.kind for blob in found.blobs} for found in repository.index.packs()]
    assert sorted(map(len, kinds)) == [1] * len(kinds)
    assert {DATA} in kinds
    assert {TREE} in kinds


def test_what_does_not_shrink_is_stored_raw_but_trees_never(repository: Repository, session: WriteSession) -> None:
    mine = session.packer()
    noise = os.urandom(5000)
    for kind in (DATA, TREE):
        mine.add(kind, noise)
    mine.add(DATA, bytes(5000))
    mine.finish()
    session.flush()
    flags = {
        (kind, name): repository.index.lookup(kind, digest(name))[0].blob.compressed
        for kind, name in ((DATA, noise), (TREE, noise), (DATA, bytes(5000)))
    }
    assert list(flags.values()) == [False, True, True]


def test_packs_stay_near_their_target(repository: Repository) -> None:
    options = WriteOptions(Compression.OFF, pack_bytes=100_000, queue_bytes=1 << 20)
    with repository.locked() as held, repository.writing(held, options) as session:
        mine = session.packer()
        for number in range(100):
            mine.add(DATA, pattern(number << 20, 9_000))
        mine.add(DATA, pattern(0, 1_000_000, "larger than a pack"))
        mine.finish()
        session.flush()
    sizes = sorted(stored.size_bytes for stored in repository.backend.list(FileKind.PACK))
    assert all(100_000 <= size < 111_000 for size in sizes[1:-1])
    assert sizes[-1] > 1_000_000


class LyingCompressor:
    """Gives back a good frame of other bytes, as a flipped bit in memory would."""

    def compress(self, data: Buffer) -> bytes:
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 1
        return compression.compressor(1).compress(changed)


def add_through_a_liar(repository: Repository) -> None:
    with repository.locked() as held, repository.writing(held, SMALL) as session:
        mine = session.packer()
        mine._compressor = LyingCompressor()
        mine.add(DATA, bytes(10_000))


def test_nothing_is_written_that_does_not_open_to_its_plaintext(repository: Repository) -> None:
    with pytest.raises(IntegrityError, match="memory or processor"):
        add_through_a_liar(repository)
    assert list(repository.backend.list(FileKind.PACK)) == []
    assert threads_of_ours() == []


def test_large_blobs_are_verified_and_read_as_well(repository: Repository, session: WriteSession) -> None:
    mine = session.packer()
    large = pattern(0, 9 << 20) + bytes(3 << 20)
    mine.add(DATA, large)
    mine.finish()
    session.flush()
    assert repository.load_blob(DATA, digest(large)) == large
    liar = session.packer()
    liar._compressor = LyingCompressor()
    with pytest.raises(IntegrityError, match="memory or processor"):
        liar.add(DATA, large[::-1])
    with pytest.raises(IntegrityError, match="memory or processor"):
        session.flush()


class Bites:
    """A text of 10 MiB, of which a given pass has one bit wrong, as memory that flips one would make it."""

    size_bytes = 10 << 20

    def __init__(self, wrong_pass: int = 0) -> None:
        self._passes_left = wrong_pass

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self._passes_left -= 1
        for number in range(10):
            piece = bytearray(pattern(number << 20, 1 << 20))
            if number == 5 and self._passes_left == 0:
                piece[1000] ^= 1
            yield memoryview(piece)


def test_long_texts_are_stored_by_bites(repository: Repository, session: WriteSession) -> None:
    mine = session.packer()
    blob_id = mine.add_text(TREE, Bites())
    assert mine.add_text(TREE, Bites()) == blob_id
    mine.finish()
    session.flush()
    whole = b"".join(Bites())
    assert blob_id == digest(whole)
    assert repository.load_blob(TREE, blob_id) == whole
    assert repository.read_blob(TREE, blob_id, b"".join) == whole
    assert repository.read_blob(TREE, blob_id, lambda pieces: len(next(pieces))) > 0
    assert (mine.stats.blobs_new, mine.stats.blobs_known, mine.stats.plain_bytes) == (1, 1, 10 << 20)


@pytest.mark.parametrize("wrong_pass", [1, 2])
def test_long_texts_are_verified(repository: Repository, wrong_pass: int) -> None:
    with (
        pytest.raises(IntegrityError, match="memory or processor"),
        repository.locked() as held,
        repository.writing(held, SMALL) as session,
    ):
        session.packer().add_text(TREE, Bites(wrong_pass))
    assert list(repository.backend.list(FileKind.PACK)) == []


@given(st.integers(0, 1000), st.integers(1, 255))
@settings(max_examples=5, deadline=None)
def test_long_blobs_are_refused_when_damaged(permille: int, flip: int) -> None:
    text = Bites()
    sealed = memoryview(bytearray(longblob.sealed_size_max(text)))
    key = crypto.new_key()
    sealed = sealed[: longblob.seal_into(key, text, sealed)]
    with pytest.raises(IntegrityError, match="match its id"):
        list(longblob.opened(key, sealed, text.size_bytes, bytes(32)))
    for wrong_bytes in (text.size_bytes - 1, text.size_bytes + 1):
        with pytest.raises(IntegrityError, match="decompresses"):
            list(longblob.opened(key, sealed, wrong_bytes, longblob.digest(text)))
    sealed[(len(sealed) - 1) * permille // 1000] ^= flip
    with pytest.raises(IntegrityError, match="authentication"):
        list(longblob.opened(key, sealed, text.size_bytes, longblob.digest(text)))


@given(st.binary(max_size=100), st.data())
@settings(max_examples=100, deadline=None)
def test_equal_is_equal(one: bytes, data: st.DataObject) -> None:
    assert pages.equal(one, memoryview(bytearray(one)))
    other = bytearray(one)
    if other:
        other[data.draw(st.integers(0, len(other) - 1))] ^= data.draw(st.integers(1, 255))
        assert not pages.equal(one, other)
    assert not pages.equal(one, one + b"\0")


def test_the_first_error_reaches_every_packer(repository: Repository) -> None:
    backend = FailingBackend(repository.backend.files())  # type: ignore[attr-defined]
    failing = reopened(backend)
    backend.refuse = lambda name: name.kind is FileKind.PACK
    with failing.locked() as held, failing.writing(held, SMALL) as session:
        one, other = session.packer(), session.packer()
        one.add(DATA, chunk("a"))
        one.finish()
        with pytest.raises(TargetError, match="No space"):
            session.flush()
        with pytest.raises(TargetError, match="No space"):
            other.add(DATA, chunk("b"))
        with pytest.raises(TargetError, match="No space"):
            session.packer()
    assert threads_of_ours() == []
    assert not failing.index.has(DATA, digest(chunk("a")))


class SlowBackend(MemoryBackend):
    """Stores packs only when it is let."""

    def __init__(self, files: dict[FileName, bytes]) -> None:
        super().__init__(files)
        self.gate = threading.Event()

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        if name.kind is FileKind.PACK:
            assert self.gate.wait(20)
        super().save(name, parts)


def test_a_slow_target_holds_the_packers_back() -> None:
    slow = SlowBackend(made().backend.files())  # type: ignore[attr-defined]
    repository = reopened(slow)
    options = WriteOptions(Compression.OFF, pack_bytes=10_000, writers=1, queue_bytes=40_000)
    added: list[int] = []
    with repository.locked() as held, repository.writing(held, options) as session:

        def work() -> None:
            mine = session.packer()
            for number in range(30):
                mine.add(DATA, pattern(number << 20, 10_000))
                added.append(number)
            mine.finish()

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(0.3)
        assert 1 <= len(added) <= 5
        slow.gate.set()
        worker.join()
        session.flush()
    assert check(reopened(slow), Subset()).problems == []


def test_a_lost_lock_stops_the_writing(repository: Repository) -> None:
    clock = repository.clock
    assert isinstance(clock, ManualClock)
    with repository.locked() as held:
        clock.sleep(23 * 60)
        with repository.writing(held, SMALL) as session:
            mine = session.packer()
            mine.add(DATA, chunk("a"))
            mine.finish()
            with pytest.raises(TargetError, match="nothing more is written"):
                session.flush()
    assert list(repository.backend.list(FileKind.PACK)) == []


def test_index_files_are_written_along_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexfile, "BLOBS_PER_FILE_MAX", 10)
    repository = made()
    with (
        repository.locked() as held,
        repository.writing(held, WriteOptions(pack_bytes=4000, queue_bytes=4000)) as session,
    ):
        mine = session.packer()
        for number in range(100):
            mine.add(DATA, pattern(number << 20, 1000))
        mine.finish()
        deadline = time.monotonic() + 20
        while not list(repository.backend.list(FileKind.INDEX)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        session.flush()
    # packs of four blobs, files of ten: two packs a file
    assert 10 <= len(list(repository.backend.list(FileKind.INDEX))) <= 13
    assert len(reopened(repository.backend).index) == 100


def test_a_packer_of_an_ended_session_is_refused(repository: Repository) -> None:
    with repository.locked() as held, repository.writing(held, SMALL) as session:
        mine = session.packer()
    with pytest.raises(TargetError, match="ended"):
        mine.add(DATA, b"late")


def test_a_pack_reads_itself_without_the_index(repository: Repository, session: WriteSession) -> None:
    mine = session.packer()
    for letter in "aBc0":
        mine.add(DATA, chunk(letter))
    mine.finish()
    session.flush()
    [stored] = repository.backend.list(FileKind.PACK)
    content = memoryview(repository.backend.files()[stored.name])  # type: ignore[attr-defined]
    blobs = pack.read_header(
        repository.key, len(content), lambda offset, length: content[offset : offset + length], "it"
    )
    assert [blob.blob_id for blob in blobs] == [digest(chunk(letter)) for letter in "aBc0"]
    assert len(content) == blobs[-1].end + pack.header_size(blobs)


@pytest.mark.parametrize("size", [0, 3, 35, 36, 40, 100])
def test_a_torn_pack_has_no_header(size: int) -> None:
    junk = bytes(range(100))[:size]
    with pytest.raises(IntegrityError):
        pack.read_header(crypto.new_key(), size, lambda offset, length: junk[offset : offset + length], "it")


@pytest.mark.parametrize(("packers", "pack_mib"), [(1, 16), (3, 16), (8, 8), (16, 4), (64, 4)])
def test_many_packers_fill_smaller_packs(repository: Repository, packers: int, pack_mib: int) -> None:
    """Together they take 64 MiB, down to the smallest packs that restic writes; and larger ones again later."""
    with repository.locked() as held, repository.writing(held) as session:
        made_ = [session.packer() for _ in range(packers)]
        assert session.room(1000)[1] == pack_mib << 20
        for packer_ in made_:
            packer_.finish()
        assert session.room(1000)[1] == 16 << 20
