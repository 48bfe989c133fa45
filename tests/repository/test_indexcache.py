"""The index by its cache says what the index in memory says: whatever came, went, was damaged, or died meanwhile."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.clock import ManualClock
from vcbproxy.errors import IntegrityError
from vcbproxy.repository import indexfile, runwriter
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.index import Index
from vcbproxy.repository.indexcache import IndexCache, ListedPacks
from vcbproxy.repository.indexfile import PackBlobs
from vcbproxy.repository.pack import Blob

SECRET = bytes(range(32))
# Few different ids, of which several share their first eight bytes.
IDS = [bytes([a] * 8) + bytes([b]) + bytes(23) for a in range(3) for b in range(3)]
ABSENT = bytes([1] * 8) + bytes([9]) + bytes(23)


def pack_of(number: int, rows: Sequence[tuple[BlobKind, bytes]]) -> PackBlobs:
    blobs = [Blob(kind, name, at * 100, 100, at % 2 * 500) for at, (kind, name) in enumerate(rows)]
    return PackBlobs(bytes([number % 3]) * 8 + number.to_bytes(24, "big"), blobs)


@dataclass
class Shelf:
    """The index files of a repository: what each lists; and which were read."""

    files: dict[str, list[PackBlobs]]
    read_files: set[str] = field(default_factory=set)

    def read(self, stems: Iterable[str]) -> Iterator[tuple[str, ListedPacks]]:
        for stem in stems:
            self.read_files.add(stem)
            yield stem, indexfile.decode(indexfile.encode(self.files[stem]), f"index {stem}")

    def in_memory(self, listed: set[str]) -> Index:
        made = Index()
        made.add_files([packs for _, packs in self.read(sorted(listed))])
        return made

    def cached(self, directory: Path, listed: set[str], secret: bytes = SECRET) -> Index:
        cache = IndexCache(directory, secret, ManualClock())
        made = Index()
        for one in cache.load(listed, self.read):
            made.attach(one.run, one.tail.packs, one.packs, cache.renewal(one, self.read))
        return made


def shelf(files: Sequence[Sequence[PackBlobs]]) -> Shelf:
    return Shelf({number.to_bytes(32, "big").hex(): list(packs) for number, packs in enumerate(files)})


def large(files: int = 3, packs: int = 12) -> Shelf:
    """More than a thousand blobs: several blocks."""
    chance = np.random.default_rng(4)
    numbered = iter(range(files * packs))
    return shelf(
        [
            [
                pack_of(
                    next(numbered),
                    [(BlobKind.TREE if at % 9 == 0 else BlobKind.DATA, chance.bytes(32)) for at in range(40)],
                )
                for _ in range(packs)
            ]
            for _ in range(files)
        ]
    )


def told_by(index: Index, names: Iterable[bytes]) -> dict[str, object]:
    """All that an index can be asked."""
    wanted = sorted(names)
    ids = np.frombuffer(b"".join(wanted), np.uint8).reshape(-1, 32)
    told: dict[str, object] = {"sizes": index.pack_sizes(), "length": len(index)}
    told["packs"] = {pack.pack_id: list(pack.blobs) for pack in index.packs()}
    for kind in BlobKind:
        places = {name: sorted(map(repr, index.lookup(kind, name))) for name in wanted}
        told[f"places of {kind}"] = places
        assert {name: index.has(kind, name) for name in wanted} == {name: bool(found) for name, found in places.items()}
        known, lengths = index.find(ids, kind)
        assert known.tolist() == [bool(places[name]) for name in wanted]
        plain = {name: {found.blob.plain_bytes for found in index.lookup(kind, name)} or {0} for name in wanted}
        assert all(length in plain[name] for name, length in zip(wanted, lengths.tolist(), strict=True))
        told[f"packs of {kind}"] = bool(index.packs_of(ids, kind)) == any(places.values())
    return told


def names_of(shelf: Shelf) -> set[bytes]:
    """Some of the blobs, and one that there is not."""
    names = {blob.blob_id for packs in shelf.files.values() for pack in packs for blob in pack.blobs}
    return {*sorted(names)[:: max(len(names) // 200, 1)], ABSENT}


def hold_same(shelf: Shelf, directory: Path, listed: set[str]) -> None:
    names = names_of(shelf)
    assert told_by(shelf.cached(directory, listed), names) == told_by(shelf.in_memory(listed), names)


ROWS = st.lists(st.tuples(st.sampled_from(list(BlobKind)), st.sampled_from(IDS)), max_size=5)
POOL = st.lists(ROWS, min_size=1, max_size=8)


@given(POOL, st.data(), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_it_says_what_the_index_in_memory_says(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[tuple[BlobKind, bytes]]],
    data: st.DataObject,
    held_rows: int,
) -> None:
    """Index files come and go in any order; packs are listed by several of them."""
    directory = tmp_path_factory.mktemp("cache")
    pool = [pack_of(number, blobs) for number, blobs in enumerate(rows)]
    some = st.lists(st.sampled_from(pool), max_size=4, unique_by=lambda pack: pack.pack_id)
    made = shelf(data.draw(st.lists(some, min_size=1, max_size=6)))
    before, runwriter._SORT_ROWS = runwriter._SORT_ROWS, held_rows
    try:
        for _ in range(4):
            listed = data.draw(st.sets(st.sampled_from(sorted(made.files))))
            hold_same(made, directory, listed)
    finally:
        runwriter._SORT_ROWS = before
        shutil.rmtree(directory)


def test_what_is_forgotten_stays_so_and_what_is_added_comes_to_it(tmp_path: Path) -> None:
    made = large()
    both = made.cached(tmp_path, set(made.files)), made.in_memory(set(made.files))
    first = next(iter(made.files.values()))[0]
    fresh = pack_of(999, [(BlobKind.DATA, first.blobs[1].blob_id), (BlobKind.DATA, bytes(32))])
    for index in both:
        index.add(fresh)
        index.forget([first.pack_id])
        index.add_files([packs for _, packs in made.read(made.files)])
    assert told_by(both[0], names_of(made)) == told_by(both[1], names_of(made))
    assert first.pack_id not in both[0].pack_sizes()


def test_runs_are_few_however_many_index_files_came_one_by_one(tmp_path: Path) -> None:
    made = large(files=30, packs=2)
    listed: set[str] = set()
    for stem in made.files:
        listed.add(stem)
        made.cached(tmp_path, listed)
    assert len(list(tmp_path.glob("*.run"))) <= 4
    hold_same(made, tmp_path, listed)


def test_index_files_are_read_once_only(tmp_path: Path) -> None:
    made = large()
    made.cached(tmp_path, set(made.files))
    kept = dict(made.files)
    made.files.clear()  # reading one more would fail
    index = made.cached(tmp_path, set(kept))
    assert told_by(index, [ABSENT]) == told_by(Shelf(kept).in_memory(set(kept)), [ABSENT])


def test_rows_of_what_is_gone_go_once_they_are_the_larger_part(tmp_path: Path) -> None:
    made = large(files=4)
    made.cached(tmp_path, set(made.files))
    [whole] = tmp_path.glob("*.run")
    size = whole.stat().st_size
    left = set(sorted(made.files)[:3])
    hold_same(made, tmp_path, left)
    assert [path.stat().st_size for path in tmp_path.glob("*.run")] == [size]
    hold_same(made, tmp_path, set(sorted(made.files)[:1]))
    assert [path.stat().st_size < size / 2 for path in tmp_path.glob("*.run")] == [True]


def test_two_opinions_of_a_pack_are_damage(tmp_path: Path) -> None:
    made = shelf([[pack_of(1, [(BlobKind.DATA, IDS[0])])], [pack_of(1, [(BlobKind.DATA, IDS[1])])]])
    one, other = sorted(made.files)
    with pytest.raises(IntegrityError, match="different blobs"):
        made.cached(tmp_path, {one, other})
    made.cached(tmp_path, {one})
    with pytest.raises(IntegrityError, match="different blobs"):
        made.cached(tmp_path, {one, other})
    hold_same(made, tmp_path, {other})


# ---------------------------------------------------------------------- damage


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.chmod(0o600)
    path.write_bytes(data)


def damage_blocks(path: Path) -> None:
    """In the very file, which may be open."""
    with path.open("r+b") as file:
        for block in range((path.stat().st_size - 4096) // 8192):
            file.seek(4096 + block * 8192 + 77)
            file.write(b"damage")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, Path]:
    directory = tmp_path_factory.mktemp("filled")
    made = large()
    made.cached(directory, set(made.files))
    return made, directory


@pytest.mark.parametrize("part", [0, 9, 40, 70, 100, 4096, 9000, 12287, 60_000, -1, -100, -2000])
def test_a_flipped_byte_is_found_and_the_run_made_anew(
    filled: tuple[Shelf, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, part: int
) -> None:
    made, source = filled
    shutil.copytree(source, tmp_path / "index")
    [path] = (tmp_path / "index").glob("*.run")
    flipped(path, part)
    with caplog.at_level(logging.WARNING):
        hold_same(made, tmp_path / "index", set(made.files))
    assert "made anew" in caplog.text
    [new] = (tmp_path / "index").glob("*.run")
    assert new.name != path.name
    caplog.clear()
    hold_same(made, tmp_path / "index", set(made.files))
    assert not caplog.records


def test_any_flipped_byte_changes_no_answer(filled: tuple[Shelf, Path], tmp_path: Path) -> None:
    made, source = filled
    chance = np.random.default_rng(77)
    [original] = source.glob("*.run")
    names = names_of(made)
    truth = told_by(made.in_memory(set(made.files)), names)
    for at in chance.integers(0, original.stat().st_size, 15).tolist():
        directory = tmp_path / str(at)
        shutil.copytree(source, directory)
        flipped(directory / original.name, at)
        assert told_by(made.cached(directory, set(made.files)), names) == truth, f"byte {at}"


def test_cut_empty_and_foreign_files_are_dropped(filled: tuple[Shelf, Path], tmp_path: Path) -> None:
    made, source = filled
    [original] = source.glob("*.run")
    whole = original.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    made.cached(other, set(made.files), secret=bytes(32))
    [foreign] = other.glob("*.run")
    swapped = bytearray(whole)
    swapped[4096 : 4096 + 8192] = whole[4096 + 8192 : 4096 + 2 * 8192]
    for number, content in enumerate([b"", whole[:50], whole[:-1], whole[:20_000], foreign.read_bytes(), swapped]):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / original.name).write_bytes(content)
        hold_same(made, directory, set(made.files))
        [path] = directory.glob("*.run")
        assert path.name != original.name


def test_damage_met_while_it_is_used_is_mended(
    filled: tuple[Shelf, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, source = filled
    shutil.copytree(source, tmp_path / "index")
    [path] = (tmp_path / "index").glob("*.run")
    index = made.cached(tmp_path / "index", set(made.files))
    damage_blocks(path)
    assert told_by(index, names_of(made)) == told_by(made.in_memory(set(made.files)), names_of(made))
    assert caplog.text.count("made anew") == 1


def test_a_run_made_anew_claims_no_pack_that_only_a_removed_file_listed(tmp_path: Path) -> None:
    """Else a pack that prune listed anew would be looked for in the run that has none of its rows."""
    made = large(files=2)
    before = set(made.files)
    made.cached(tmp_path, before)
    removed = min(before)
    listed_anew = made.files[removed][:2]
    made.files["ff" * 32] = listed_anew
    listed = {*before, "ff" * 32} - {removed}
    index = made.cached(tmp_path, listed)
    for path in tmp_path.glob("*.run"):
        damage_blocks(path)
    assert index.has(BlobKind.DATA, made.files[max(before)][0].blobs[1].blob_id)
    hold_same(made, tmp_path, listed)
    hold_same(made, tmp_path, listed - {"ff" * 32})
    hold_same(made, tmp_path, listed)


def test_what_cannot_be_mended_is_an_error_and_no_answer(filled: tuple[Shelf, Path], tmp_path: Path) -> None:
    made, source = filled
    shutil.copytree(source, tmp_path / "index")
    [path] = (tmp_path / "index").glob("*.run")
    emptied = Shelf(dict(made.files))
    index = emptied.cached(tmp_path / "index", set(made.files))
    damage_blocks(path)
    stem, packs = emptied.files.popitem()
    emptied.files[stem] = [PackBlobs(pack.pack_id, pack.blobs[1:]) for pack in packs]  # as no index file can change
    with pytest.raises(IntegrityError, match="different blobs"):
        index.has(BlobKind.DATA, b"\x80" * 32)


# ---------------------------------------------------------------------- death and company


def started(work: Iterator[None]) -> int:
    """Begin it in a process of its own, which ends within two minutes; gives its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(120)
        for _ in work:
            pass
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for it; gives its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


DURABLE = ("os.rename", "os.remove", "tempfile.mkstemp", "open", "os.utime")
DIED = 42


def dying(made: Shelf, directory: Path, listed: set[str], step: int) -> Iterator[None]:
    """Load, and die before the so-many-th step that changes a file or its name."""
    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in DURABLE and str(directory) in str(arguments):
            if left == 0:
                os._exit(DIED)
            left -= 1

    sys.addaudithook(count)
    made.cached(directory, listed)
    yield


def test_a_death_at_any_step_costs_nothing_but_work(tmp_path: Path) -> None:
    made = large(files=6, packs=4)
    stems = sorted(made.files)
    before = tmp_path / "before"
    before.mkdir()
    made.cached(before, set(stems[:4]))
    made.cached(before, set(stems[:5]))
    now = {*stems[1:]}  # one is gone, one is new; the new one is merged with the others
    before_sort, runwriter._SORT_ROWS = runwriter._SORT_ROWS, 50
    try:
        for step in range(100):
            directory = tmp_path / str(step)
            shutil.copytree(before, directory)
            code = ended(started(dying(made, directory, now, step)))
            assert code in (0, DIED)
            made.read_files.clear()
            made.cached(directory, now)
            assert made.read_files <= {stems[5]}, "what was there was lost"
            hold_same(made, directory, now)
            assert list(directory.glob("*.run"))
            if code == 0:
                break
    finally:
        runwriter._SORT_ROWS = before_sort
    assert code == 0
    assert step >= 5


def test_leftovers_of_the_dead_go_after_a_day(tmp_path: Path) -> None:
    made = large(files=1)
    made.cached(tmp_path, set(made.files))
    old, young = tmp_path / "tmp-old", tmp_path / "tmp-young"
    for path in (old, young):
        path.write_bytes(b"half a run")
    os.utime(old, (1_000_000, 1_000_000))
    made.cached(tmp_path, set(made.files))
    assert not old.exists()
    assert young.exists()


def test_runs_that_were_merged_but_not_yet_removed_do_no_harm(tmp_path: Path) -> None:
    made = large(files=4)
    stems = sorted(made.files)
    kept = tmp_path / "kept"
    kept.mkdir()
    index = tmp_path / "index"
    index.mkdir()
    for count in range(1, 5):
        made.cached(index, set(stems[:count]))
        for path in index.glob("*.run"):
            if not (kept / path.name).exists():
                os.link(path, kept / path.name)
    for path in kept.iterdir():
        if not (index / path.name).exists():
            os.link(path, index / path.name)
    hold_same(made, index, set(stems))
    hold_same(made, index, set(stems[1:]))
    hold_same(made, index, set(stems[:1]))


def test_several_processes_load_at_once(tmp_path: Path) -> None:
    made = large(files=5, packs=6)
    names = names_of(made)
    stems = sorted(made.files)

    def work(number: int) -> Iterator[None]:
        for count in (1, 2, 4, 5, 3, 5):
            listed = set(stems[:count]) if number % 2 else set(stems[-count:])
            assert told_by(made.cached(tmp_path, listed), names) == told_by(made.in_memory(listed), names)
            yield

    children = [started(work(number)) for number in range(4)]
    assert list(map(ended, children)) == [0] * 4
    hold_same(made, tmp_path, set(stems))


def test_a_lock_that_is_never_released_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    import fcntl

    made = large(files=1)
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        hold_same(made, tmp_path, set(made.files))  # the clock is moved by waiting
    finally:
        os.close(fd)
