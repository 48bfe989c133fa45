"""The builder behaves like a host: order of writes, several writers, a record that another process goes on with."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests import oracles
from tests.lab.vmfs.cases import FIRST_DAY, case, fill_plain, fill_rest
from vcbproxy.clock import ManualClock
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import PathNotFound, TargetError, UsageError
from vcbproxy.lab.vmfs import Allocation, LabVolume, Layout, VolumeSpec
from vcbproxy.lab.vmfs.fill import POISON
from vcbproxy.units import GiB, MiB


@pytest.mark.parametrize("version", [3, 5, 6])
def test_data_reach_the_disk_before_pointers_and_the_token_last(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        volume = made.volume
        volume.create_file("/f", 300 * MiB, layout=Layout.POINTERS)
        volume.write("/f", 0, b"so that the pointer block is there")
        node = volume.node("/f")
        token = node.token
        descriptor = volume.store.locate(node.address)
        leaf = volume.store.locate(node.leaf_addresses[0])
        written: list[tuple[int, int]] = []
        volume.store.images.observer = lambda offset, length: written.append((offset, length))
        volume.write("/f", 9 * MiB, b"x" * 5000)
        volume.store.images.observer = None
        block = int(volume.store.codec.numbers(node.leaves[0][9:10], node.leaves[0][:1].astype("i8"))[0])
        offsets = [offset for offset, _ in written]
        width = volume.store.codec.dtype.itemsize
        assert offsets[0] == block * MiB
        assert offsets[-3:] == [leaf + 9 * width, *offsets[-2:]] or offsets[-4] == leaf + 9 * width
        assert offsets[-1] == descriptor, "the lock with the token comes last"
        assert (leaf + 9 * width, width) in written, "only the pointer that changed"
        assert node.token == token + 1
        assert int.from_bytes(volume.store.images.read(descriptor + 0x1C, 8), "little") == token + 1


def test_writing_in_place_moves_the_clock_but_not_the_token(tmp_path: Path) -> None:
    clock = ManualClock(FIRST_DAY)
    with case(tmp_path) as made:
        made.volume.store.clock = clock
        made.volume.create_file("/f", 2 * MiB, data=b"a" * 2 * MiB)
        node = made.volume.node("/f")
        token, modified_s = node.token, node.modified_s
        clock.sleep(5)
        made.volume.write("/f", 100, b"b")
        assert (node.token, node.modified_s) == (token, modified_s + 5)


@pytest.mark.parametrize("version", [3, 5, 6])
def test_blocks_to_be_zeroed_hide_poison(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        volume = made.volume
        volume.create_file("/thick", 4 * MiB, allocation=Allocation.ZEROEDTHICK)
        node = volume.node("/thick")
        assert (node.blocks, node.tbz) == (4, 4)
        first = int(volume.store.codec.numbers(node.leaves[0][:1], node.leaves[0][:1].astype("i8") * 0)[0])
        assert volume.store.images.read(first * MiB, len(POISON)) == POISON
        assert volume.read("/thick", 0, 4 * MiB) == bytes(4 * MiB)
        volume.write("/thick", MiB + 10, b"new")
        assert node.tbz == 3
        assert volume.read("/thick", MiB, MiB) == bytes(10) + b"new" + bytes(MiB - 13)
        assert volume.data_ranges("/thick") == [(MiB, MiB)]


def test_freed_blocks_keep_their_bytes_and_new_files_do_not_see_them(tmp_path: Path) -> None:
    with case(tmp_path) as made:
        volume = made.volume
        volume.create_file("/full", data=b"\xaa" * (200 * MiB))
        volume.delete("/full")
        assert volume.store.space.stale.sum() >= 200
        volume.create_file("/thin", 200 * MiB, layout=Layout.BLOCKS)
        for index in range(200):
            volume.write("/thin", index * MiB + 5000, b"t")
        for index in range(0, 200, 11):
            assert volume.read("/thin", index * MiB, MiB) == bytes(5000) + b"t" + bytes(MiB - 5001)
        assert b"\xaa" not in volume.read("/thin", 0, 200 * MiB)


@pytest.mark.parametrize("version", [5, 6])
def test_writers_of_different_files_do_not_disturb_each_other(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        volume = made.volume
        failures: list[BaseException] = []

        def guest(number: int) -> None:
            try:
                for index in range(40):
                    volume.write(f"/g{number}-flat.vmdk", index * 700_000, bytes([number]) * 1000)
                    volume.create_file(f"/g{number}-{index}", data=bytes([number]) * 100)
            except BaseException as error:  # noqa: BLE001 - the test's own thread reports whatever it was
                failures.append(error)

        for number in range(4):
            volume.create_file(f"/g{number}-flat.vmdk", 40 * MiB)
        threads = [threading.Thread(target=guest, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        windows = [(f"/g{n}-flat.vmdk", index * 700_000, 1000) for n in range(4) for index in range(40)]
        for (path, _, _), data in zip(windows, oracles.dissect_reads(volume.paths, windows), strict=True):
            assert data == bytes([int(path[2])]) * 1000
        assert len(oracles.dissect_list(volume.paths, "/")) == len(volume.list("/"))


@pytest.mark.parametrize("version", [3, 5, 6])
def test_another_process_goes_on_with_a_saved_record(version: int, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with case(tmp_path, devices=2, version=version, scatter=True) as made:
        fill_plain(made)
        fill_rest(made)
        made.volume.save(state)
        free = made.volume.free_bytes
        made.volume.close()
        with LabVolume.load(state, ManualClock(FIRST_DAY)) as again:
            assert again.uuid == made.volume.uuid
            assert again.free_bytes == free
            made.volume = again
            made.write("/vm1/thin-flat.vmdk", 5 * MiB, 70_000)
            made.create("/vm1/deep/new", 10, (0, 10))
            made.delete("/vm1/vm1.vmx")
            for path, offset, length in made.windows():
                assert again.read(path, offset, length) == made.files[path].read(offset, length), path
            if version == 3:
                assert oracles.bitmap_errors(again.paths) == 0
            else:
                path, offset, length = "/vm1/thin-flat.vmdk", 5 * MiB, 70_000
                assert oracles.dissect_read(again.paths, path, offset, length) == made.files[path].read(offset, length)


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"format": 99}')
    with pytest.raises(UsageError, match="another version"):
        LabVolume.load(state)
    with pytest.raises(UsageError, match="no lab volume's record"):
        LabVolume.load(tmp_path / "nothing")


def test_a_disk_copied_in_stays_thin(tmp_path: Path) -> None:
    disk = bytearray(20 * MiB)
    disk[3 * MiB + 5 : 3 * MiB + 9] = b"data"
    disk[-1:] = b"!"
    with case(tmp_path) as made:
        volume = made.volume
        volume.create_file("/d-flat.vmdk", len(disk))
        volume.write_from("/d-flat.vmdk", MemoryDevice(disk))
        assert volume.read("/d-flat.vmdk", 0, len(disk)) == disk
        assert volume.data_ranges("/d-flat.vmdk") == [(3 * MiB, MiB), (19 * MiB, MiB)]
        volume.write_from("/d-flat.vmdk", MemoryDevice(bytes(len(disk))))
        assert volume.read("/d-flat.vmdk", 0, len(disk)) == bytes(len(disk)), "old data are written over"


def test_names_move_and_disappear(tmp_path: Path) -> None:
    for version in (5, 6):
        with case(tmp_path, version=version) as made:
            volume = made.volume
            volume.mkdir("/a")
            volume.mkdir("/a/sub")
            volume.mkdir("/b")
            volume.create_file("/a/f", data=b"one")
            volume.create_file("/b/f", data=b"two")
            volume.rename("/a/f", "/b/f")
            volume.rename("/a/sub", "/b/sub")
            assert volume.list("/a") == []
            assert volume.list("/b") == ["f", "sub"]
            assert volume.read("/b/f", 0, 9) == b"one"
            assert oracles.dissect_read(volume.paths, "/b/f", 0, 3) == b"one"
            assert sorted(oracles.dissect_list(volume.paths, "/b")) == ["f", "sub"]
            volume.delete("/a")
            with pytest.raises(PathNotFound):
                volume.read("/a/f", 0, 1)
            with pytest.raises(UsageError, match="not an empty directory"):
                volume.delete("/b")
            if version == 5:
                assert oracles.bitmap_errors(volume.paths) == 0


def test_huge_files_cost_only_what_is_written(tmp_path: Path) -> None:
    with case(tmp_path, version=6) as made:
        made.volume.create_file("/huge-flat.vmdk", 62 * 1024 * GiB)
        made.volume.write("/huge-flat.vmdk", 61 * 1024 * GiB, b"far out")
        assert made.volume.read("/huge-flat.vmdk", 61 * 1024 * GiB, 7) == b"far out"
        assert made.volume.data_ranges("/huge-flat.vmdk") == [(61 * 1024 * GiB, MiB)]
        assert sum(path.stat().st_blocks * 512 for path in made.volume.paths) < 64 * MiB


def test_large_blocks_come_back_whole(tmp_path: Path) -> None:
    with case(tmp_path, version=6, size_bytes=3 * GiB) as made:
        volume = made.volume
        free = volume.free_bytes
        volume.create_file("/lfb-flat.vmdk", GiB + 100 * MiB, allocation=Allocation.EAGER, use_lfb=True)
        volume.write("/lfb-flat.vmdk", 700 * MiB, b"old" * 1000)
        volume.truncate("/lfb-flat.vmdk", 600 * MiB)
        assert volume.node("/lfb-flat.vmdk").large == 2, "the second large block is half in use"
        assert volume.node("/lfb-flat.vmdk").blocks == 1024
        volume.truncate("/lfb-flat.vmdk", 800 * MiB)
        assert volume.read("/lfb-flat.vmdk", 700 * MiB, 3000) == bytes(3000)
        assert oracles.dissect_read(volume.paths, "/lfb-flat.vmdk", 700 * MiB, 3000) == bytes(3000)
        volume.truncate("/lfb-flat.vmdk", 512 * MiB)
        assert volume.node("/lfb-flat.vmdk").large == 1
        volume.delete("/lfb-flat.vmdk")
        assert volume.free_bytes == free


def test_saving_waits_for_writers_and_they_for_it(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with case(tmp_path) as made:
        made.volume.create_file("/f", 100 * MiB)
        writer = threading.Thread(target=lambda: [made.volume.write("/f", n * 300_000, b"w" * 9) for n in range(300)])
        writer.start()
        while writer.is_alive():
            made.volume.save(state)
        writer.join()
        made.volume.save(state)
        with LabVolume.load(state) as again:
            assert all(again.read("/f", n * 300_000, 9) == b"w" * 9 for n in range(300))


def test_existing_images_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "b.img"
    other.write_bytes(b"precious")
    with pytest.raises(UsageError, match="cannot make the image"):
        LabVolume.create([tmp_path / "a.img", other], VolumeSpec())
    assert other.read_bytes() == b"precious"
    assert not (tmp_path / "a.img").exists()


@pytest.mark.parametrize(("version", "what"), [(3, "pointer block"), (5, "pointer block"), (6, "sub-block")])
def test_a_volume_without_pointer_blocks_says_so(version: int, what: str, tmp_path: Path) -> None:
    options = {"size_bytes": 512 * MiB, "pointer_blocks": 16, "sub_blocks": 256, "scatter": True}
    with case(tmp_path, version=version, **options) as made:
        volume = made.volume
        volume.create_file("/wide-flat.vmdk", 200 * GiB if version == 3 else 40 * 1024 * GiB)
        step = 8 * GiB if version == 6 else GiB
        free: list[int] = []

        def spread() -> None:
            for index in range(300):
                volume.write("/wide-flat.vmdk", index * step, b"spread")
                free.append(volume.free_bytes)

        with pytest.raises(TargetError, match=f"no {what} left"):
            spread()
        assert volume.free_bytes == free[-1], "a block is lost"
        assert volume.read("/wide-flat.vmdk", (len(free) - 1) * step, 6) == b"spread"
        assert volume.read("/wide-flat.vmdk", len(free) * step, 6) == bytes(6)
        if version == 5:
            assert oracles.bitmap_errors(volume.paths) == 0


def test_a_full_volume_says_so(tmp_path: Path) -> None:
    with case(tmp_path) as made:
        free = made.volume.free_bytes
        with pytest.raises(TargetError, match="full"):
            made.volume.create_file("/too-much", GiB, allocation=Allocation.EAGER, materialise=False)
        assert not made.volume.exists("/too-much")
        with pytest.raises(TargetError, match="full"):
            made.volume.create_file("/too-much", data=bytes(GiB))
        assert made.volume.free_bytes == free
        assert oracles.bitmap_errors(made.volume.paths) == 0
