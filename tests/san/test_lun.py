"""Reading image files past the page cache: whole or DeviceError, whatever offset, length and buffer."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy import device
from vcbproxy.errors import CannotOpen, DeviceError
from vcbproxy.san import lun
from vcbproxy.units import KiB, MiB

# Longer than two bounce buffers, and no multiple of any sector.
SIZE = 2 * MiB + 300 * KiB + 777
CONTENT = random.Random(7).randbytes(SIZE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lun") / "lun.img"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def opened(image: Path) -> Iterator[lun.Lun]:
    with lun.open_lun(image) as found:
        yield found


def test_says_what_it_is(image: Path) -> None:
    with lun.open_lun(image, name="naa.6001") as opened:
        assert (opened.name, opened.path) == ("naa.6001", str(image))
        assert opened.size_bytes == SIZE
        assert opened.sector_bytes == 512
        assert not opened.is_block
        assert isinstance(opened, device.Device)


# Offsets and lengths near the places where a split happens, and some anywhere.
EDGES = st.sampled_from([0, 1, 511, 512, 4095, 4096, 4097, 8192, MiB - 1, MiB, MiB + 1, SIZE - 4096, SIZE - 777, SIZE])
PLACES = st.one_of(EDGES, st.integers(0, SIZE))


@settings(max_examples=300, deadline=None)
@given(first=PLACES, second=PLACES, shift=st.sampled_from([0, 1, 8, 512, 777, 4096]), in_step=st.booleans())
def test_any_range_into_any_buffer(opened: lun.Lun, first: int, second: int, shift: int, in_step: bool) -> None:
    start, end = sorted((first, second))
    shift = start % 4096 if in_step else shift
    buf = device.aligned_buffer(SIZE + 8192)
    buf[:] = b"\xee" * len(buf)
    opened.read_into(start, buf[shift : shift + end - start])
    assert bytes(buf[shift : shift + end - start]) == CONTENT[start:end]
    assert bytes(buf[shift + end - start :][:4096]) == b"\xee" * 4096, "wrote behind the buffer"
    assert bytes(buf[:shift]) == b"\xee" * shift, "wrote before the buffer"


def test_reads_into_buffers_of_other_item_sizes(opened: lun.Lun) -> None:
    words = device.aligned_buffer(8 * KiB).cast("Q")
    opened.read_into(4096, words)
    assert words.tobytes() == CONTENT[4096 : 4096 + 8 * KiB]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (SIZE, 1), (SIZE - 1, 2), (1 << 62, 512), (0, SIZE + 1)])
def test_a_range_outside_is_refused(opened: lun.Lun, offset: int, length: int) -> None:
    with pytest.raises(DeviceError, match=f"it ends at {SIZE}"):
        device.read(opened, offset, length)


def test_an_empty_read_reads_nothing(opened: lun.Lun) -> None:
    assert device.read(opened, SIZE, 0) == b""


@pytest.mark.parametrize("left", [0, 4096, MiB, MiB + 777])
def test_an_image_that_shrank_is_refused_and_not_padded(tmp_path: Path, left: int) -> None:
    path = tmp_path / "shrinking.img"
    path.write_bytes(CONTENT)
    with lun.open_lun(path) as opened:
        os.truncate(path, left)
        buf = device.aligned_buffer(2 * MiB)
        with pytest.raises(DeviceError, match="shrunk") as caught:
            opened.read_into(0, buf)
        assert caught.value.facts["device"] == str(path)
        assert caught.value.facts["offset"] == 0
        with pytest.raises(DeviceError, match="shrunk"):
            device.read(opened, MiB + 777, 1000)


def test_sees_what_others_write_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "live.img"
    path.write_bytes(bytes(64 * KiB))
    with lun.open_lun(path) as opened:
        assert device.read(opened, 5000, 4) == bytes(4)
        with path.open("r+b") as other:
            other.seek(5000)
            other.write(b"news")
        assert device.read(opened, 5000, 4) == b"news"


def test_a_closed_lun_refuses(image: Path) -> None:
    opened = lun.open_lun(image)
    opened.close()
    opened.close()
    with pytest.raises(DeviceError, match="closed"):
        device.read(opened, 0, 512)


def test_threads_read_at_once(opened: lun.Lun) -> None:
    def check(seed: int) -> bool:
        chance = random.Random(seed)
        for _ in range(50):
            start = chance.randrange(SIZE)
            length = chance.randrange(min(SIZE - start, 200_000) + 1)
            if device.read(opened, start, length) != CONTENT[start : start + length]:
                return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(check, range(16)))


def test_closing_under_readers_never_shows_another_file(tmp_path: Path, image: Path) -> None:
    """A descriptor's number is reused at once: a reader that kept the bare number would read the other file."""
    other = tmp_path / "other.img"
    other.write_bytes(b"\xff" * SIZE)
    for round_number in range(20):
        opened = lun.open_lun(image)
        go = threading.Event()

        def reader(opened: lun.Lun = opened, go: threading.Event = go) -> bool:
            go.wait()
            try:
                while True:
                    if device.read(opened, 12345, 300_000) != CONTENT[12345 : 12345 + 300_000]:
                        return False
            except DeviceError as error:
                return "closed" in str(error)

        with ThreadPoolExecutor(3) as pool:
            results = [pool.submit(reader) for _ in range(3)]
            go.set()
            if round_number % 2:
                device.read(opened, 0, 512)
            opened.close()
            with lun.open_lun(other):
                assert all(result.result() for result in results)


def test_descriptors_are_given_back(image: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with lun.open_lun(image) as opened:
            device.read(opened, 1, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestWhatCannotBeOpened:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CannotOpen, match=r"lun7: No such file"):
            lun.open_lun(tmp_path / "gone.img", name="lun7")

    def test_a_circle_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "loop.img").symlink_to("loop.img")
        with pytest.raises(CannotOpen, match="symbolic links"):
            lun.open_lun(tmp_path / "loop.img")

    def test_no_path_at_all(self) -> None:
        with pytest.raises(CannotOpen, match="no path can be so"):
            lun.open_lun("lun\0.img")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(CannotOpen, match="neither a block device nor a file"):
            lun.open_lun(tmp_path)

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(CannotOpen, match="neither a block device nor a file"):
            lun.open_lun(tmp_path / "fifo")

    def test_character_device(self) -> None:
        with pytest.raises(CannotOpen, match="neither a block device nor a file"):
            lun.open_lun("/dev/zero")

    def test_not_permitted(self, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path = tmp_path / "secret.img"
        path.write_bytes(b"x")
        path.chmod(0)
        with pytest.raises(CannotOpen, match="group vcbproxy"):
            lun.open_lun(path)


def test_a_file_system_without_direct_io_is_read_through_the_cache() -> None:
    """Sysfs refuses O_DIRECT, and has a file of some megabytes to read."""
    path = Path("/sys/kernel/btf/vmlinux")
    if not path.exists():
        pytest.skip(f"needs {path}, a file on a file system without direct I/O")
    content = path.read_bytes()
    with lun.open_lun(path) as opened:
        assert not opened.direct
        assert device.read(opened, 0, opened.size_bytes) == content
        assert device.read(opened, 1001, 70_000) == content[1001:71_001]
