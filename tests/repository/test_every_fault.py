"""Every kind of file, every kind of fault: found, named, and never handed on as data.

At rest: bits that flipped on the storage. On the way: bits that flip while they are read, reads that fail, no space
left, errors of the medium, lost connections. Whatever the fault, each job ends with an error of ours or with the right
result, and what was listed before is there after.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.repository.repositories import ME, PASSWORD, QUICK, START, Written, chunk, content, info, made, write_point
from tests.repository.test_check import flipped
from tests.repository.test_prune import ALL
from vcbproxy.clock import ManualClock
from vcbproxy.device import read
from vcbproxy.errors import CredentialsError, Error, IntegrityError, TargetError
from vcbproxy.repository import keys, lock, points, records, suspects
from vcbproxy.repository.backend.base import Backend, FileKind, FileName, FileUnreadable
from vcbproxy.repository.backend.faults import CHANGES, FaultyBackend, Order, Verb, What, When
from vcbproxy.repository.backend.memory import MemoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.files import Files
from vcbproxy.repository.identity import Identity
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.prune import waiting
from vcbproxy.repository.prune.prune import prune
from vcbproxy.repository.report import Report, Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.target import RepositoryTarget

FLIPS = 8
FIRST, SECOND = "abcdefghijklmnop", "abcdXfghijklYZop"
Points = dict[str, Written]


@pytest.fixture(scope="module")
def whole() -> tuple[dict[FileName, bytes], Points]:
    """A repository with some of everything: two keys, two points, a lock of somebody, notes of prune and of check."""
    backend = MemoryBackend()
    repository = made(backend)
    keys.add(backend, repository.key, "another", QUICK, ME, "2026-11-22T01:00:00Z")
    written = [write_point(repository, info(hours=hour), scsi0_0=text) for hour, text in enumerate((FIRST, SECOND))]
    waiting.save(repository.files, ["ab" * 32], START, START)
    suspects.note(repository.files, bytes(32), [], "it was cut short", START)
    lock.acquire(repository.files, exclusive=False, clock=ManualClock(START), me=Identity("other", "backup", 1))
    kinds = {name.kind for name in backend.files()}
    assert kinds == set(FileKind), "a kind of file that this test forgets"
    return backend.files(), {one.point.name: one for one in written}


def opened(backend: Backend) -> Repository:
    return Repository.open(backend, PASSWORD, clock=ManualClock(START), me=ME)


def restored(backend: Backend) -> Iterator[tuple[str, bytes, bytes]]:
    """Every point's disk and small file, as a restore gets them."""
    target = RepositoryTarget(opened(backend), lock=False)
    for point in target.points():
        with target.open(point) as reader:
            disk = reader.disk("scsi0-0")
            yield point.name, read(disk, 0, disk.size_bytes), reader.file("web01.vmx")


def right_or_told(backend: Backend, expected: Points) -> Error | None:
    """Restore all there is: what comes back is right, to the last bit, or there is an error."""
    try:
        for name, disk, small in restored(backend):
            assert disk == expected[name].disks["scsi0-0"], f"{name}: wrong bytes, and no error"
            assert small == b'displayName = "web01"\n'
    except Error as error:
        return error
    return None


# ------------------------------------------------------------------ at rest


def checked(backend: Backend) -> Report | Error:
    try:
        return check(opened(backend), Subset())
    except Error as error:
        return error


def said(found: Report | Error) -> str:
    if isinstance(found, Error):
        return str(found)
    return "\n".join([*(problem.message for problem in found.problems), *found.hints])


@pytest.mark.parametrize("kind", FileKind, ids=lambda kind: kind.name.lower())
def test_a_bit_that_flipped_on_the_storage(whole: tuple[dict[FileName, bytes], Points], kind: FileKind) -> None:
    files, expected = whole
    draw = random.Random(kind.value)
    assert "damaged" not in said(checked(MemoryBackend(files)))
    for name in (name for name in files if name.kind is kind):
        size = len(files[name])
        for bit in {0, 8 * size - 1, *(draw.randrange(8 * size) for _ in range(FLIPS))}:
            damaged = flipped(MemoryBackend(files), name, bit)
            right_or_told(damaged, expected)
            found = checked(damaged)
            assert (name.stem or name.path) in said(found), f"{name.path}, bit {bit}: {said(found)}"
            if kind is not FileKind.LOCK:  # somebody else's lock is nobody's data
                assert isinstance(found, IntegrityError | CredentialsError) or found.problems


PLACES = {
    "header": lambda blobs, size: (blobs[-1].end, size - 4),
    "length of the header": lambda blobs, size: (size - 4, size),
    "nonce of a blob": lambda blobs, size: (blobs[0].offset, blobs[0].offset + 16),
    "blob": lambda blobs, size: (blobs[0].offset + 16, blobs[0].end - 16),
    "mac of a blob": lambda blobs, size: (blobs[0].end - 16, blobs[0].end),
}


@pytest.mark.parametrize("kind", BlobKind)
@pytest.mark.parametrize("place", PLACES)
def test_wherever_in_a_pack(whole: tuple[dict[FileName, bytes], Points], kind: BlobKind, place: str) -> None:
    """Data and trees, the lists of chunks and our own sidecars among them: the pack is named, and so is the blob."""
    files, expected = whole
    repository = opened(MemoryBackend(files))
    repository.indexing.load()
    draw = random.Random(place)
    for pack in [pack for pack in repository.index.packs() if pack.blobs[0].kind is kind]:
        name = FileName(FileKind.PACK, pack.pack_id.hex())
        begin, end = PLACES[place](pack.blobs, len(files[name]))
        for _ in range(3):
            damaged = flipped(MemoryBackend(files), name, draw.randrange(8 * begin, 8 * end))
            found = said(checked(damaged))
            assert name.stem in found, place
            error = right_or_told(damaged, expected)
            if "blob" in place:
                assert pack.blobs[0].blob_id.hex() in found
                assert isinstance(error, IntegrityError)
                assert name.stem in str(error)
            else:
                assert error is None, "headers are not needed while there is an index"


def test_a_key_that_is_lost_does_not_lock_out_the_other(whole: tuple[dict[FileName, bytes], Points]) -> None:
    files, _ = whole
    for name in (name for name in files if name.kind is FileKind.KEY):
        damaged = flipped(MemoryBackend(files), name, 800)
        opens = 0
        for password in (PASSWORD, "another"):
            try:
                Repository.open(damaged, password)
                opens += 1
            except CredentialsError:
                pass
        assert opens == 1


# ------------------------------------------------------------------ on the way

JOBS: dict[str, Callable[[Repository], object]] = {
    "backup": lambda repository: write_point(repository, info(hours=9), scsi0_0="zyxwv" + SECOND),
    "restore": lambda repository: list(restored(repository.backend)),
}


def forget(repository: Repository) -> None:
    with repository.locked(exclusive=True) as held:
        records.forget(repository, held, points.listed(repository.snapshots())[:1])


def pruned(repository: Repository) -> None:
    with repository.locked(exclusive=True) as held:
        prune(repository, held, ALL)


def complain(repository: Repository) -> None:
    found = check(repository, Subset())
    if found.problems:
        raise IntegrityError(said(found))


JOBS |= {"check": complain, "forget": forget, "prune": pruned}


@pytest.fixture(scope="module")
def sound() -> tuple[dict[FileName, bytes], Points]:
    """Without other people's locks, and with garbage for prune."""
    texts = ("qrstuv", FIRST, SECOND)
    backend = MemoryBackend()
    repository = made(backend)
    written = [write_point(repository, info(hours=hour), scsi0_0=text) for hour, text in enumerate(texts)]
    backend.remove(FileName(FileKind.SNAPSHOT, written[0].point.id))
    return backend.files(), {one.point.name: one for one in written[1:]}


def shown(order: Order) -> str:
    return f"{order.what.value} {order.when.value} {min(verb.value for verb in order.verbs)}"


ORDERS = [
    *(Order(What.FULL, when, frozenset({Verb.SAVE})) for when in When),
    *(Order(What.EIO, When.BEFORE, frozenset({verb})) for verb in (Verb.SAVE, Verb.LOAD, Verb.LIST, Verb.REMOVE)),
    Order(What.EIO, When.MIDST, frozenset({Verb.LIST})),
    Order(What.LOST, When.MIDST, frozenset({Verb.LOAD})),
    Order(What.LOST, When.AFTER, CHANGES),
    Order(What.FLIPPED, verbs=frozenset({Verb.LOAD})),
]


@pytest.mark.parametrize("order", ORDERS, ids=shown)
@pytest.mark.parametrize("job", JOBS)
def test_a_fault_in_the_midst_of_a_job(sound: tuple[dict[FileName, bytes], Points], job: str, order: Order) -> None:
    """Of each kind of file, early and late: an error that names the file, or the job does without; nothing is lost."""
    files, expected = sound
    threads = set(threading.enumerate())
    key = opened(MemoryBackend(files)).key
    struck = 0
    for kind in FileKind:
        for after in (0, 2):
            store = MemoryBackend(files)
            faulty = FaultyBackend(store, seed=after)
            repository = Repository.of(Files(faulty, key), clock=ManualClock(START), me=ME)
            faulty.order(Order(order.what, order.when, order.verbs, frozenset({kind}), after=after))
            error = outcome(JOBS[job], repository)
            if not faulty.struck:
                assert error is None
                continue
            struck += 1
            if error is not None:
                assert isinstance(error, TargetError | IntegrityError), repr(error)
                assert kind.value.split("/")[0] in str(error), f"{error} does not name the {kind.value} file"
            hold_sound(store, expected, job)
    assert struck or (job, order.what) in {("restore", What.FULL), ("check", What.FULL)} or order.verbs <= CHANGES
    assert set(threading.enumerate()) == threads


def outcome(job: Callable[[Repository], object], repository: Repository) -> Error | None:
    try:
        job(repository)
    except Error as error:
        return error
    return None


def hold_sound(store: MemoryBackend, expected: Points, job: str) -> None:
    """Whatever the job came to: no damage; what is listed restores; and the next jobs succeed."""
    clock = ManualClock(START)
    for stored in list(store.list(FileKind.LOCK)):
        store.remove(stored.name)
    repository = opened(store)
    assert check(repository, Subset()).problems == []
    new = f"web01@{info(hours=9).time:%Y-%m-%dT%H:%M:%SZ}"
    also = {new: content("zyxwv" + SECOND)}
    listed = {name: disk for name, disk, _ in restored(store)}
    for name, disk in listed.items():
        assert disk == (expected[name].disks["scsi0-0"] if name in expected else also[name])
    missing = expected.keys() - listed.keys()
    assert not missing or (job == "forget" and len(missing) == 1)
    assert clock.monotonic() == 0


class BadDisk(MemoryBackend):
    """One file's bytes are lost, as a disk says that has bad sectors."""

    bad: FileName | None = None

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        if name == self.bad:
            raise FileUnreadable(location=self.location, path=name.path, reason="Input/output error")
        super().load(name, offset, buf)


def test_a_bad_sector_ends_no_check_and_is_healed(sound: tuple[dict[FileName, bytes], Points]) -> None:
    files, expected = sound
    store = BadDisk(files)
    repository = opened(store)
    repository.indexing.load()
    [place] = repository.index.lookup(BlobKind.DATA, digest(chunk("e")))
    store.bad = FileName(FileKind.PACK, place.pack_id.hex())
    found = check(opened(store), Subset(), remember=True)
    assert found.packs_read == found.packs, "the others are read, too"
    assert {point for problem in found.problems for point in problem.points} == set(expected)
    assert store.bad.stem in said(found)
    assert "Input/output error" in said(found)
    assert isinstance(right_or_told(store, expected), IntegrityError)
    repository = opened(store)
    write_point(repository, info(hours=9), scsi0_0=FIRST)
    new = {f"web01@{info(hours=9).time:%Y-%m-%dT%H:%M:%SZ}": content(FIRST)}
    for name, disk, _ in restored(store):
        assert disk == (expected[name].disks["scsi0-0"] if name in expected else new[name])
    assert check(opened(store), Subset(), remember=True).problems == []
