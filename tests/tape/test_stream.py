"""Files streamed through the ring: nothing lost, nothing twice, whatever becomes of the drive or the producer."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.emulator.check import Check
from tape.emulator.lun import Lun
from tape.errors import MediumError
from tape.ltfs.stream import FileStream, Written
from tape.ltfs.volume import LtfsVolume
from tape.scsi.sense import Key
from tests.beside import until
from tests.tape.volumes import BLOCK, cartridge, content, files_of, formatted, mounted, put

_WRITE = 0x0A


def stream(volume: LtfsVolume, path: str, pieces: Sequence[bytes], *, rest: Sequence[memoryview] = ()) -> Written:
    with FileStream(volume.create(path), rest=rest, ring_bytes=8 * BLOCK, refill_bytes=2 * BLOCK) as ring:
        for piece in pieces:
            ring.write(piece)
        return ring.finish()


def cut(data: bytes, sizes: Iterator[int]) -> list[bytes]:
    """Data in pieces of these sizes."""
    pieces = []
    at = 0
    while at < len(data):
        size = next(sizes)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def some_sizes(seed: int) -> Iterator[int]:
    rng = random.Random(seed)
    while True:
        yield rng.choice((1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 20 * BLOCK))


@pytest.mark.parametrize("size", [0, 1, BLOCK, 40 * BLOCK + 7])
def test_pieces_of_any_size_make_the_same_file_and_its_digest(tmp_path: Path, size: int) -> None:
    volume = mounted(formatted(tmp_path / "TAP001L8"))
    data = content(size, size)
    done = stream(volume, "/f", cut(data, some_sizes(1)))
    volume.commit()
    assert (done.taken, done.rest, done.sha256) == (size, (), hashlib.sha256(data).hexdigest())
    assert done.file is not None
    assert files_of(volume) == {"/f": data}  # and held against the digest in its attribute


@given(seed=st.integers(0, 1 << 30), left=st.integers(0, 12), warns=st.booleans())
def test_a_file_that_meets_the_end_goes_on_as_the_next_part_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, seed: int, left: int, warns: bool
) -> None:
    """The tape ends after any number of blocks, announced or not."""
    folder = tmp_path_factory.mktemp("seam")
    data = content(seed, random.Random(seed).randrange(10 * BLOCK))
    lun = formatted(folder / "TAP001L8")
    lun.warns = warns
    first = mounted(lun)
    tape = cartridge(lun)
    tape.limit_bytes[1] = tape.tracks[1].used_bytes + left * BLOCK
    part1 = stream(first, "/f", cut(data, some_sizes(seed)))
    first.commit()
    second = mounted(formatted(folder / "TAP002L8"))
    part2 = stream(second, "/f.part2", [], rest=part1.rest)
    second.commit()
    assert part2.rest == ()
    joined = [files_of(mounted(lun, search=True)).get("/f", b""), files_of(second)["/f.part2"]]
    assert (len(joined[0]), len(joined[1])) == (part1.taken, part2.taken)
    assert b"".join(joined) == data
    assert (part1.file is None) == (part1.taken == 0 and len(data) > 0)


def test_what_is_handed_over_after_the_end_is_in_the_rest(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    tape = cartridge(lun)
    tape.limit_bytes[1] = tape.tracks[1].used_bytes + BLOCK
    with FileStream(volume.create("/f"), ring_bytes=4 * BLOCK) as ring:
        sent = 0
        while ring.write(piece := bytes([sent % 256]) * 1000):
            sent += 1
        assert ring.full
        assert not ring.write(b"last")
        done = ring.finish()
    given_back = b"".join(done.rest)
    assert done.taken + len(given_back) == (sent + 1) * 1000 + 4
    assert given_back.endswith(piece + b"last")


def test_a_last_short_block_needs_no_other_cartridge(tmp_path: Path) -> None:
    """The early warning comes with the last block but one: room for a few bytes more there is."""
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    with FileStream(volume.create("/f")) as ring:
        ring.write(bytes(BLOCK + 5))
        tape = cartridge(lun)
        tape.limit_bytes[1] = tape.tracks[1].used_bytes + (1 << 20)
        done = ring.finish()
    assert (done.taken, done.rest) == (BLOCK + 5, ())


class Held:
    """Holds the drive's writes until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.met = threading.Event()

    def __call__(self, _lun: Lun, cdb: bytes) -> None:
        if cdb[0] == _WRITE:
            self.met.set()
            assert self.let_go.wait(20)


def test_the_producer_waits_while_the_ring_is_full(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    held = Held()
    lun.before = held
    pieces = [bytes(BLOCK)] * 12
    handed = []

    with FileStream(volume.create("/f"), ring_bytes=4 * BLOCK) as ring:

        def produce() -> None:
            for piece in pieces:
                ring.write(piece)
                handed.append(piece)

        producer = threading.Thread(target=produce)
        producer.start()
        until(lambda: len(handed) == 4, timeout_s=20)
        assert ring.stats().fill_bytes == 4 * BLOCK
        held.let_go.set()
        producer.join(20)
        done = ring.finish()
    assert done.taken == 12 * BLOCK
    assert done.stats.held_up_s > 0


def test_the_drives_idle_time_is_told(tmp_path: Path) -> None:
    """The ring runs empty: the drive waits, and then for as much as makes starting worth while."""
    volume = mounted(formatted(tmp_path / "TAP001L8"))
    now = itertools.count()
    with FileStream(
        volume.create("/f"), ring_bytes=16 * BLOCK, refill_bytes=4 * BLOCK, monotonic=lambda: float(next(now))
    ) as ring:
        ring.write(bytes(BLOCK))
        until(lambda: ring.stats().starvations == 1, timeout_s=20)
        for _ in range(3):
            ring.write(bytes(BLOCK))
        assert ring.stats().written_bytes == BLOCK
        ring.write(bytes(BLOCK))
        until(lambda: ring.stats().written_bytes == 5 * BLOCK, timeout_s=20)
        done = ring.finish()
    assert done.stats.starvations == 2
    assert done.stats.starved_s > 0


@pytest.mark.parametrize("at", [0, 3])
def test_an_error_of_the_drive_reaches_the_producer_and_leaves_no_file(tmp_path: Path, at: int) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    volume.create("/before").finish()
    volume.commit()
    count = 0

    def fail(_lun: Lun, cdb: bytes) -> None:
        nonlocal count
        if cdb[0] == _WRITE:
            count += 1
            if count > at:
                raise Check(Key.MEDIUM_ERROR, 0x0C)

    lun.before = fail
    with (
        pytest.raises(MediumError, match="a write failed"),
        FileStream(volume.create("/f"), ring_bytes=4 * BLOCK) as ring,
    ):
        hand_over_for_ever(ring)
    lun.before = None
    assert threads() == []
    volume.commit()
    assert set(files_of(mounted(lun, search=True))) == {"/before"}


def test_an_error_of_the_last_block_comes_out_at_the_end(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)

    def fail(_lun: Lun, cdb: bytes) -> None:
        if cdb[0] == _WRITE:
            raise Check(Key.MEDIUM_ERROR, 0x0C)

    lun.before = fail
    with FileStream(volume.create("/f")) as ring:
        ring.write(b"x")
        with pytest.raises(MediumError):
            ring.finish()
    assert volume.index.find("/f") is None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_a_producer_that_is_interrupted_leaves_no_thread_and_no_file(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    volume = mounted(formatted(tmp_path / "TAP001L8"))
    with pytest.raises(interruption), FileStream(volume.create("/f")) as ring:
        interrupted(ring, interruption)
    assert threads() == []
    assert stream(volume, "/g", [b"next"]).taken == 4
    volume.commit()
    assert files_of(volume) == {"/g": b"next"}


def test_ctrl_c_ends_a_producer_that_waits_for_the_drive(tmp_path: Path) -> None:
    """The ring is full, and the drive at work: the interruption is heard at once, the drive ends its block."""
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    held = Held()
    lun.before = held
    with pytest.raises(KeyboardInterrupt), FileStream(volume.create("/f"), ring_bytes=2 * BLOCK) as ring:
        hand_over_until_interrupted(ring, held)
    lun.before = None
    assert threads() == []
    volume.commit()
    assert files_of(mounted(lun, search=True)) == {}


def hand_over_until_interrupted(ring: FileStream, held: Held) -> None:
    threading.Thread(target=interrupt_when_held_up, args=(ring, held), daemon=True).start()
    hand_over_for_ever(ring)


def interrupt_when_held_up(ring: FileStream, held: Held) -> None:
    until(lambda: ring.stats().fill_bytes >= 2 * BLOCK, timeout_s=20)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    held.let_go.set()


def test_nobody_else_moves_the_tape_meanwhile(tmp_path: Path) -> None:
    """It would be a bug of ours; it is told at once, and not as a block in a wrong place."""
    lun = formatted(tmp_path / "TAP001L8")
    volume = mounted(lun)
    put(volume, "/before", b"before")
    reader = volume.open("/before")
    held = Held()
    lun.before = held
    with FileStream(volume.create("/f")) as ring:
        ring.write(bytes(BLOCK))
        assert held.met.wait(20)
        with pytest.raises(AssertionError, match="belongs to the thread"):
            reader.read_into(0, memoryview(bytearray(6)))
        held.let_go.set()
        ring.finish()
    reader.read_into(0, memoryview(bytearray(6)))


def test_closing_files_find_room_on_a_full_volume(tmp_path: Path) -> None:
    lun = formatted(tmp_path / "TAP001L8", capacity_mib=100, block_bytes=512 * 1024)
    volume = mounted(lun)
    done = stream_until_full(volume)
    assert volume.full
    assert volume.closing_bytes > 1 << 20
    plain = volume.create("/plain.txt")
    assert plain.write(b"not on a full volume") == 0
    plain.abort()
    writer = volume.create("/RESTORE.txt", closing=True)
    assert writer.write(b"how to restore") == 14
    writer.finish()
    big = volume.create("/big", closing=True)
    assert big.write(bytes(8 << 20)) < 2 << 20
    big.abort()
    volume.commit()
    again = mounted(lun, search=True)
    assert not again.index_partition_behind
    found = files_of(again)
    assert len(found["/f"]) == done.taken
    assert found["/RESTORE.txt"] == b"how to restore"
    assert again.full


def test_closing_files_find_room_on_a_small_cartridge_too(tmp_path: Path) -> None:
    """What is kept for them is less than one block there; they are smaller still."""
    lun = formatted(tmp_path / "TAP001L8", capacity_mib=24, block_bytes=512 * 1024)
    volume = mounted(lun)
    stream_until_full(volume)
    assert 0 < volume.closing_bytes < 512 * 1024
    for name in ("/SHA256SUMS", "/RESTORE.txt", "/vm.json"):
        writer = volume.create(name, closing=True)
        assert writer.write(bytes(20_000)) == 20_000
        writer.finish()
    volume.commit()
    again = mounted(lun, search=True)
    assert not again.index_partition_behind
    assert len(files_of(again)["/vm.json"]) == 20_000


def stream_until_full(volume: LtfsVolume) -> Written:
    with FileStream(volume.create("/f"), ring_bytes=8 << 20) as ring:
        while ring.write(bytes(1 << 20)):
            pass
        return ring.finish()


def hand_over_for_ever(ring: FileStream) -> None:
    while True:
        ring.write(bytes(BLOCK))


def interrupted(ring: FileStream, by: type[BaseException]) -> None:
    ring.write(bytes(3 * BLOCK))
    raise by


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("drive:", "digest:"))]
