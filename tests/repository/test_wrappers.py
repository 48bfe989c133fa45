"""The wrappers round a backend: each held to the contract, and what is special about each."""

from __future__ import annotations

import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from tests.contract.backend import BackendContract, name_of
from vcbproxy import config
from vcbproxy.clock import ManualClock
from vcbproxy.errors import IntegrityError, TargetError
from vcbproxy.repository.backend import compose, faults
from vcbproxy.repository.backend.base import (
    CONFIG,
    Backend,
    FileExists,
    FileKind,
    FileMissing,
    FileName,
    Heat,
    Stored,
    Traits,
    Unavailable,
    load_all,
)
from vcbproxy.repository.backend.cache import CachingBackend
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.backend.faults import Died, FaultyBackend, Order, Verb, What, When
from vcbproxy.repository.backend.limit import LimitedBackend, Window
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.backend.retry import Patience, RetryingBackend
from vcbproxy.units import MiB

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
CONTENT = b"0123456789"
NAME = name_of(CONTENT)
NAMES = [name_of(bytes([number])) for number in range(40)]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "vcbproxy.repository.backend")


def patient(inner: Backend, clock: ManualClock | None = None, **more: object) -> RetryingBackend:
    return RetryingBackend(inner, clock or ManualClock(MONDAY), random.Random(1), **more)  # type: ignore[arg-type]


def by_utc(inner: Backend, clock: ManualClock, *windows: Window) -> LimitedBackend:
    return LimitedBackend(inner, windows, clock, local=lambda now: now)


class TestRetrying(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return patient(MemoryBackend())


class TestLimited(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return by_utc(MemoryBackend(), ManualClock(MONDAY), Window(time(), time(), 10 * MiB, 10 * MiB))


class TestCaching(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return CachingBackend(MemoryBackend(), tmp_path / "cache", 64 * MiB)


class TestFaultless(BackendContract):
    @pytest.fixture
    def backend(self) -> Backend:
        return FaultyBackend(MemoryBackend())


class TestAllTogetherInTrouble(BackendContract):
    """A third of all that is asked goes wrong, at any moment of it, and nobody above the wrappers may notice."""

    @pytest.fixture(params=range(3))
    def backend(self, request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
        trouble = [Order(What.LOST, when, times=0, chance=0.12) for when in When]
        stormy = FaultyBackend(MemoryBackend(), trouble, seed=request.param)
        limited = by_utc(stormy, ManualClock(MONDAY), Window(time(), time(), 50 * MiB))
        return CachingBackend(patient(limited), tmp_path / "cache", 64 * MiB)


# ------------------------------------------------------------------ retry


def test_what_fails_in_passing_is_tried_again_and_waited_for_longer_each_time() -> None:
    clock, waits = ManualClock(MONDAY), []

    class Noting(ManualClock):
        def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            clock.sleep(seconds)

        def monotonic(self) -> float:
            return clock.monotonic()

    storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.LOST, times=8)])
    assert load_all(patient(storage, Noting(MONDAY)), NAME, 100) == CONTENT
    assert storage.struck == 8
    assert 0.5 * (2**8 - 1) / 4 < clock.monotonic() <= 0.5 * (2**8 - 1), "half a second, doubled, jittered"
    assert max(waits) <= 0.25, "an interruption is seen soon"


def test_it_gives_up_in_time_and_says_how_long_it_tried() -> None:
    clock = ManualClock(MONDAY)
    storage = FaultyBackend(MemoryBackend(), [Order(What.LOST, times=0)])
    with pytest.raises(Unavailable, match="cannot look at index/") as caught:
        patient(storage, clock, patience=Patience(limit_s=100)).size(NAME)
    assert 60 < clock.monotonic() <= 100
    assert re.fullmatch(r"it was tried \d+ times in \d+ s", caught.value.__notes__[0])


def test_a_place_that_was_never_reached_is_soon_given_up_if_told_so() -> None:
    clock = ManualClock(MONDAY)
    storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.LOST, times=0)])
    patience = Patience(limit_s=100, unreached_s=10)
    retrying = patient(storage, clock, patience=patience)
    with pytest.raises(Unavailable):
        retrying.size(NAME)
    assert 5 < clock.monotonic() <= 10
    storage.order()
    retrying.size(NAME)
    storage.order(Order(What.LOST, times=0))
    with pytest.raises(Unavailable):
        retrying.size(NAME)
    assert clock.monotonic() > 70, "it was there: it will come back"


def test_the_storage_may_ask_for_more_time() -> None:
    class Overloaded(MemoryBackend):
        asked = 0

        def size(self, name: FileName) -> int:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable(location="s3", action="look", reason="slow down", retry_after_s=42)
            return super().size(name)

    clock = ManualClock(MONDAY)
    assert patient(Overloaded({NAME: CONTENT}), clock).size(NAME) == len(CONTENT)
    assert 42 <= clock.monotonic() < 43


@pytest.mark.parametrize(
    "error",
    [
        TargetError("no space left on device"),
        IntegrityError("damaged"),
        FileMissing(location="m", path="p"),
        FileExists(location="m", path="p"),
    ],
)
def test_what_would_be_the_same_again_is_not_tried_again(error: Exception) -> None:
    class Refusing(MemoryBackend):
        asked = 0

        def load(self, name: FileName, offset: int, buf: memoryview) -> None:
            self.asked += 1
            raise error

    storage = Refusing()
    with pytest.raises(type(error)):
        patient(storage).load(NAME, 0, memoryview(bytearray(1)))
    assert storage.asked == 1


def test_a_removal_whose_answer_was_lost_is_one() -> None:
    storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.LOST, When.AFTER)])
    patient(storage).remove(NAME)
    with pytest.raises(FileMissing):
        patient(storage).remove(NAME)


def test_a_single_file_that_is_there_after_all_is_ours_if_it_has_our_bytes() -> None:
    storage = FaultyBackend(MemoryBackend(), [Order(What.LOST, When.AFTER)])
    patient(storage).save(CONFIG, [b"our", b"s"])
    assert load_all(storage, CONFIG, 100) == b"ours"


@pytest.mark.parametrize("theirs", [b"else", b"ours, and more", b""])
def test_a_single_file_of_someone_else_is_no_success(theirs: bytes) -> None:
    """Our first attempt got lost on its way there; meanwhile another one made the repository."""

    class Overtaken(MemoryBackend):
        first = True

        def save(self, name, parts):
            if self.first:
                self.first = False
                super().save(name, [theirs])
                raise Unavailable(location="s3", action="write config", reason="dropped")
            super().save(name, parts)

    storage = Overtaken()
    with pytest.raises(FileExists):
        patient(storage).save(CONFIG, [b"ours"])
    assert load_all(storage, CONFIG, 100) == theirs


def test_a_listing_that_breaks_off_gives_each_file_once() -> None:
    storage = FaultyBackend(MemoryBackend(dict.fromkeys(NAMES, b"x")), [Order(What.LOST, When.MIDST, times=3)])
    listed = [stored.name for stored in patient(storage).list(FileKind.INDEX)]
    assert sorted(listed, key=str) == sorted(NAMES, key=str)


def test_after_an_interruption_nothing_is_tried_again() -> None:
    clock = ManualClock(MONDAY)
    storage = FaultyBackend(MemoryBackend(), [Order(What.LOST, times=0)])
    with pytest.raises(Unavailable):
        patient(storage, clock, interrupted=lambda: clock.monotonic() > 5).size(NAME)
    assert clock.monotonic() < 6


def test_that_it_tries_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "vcbproxy.repository.backend")
    storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.LOST, times=3)])
    patient(storage).size(NAME)
    assert [record.getMessage() for record in caplog.records] == [
        f"memory: cannot look at {NAME.path}: the connection was lost, on purpose; trying again, for 300 s at most"
    ]


# ------------------------------------------------------------------ limit


def uploaded_s(limited: Backend, clock: ManualClock, packs: int) -> float:
    """How long so many packs of 16 MiB take."""
    began_s = clock.monotonic()
    for number in range(packs):
        content = bytes([number]) * (16 * MiB)
        limited.save(name_of(content, FileKind.PACK), [content])
    return clock.monotonic() - began_s


def test_uploads_and_downloads_keep_to_their_rates() -> None:
    clock = ManualClock(MONDAY)
    storage = MemoryBackend()
    limited = by_utc(storage, clock, Window(time(), time(), 4 * MiB, 8 * MiB))
    assert uploaded_s(limited, clock, 5) == pytest.approx(4 * 16 / 4, abs=1)
    [stored, *_] = storage.list(FileKind.PACK)
    began_s = clock.monotonic()
    for _ in range(5):
        load_all(limited, stored.name, 1 << 30)
    assert clock.monotonic() - began_s == pytest.approx(4 * 16 / 8, abs=1)


def test_the_rate_is_kept_by_many_threads_together() -> None:
    clock = ManualClock(MONDAY)
    limited = by_utc(MemoryBackend(), clock, Window(time(), time(), 4 * MiB))
    threads = [threading.Thread(target=uploaded_s, args=(limited, clock, 3)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == pytest.approx(8 * 16 / 4, abs=1)


def test_a_window_opens_and_closes_while_waiting() -> None:
    clock = ManualClock(MONDAY.replace(hour=17, minute=59, second=50))
    limited = by_utc(MemoryBackend(), clock, Window(time(8), time(18), 1 * MiB))
    assert uploaded_s(limited, clock, 40) == pytest.approx(10, abs=1), "at six the line is free"
    clock.sleep(14 * 3600 - 12)  # until shortly before eight
    uploaded_s(limited, clock, 3)
    clock.sleep(60)
    assert uploaded_s(limited, clock, 3) == pytest.approx(32, abs=2)


@pytest.mark.parametrize(
    ("begin", "end", "days", "moment", "holds"),
    [
        (8, 18, range(5), "Mon 08:00", True),
        (8, 18, range(5), "Mon 07:59", False),
        (8, 18, range(5), "Mon 18:00", False),
        (8, 18, range(5), "Sat 12:00", False),
        (22, 6, [4], "Fri 23:00", True),
        (22, 6, [4], "Sat 05:59", True),
        (22, 6, [4], "Sat 06:00", False),
        (22, 6, [4], "Fri 05:00", False),
        (22, 6, [6], "Mon 05:00", True),
        (0, 0, range(7), "Sun 23:59", True),
    ],
)
def test_when_a_window_is_open(begin: int, end: int, days: list[int], moment: str, holds: bool) -> None:
    day, clock = moment.split()
    local = MONDAY + timedelta(days=["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].index(day))
    local = datetime.combine(local.date(), time.fromisoformat(clock))
    assert Window(time(begin), time(end), days=frozenset(days)).holds(local) is holds


def test_locks_are_not_held_up() -> None:
    clock = ManualClock(MONDAY)
    limited = by_utc(MemoryBackend(), clock, Window(time(), time(), 1 * MiB, 1 * MiB))
    uploaded_s(limited, clock, 1)
    limited.save(name_of(b"lock", FileKind.LOCK), [b"lock"])
    load_all(limited, name_of(b"lock", FileKind.LOCK), 100)
    assert clock.monotonic() == 0


def test_an_interrupted_upload_waits_no_more() -> None:
    clock = ManualClock(MONDAY)
    limited = LimitedBackend(
        MemoryBackend(), [Window(time(), time(), 1 * MiB)], clock, lambda: clock.monotonic() > 3, local=lambda now: now
    )
    assert uploaded_s(limited, clock, 4) < 4


# ------------------------------------------------------------------ cache


class Counting(MemoryBackend):
    """Remembers what was loaded from it; a place far away."""

    def __init__(self, files: dict[FileName, bytes] | None = None) -> None:
        super().__init__(files)
        self.loads: list[FileName] = []

    @property
    def traits(self) -> Traits:
        return Traits(connections=2, remote=True)

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        self.loads.append(name)
        super().load(name, offset, buf)


def test_what_was_read_or_written_once_is_not_fetched_again(tmp_path: Path) -> None:
    storage = Counting({NAME: CONTENT})
    for _ in range(2):  # and by the next process neither
        caching = CachingBackend(storage, tmp_path, 1 << 20)
        for _ in range(2):
            assert load_all(caching, NAME, 100) == CONTENT
    assert storage.loads == [NAME]
    caching.save(name_of(b"new"), [b"ne", b"w"])
    assert load_all(caching, name_of(b"new"), 100) == b"new"
    assert storage.loads == [NAME]


def test_of_packs_only_those_of_trees_are_kept(tmp_path: Path) -> None:
    cold = FileName(FileKind.PACK, NAME.stem, Heat.COLD)
    storage = Counting({cold: CONTENT})
    caching = CachingBackend(storage, tmp_path, 1 << 20)
    caching.save(cold, [CONTENT])
    for _ in range(2):
        load_all(caching, cold, 100)
    assert storage.loads == [cold, cold]
    for _ in range(2):
        load_all(caching, FileName(FileKind.PACK, NAME.stem, Heat.HOT), 100)
    assert storage.loads == [cold, cold, cold]


@pytest.mark.parametrize("kind", [FileKind.LOCK, FileKind.KEY])
def test_locks_and_keys_are_never_kept(tmp_path: Path, kind: FileKind) -> None:
    name = name_of(CONTENT, kind)
    caching = CachingBackend(storage := Counting(), tmp_path, 1 << 20)
    caching.save(name, [CONTENT])
    load_all(caching, name, 100)
    assert storage.loads == [name]
    assert not list(tmp_path.rglob(name.stem))


@pytest.mark.parametrize("damage", [b"0123456788", b"0123", b"", CONTENT + b"more"])
def test_a_damaged_copy_is_dropped_and_fetched_anew(tmp_path: Path, damage: bytes) -> None:
    storage = Counting({NAME: CONTENT})
    load_all(CachingBackend(storage, tmp_path, 1 << 20), NAME, 100)
    [copy] = tmp_path.rglob(NAME.stem)
    copy.write_bytes(damage)
    assert load_all(CachingBackend(storage, tmp_path, 1 << 20), NAME, 100) == CONTENT
    assert storage.loads == [NAME, NAME]
    assert copy.read_bytes() == CONTENT


def test_what_is_damaged_there_is_handed_on_and_not_kept(tmp_path: Path) -> None:
    storage = Counting({NAME: b"0123456788"})
    assert load_all(CachingBackend(storage, tmp_path, 1 << 20), NAME, 100) == b"0123456788"
    assert not list(tmp_path.rglob(NAME.stem))


def test_copies_of_what_is_gone_go_with_the_next_listing(tmp_path: Path) -> None:
    storage = Counting(dict.fromkeys(NAMES, b"x") | {NAME: CONTENT})
    caching = CachingBackend(storage, tmp_path, 1 << 20)
    load_all(caching, NAME, 100)
    storage.remove(NAME)
    with pytest.raises(FileMissing):
        load_all(caching, NAME, 100)
    assert len(list(caching.list(FileKind.INDEX))) == len(NAMES)
    assert not list(tmp_path.rglob(NAME.stem))


def test_the_bound_holds_and_what_was_used_last_stays(tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(100)]
    storage = Counting({name_of(content): content for content in contents})
    caching = CachingBackend(storage, tmp_path, 20_000)
    for content in contents:
        load_all(caching, name_of(content), 1 << 20)
        load_all(caching, name_of(contents[0]), 1 << 20)
    assert sum(path.stat().st_size for path in (tmp_path / "index").rglob("*") if path.is_file()) <= 20_000
    assert storage.loads.count(name_of(contents[0])) == 1
    assert len(storage.loads) == 100


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"in the way")
    caching = CachingBackend(storage := Counting({NAME: CONTENT}), tmp_path, 1 << 20)
    for _ in range(2):
        assert load_all(caching, NAME, 100) == CONTENT
    caching.save(name_of(b"new"), [b"new"])
    assert load_all(storage, name_of(b"new"), 100) == b"new"


# ------------------------------------------------------------------ faults


def test_an_order_strikes_when_and_as_often_as_it_says() -> None:
    storage = FaultyBackend(
        MemoryBackend(),
        [Order(What.FULL, verbs=frozenset({Verb.SAVE}), kinds=frozenset({FileKind.PACK}), after=2, times=2)],
    )
    outcomes = []
    for number in range(6):
        storage.save(name_of(bytes([number])), [b"index"])
        try:
            storage.save(name_of(bytes([number]), FileKind.PACK), [b"pack"])
            outcomes.append("kept")
        except TargetError as error:
            outcomes.append(str(error).split(": ")[2])
    full = "No space left on device, on purpose"
    assert outcomes == ["kept", "kept", full, full, "kept", "kept"]
    assert (storage.struck, storage.changes) == (2, 12)


@pytest.mark.parametrize(("when", "kept"), [(When.BEFORE, False), (When.MIDST, False), (When.AFTER, True)])
@pytest.mark.parametrize("what", [What.LOST, What.EIO, What.DEATH])
def test_at_which_moment_a_save_fails_decides_what_is_kept(what: What, when: When, kept: bool) -> None:
    inner = MemoryBackend()
    with pytest.raises((TargetError, Died)):
        FaultyBackend(inner, [Order(what, when)]).save(NAME, [CONTENT])
    assert (NAME in inner.files()) is kept


def test_who_is_dead_stays_dead() -> None:
    storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.DEATH, verbs=faults.CHANGES)])
    assert storage.size(NAME) == len(CONTENT)
    calls: list[Callable[[], object]] = [
        lambda: storage.remove(NAME),
        lambda: storage.size(NAME),
        lambda: next(storage.list(FileKind.INDEX)),
        storage.create,
    ]
    for call in calls:
        with pytest.raises(Died):
            call()


def test_flipped_and_torn_say_nothing() -> None:
    inner = MemoryBackend()
    storage = FaultyBackend(inner, [Order(What.FLIPPED, verbs=frozenset({Verb.LOAD})), Order(What.TORN)], seed=3)
    storage.save(NAME, [CONTENT])
    assert inner.files()[NAME] == CONTENT[:5]
    read = load_all(storage, NAME, 100)
    different = int.from_bytes(read) ^ int.from_bytes(CONTENT[:5])
    assert different.bit_count() == 1


def test_the_same_seed_makes_the_same_trouble() -> None:
    def outcomes(seed: int) -> list[bool]:
        storage = FaultyBackend(MemoryBackend({NAME: CONTENT}), [Order(What.EIO, chance=0.5, times=0)], seed)
        return [storage_fails(storage) for _ in range(50)]

    def storage_fails(storage: Backend) -> bool:
        try:
            storage.size(NAME)
        except TargetError:
            return True
        return False

    assert outcomes(1) == outcomes(1) != outcomes(2)


# ------------------------------------------------------------------ together


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Callable[[str], config.Repository]]:
    def load(text: str) -> config.Repository:
        path = tmp_path / "vcbproxy.toml"
        path.write_text(f'[repository]\nlocation = "repo"\npassword_file = "p"\n{text}')
        loaded = config.load(path).repository
        assert loaded is not None
        return loaded

    return load


def test_the_configuration_makes_the_wrappers(tmp_path: Path, settings: Callable[[str], config.Repository]) -> None:
    loaded = settings(
        "[repository.traffic]\nretry_s = 60\n"
        'limits = [{ from = "08:00", to = "18:00", days = ["mon"], upload_mib_s = 20 }, { download_mib_s = 1.5 }]\n'
        '[repository.cache]\ndirectory = "copies"\nsize_gib = 0.5\n'
    )
    first, second = map(compose._window, loaded.traffic.limits)
    assert first == Window(time(8), time(18), 20 * MiB, None, frozenset({0}))
    assert second == Window(time(), time(), None, 1.5 * MiB)
    backend = compose.patient(MemoryBackend(), loaded.traffic, ManualClock(MONDAY), random.Random())
    assert isinstance(backend, RetryingBackend)
    assert isinstance(backend._inner, LimitedBackend)
    far = compose.cached(Counting({NAME: CONTENT}), "ab" * 32, loaded.cache)
    load_all(far, NAME, 100)
    assert list((tmp_path / "copies" / ("ab" * 32) / "files").rglob(NAME.stem))


def test_a_bucket_is_far_away() -> None:
    from vcbproxy.repository.backend.s3.backend import S3Backend

    assert S3Backend.at("s3:http://127.0.0.1:1/bucket").traits.remote


def test_a_directory_needs_no_copies(tmp_path: Path, settings: Callable[[str], config.Repository]) -> None:
    near = DirectoryBackend(tmp_path / "repo")
    assert compose.cached(near, "ab" * 32, settings("").cache) is near
    far = Counting()
    assert compose.cached(far, "ab" * 32, settings("[repository.cache]\nenabled = false\n").cache) is far


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('limits = [{ from = "8", to = "18:00" }]', 'limits.0.from: a time of day is written "18:00"'),
        ('limits = [{ from = "24:00" }]', 'limits.0.from: a time of day is written "18:00"'),
        ("limits = [{ from = 8 }]", 'limits.0.from: a time of day is written "18:00"'),
        ("limits = [{ upload_mib_s = 0 }]", "limits.0.upload_mib_s: must be greater than 0"),
        ('limits = [{ days = ["montag"] }]', "limits.0.days.0: must be 'mon', 'tue'"),
        ("limits = [{ days = [] }]", "days: name some"),
        ("limits = [{ upload = 1 }]", "limits.0.upload: no such key"),
        ("retry_s = 600", "retry_s: must be less than or equal to 420"),
    ],
)
def test_wrong_limits_are_refused_by_name(settings: Callable[[str], config.Repository], text: str, said: str) -> None:
    with pytest.raises(config.ConfigError, match=re.escape(said)):
        settings(f"[repository.traffic]\n{text}\n")


def test_stored_is_what_a_listing_gives() -> None:
    assert list(patient(MemoryBackend({NAME: CONTENT})).list(FileKind.INDEX)) == [Stored(NAME, len(CONTENT))]
