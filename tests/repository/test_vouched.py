"""What a list takes over from an older one is not looked up again, unless it is not what it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.repository.repositories import CHUNK, SMALL, chunk, info, made, reopened, write_point
from vcbproxy.errors import IntegrityError
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.idlist import Ids
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.index import Index
from vcbproxy.repository.reader import PointReader
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.vouched import Taken, TakenOver, Vouched, looked_up

INDEX = Index()


def ids_of(letters: str) -> Ids:
    """A chunk a letter."""
    return np.frombuffer(b"".join(digest(chunk(letter)) for letter in letters), np.uint8).reshape(-1, 32)


def lengths_of(letters: str) -> np.ndarray:
    return np.full(len(letters), CHUNK, np.uint32)


def vouched(letters: str, lost: str = "", index: Index = INDEX) -> Vouched:
    rows = np.array([row for row, letter in enumerate(letters) if letter in lost], np.int64)
    return Vouched(ids_of(letters), lengths_of(letters), rows, index, index.forgotten)


def asked(older: Vouched, new: str, *taken: Taken, index: Index = INDEX) -> str:
    """Which chunks of the new list must be looked up."""
    rows = TakenOver(older, taken).unvouched(index, ids_of(new), lengths_of(new))
    return "".join(new[row] for row in rows)


def test_only_what_is_new_is_asked_for() -> None:
    assert asked(vouched("abcdefgh"), "abXYfgh", Taken(0, 0, 2), Taken(4, 5, 3)) == "XY"


def test_a_lost_chunk_is_asked_for_though_it_was_taken_over() -> None:
    assert asked(vouched("abcdefgh", lost="bg"), "abXYfgh", Taken(0, 0, 2), Taken(4, 5, 3)) == "bXYg"


def test_a_claim_that_does_not_hold_is_not_believed() -> None:
    assert asked(vouched("abcdefgh"), "abXYfgh", Taken(0, 0, 3), Taken(4, 5, 3)) == "abXY"


def test_a_claim_beyond_the_end_is_good_for_what_there_is() -> None:
    assert asked(vouched("abcd"), "abcd", Taken(0, 0, 9)) == ""
    assert asked(vouched("abcd"), "cd", Taken(0, 2, 9)) == ""
    assert asked(vouched("abcd"), "abcde", Taken(1, 1, 4)) == "abcde"


def test_nothing_is_believed_of_another_index() -> None:
    assert asked(vouched("abcd"), "abcd", Taken(0, 0, 4), index=Index()) == "abcd"


def test_another_length_is_asked_for() -> None:
    new = lengths_of("abcd")
    new[2] += 1
    rows = TakenOver(vouched("abcd"), [Taken(0, 0, 2), Taken(2, 2, 2)]).unvouched(INDEX, ids_of("abcd"), new)
    assert rows.tolist() == [2, 3]


@given(st.text("abc", max_size=30), st.text("abcX", max_size=30), st.data())
def test_what_is_not_asked_for_was_vouched_for(older: str, new: str, data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from(["", "a", "bc"]))
    rows = st.integers(0, 31)
    taken = data.draw(st.lists(st.builds(Taken, rows, rows, rows), max_size=4))
    left = set(TakenOver(vouched(older, lost), taken).unvouched(INDEX, ids_of(new), lengths_of(new)).tolist())
    for row in set(range(len(new))) - left:
        assert new[row] in older
        assert new[row] not in lost


def test_what_was_forgotten_since_is_looked_up_again() -> None:
    """As a pack that turns out to be missing while the point is written."""
    backend = MemoryBackend()
    write_point(made(backend), scsi0_0="abcd")
    repository = reopened(backend)
    with RepositoryTarget(repository, SMALL).begin(info(hours=1)) as writer:
        base = PointReader.unlocked(repository, RepositoryTarget(repository).find("web01@latest")).vouched("scsi0-0")
        disk = writer.disk("scsi0-0", 4 * CHUNK)
        [place] = repository.index.lookup(BlobKind.DATA, digest(chunk("c")))
        repository.index.forget([place.pack_id])
        with pytest.raises(IntegrityError, match="was never stored"):
            disk.finish(base.ids, base.lengths, TakenOver(base, [Taken(0, 0, 4)]))


def test_a_base_whose_chunks_have_other_lengths_in_the_index_is_damage() -> None:
    backend = MemoryBackend()
    write_point(made(backend), scsi0_0="abcd")
    repository = reopened(backend)
    repository.indexing.load()
    with pytest.raises(IntegrityError, match="the base's list says"):
        looked_up(repository.index, ids_of("abcd"), np.array([CHUNK, CHUNK, CHUNK - 1, CHUNK + 1], np.uint32))
