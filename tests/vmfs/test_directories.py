"""Directories list what is there, after creating, deleting and renaming; paths and links lead where they should."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, opened, overlaid
from tests.vmfs.patient import DATA
from vcbproxy.device import check_range, read
from vcbproxy.errors import PathNotFound, Unreadable, VmfsError
from vcbproxy.lab.vmfs import VolumeSpec
from vcbproxy.vmfs import directory
from vcbproxy.vmfs.inode import FileType
from vcbproxy.vmfs.volume import Volume

VERSIONS = pytest.mark.parametrize("version", [3, 5, 6])


def spec(version: int) -> VolumeSpec:
    return VolumeSpec(version=version, size_bytes=SMALL)  # type: ignore[arg-type]


@VERSIONS
def test_many_entries_and_deleted_ones(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, spec(version)) as truth:
        truth.mkdir("/vm")
        for number in range(150):
            truth.create_file(f"/vm/file{number}")
        for number in range(0, 150, 3):
            truth.delete(f"/vm/file{number}")
        truth.rename("/vm/file1", "/vm/renamed")
        truth.create_file("/vm/reused", data=b"y")
        with opened(truth) as volume:
            assert sorted(entry.name for entry in volume.entries("/vm")) == truth.list("/vm")
            with pytest.raises(PathNotFound):
                volume.open_file("/vm/file0")
            assert read(volume.open_file("/vm/reused"), 0, 1) == b"y"


@VERSIONS
def test_names_in_any_script(version: int, tmp_path: Path) -> None:
    names = ["ordinary name.vmdk", "Übergröße", "雪", "🐍" * 30, "a" * 120]
    with lab(tmp_path, spec(version)) as truth:
        for name in names:
            truth.create_file(f"/{name}", data=name.encode())
        with opened(truth) as volume:
            for name in names:
                file = volume.open_file(f"/{name}")
                assert read(file, 0, file.size_bytes).decode() == name
            assert {entry.name for entry in volume.entries("/")} >= set(names)


@VERSIONS
def test_nested_paths(version: int, tmp_path: Path) -> None:
    deep = "/a/b/c/d"
    with lab(tmp_path, spec(version)) as truth:
        for depth in range(1, 5):
            truth.mkdir("/".join(deep.split("/")[: depth + 1]))
        truth.create_file(f"{deep}/file", data=b"deep")
        truth.symlink("/a/up", "../a/b/./c")
        truth.symlink("/a/b/near", "c/d")
        truth.symlink("/whole", f"/vmfs/volumes/{truth.label}/a/up/d/file")
        with opened(truth) as volume:
            for path in (
                f"{deep}/file",
                "a//b/./c/d/../d/file",
                "/../../a/b/c/d/file",
                "/a/up/d/file",
                "/a/b/near/file",
                "/whole",
            ):
                file = volume.open_file(path)
                assert read(file, 0, 4) == b"deep"
                assert file.info.path == f"{deep}/file"
            assert volume.stat("/whole", follow=False).type is FileType.SYMLINK
            assert volume.stat("/whole").type is FileType.FILE


@VERSIONS
def test_a_file_is_no_directory(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, spec(version)) as truth:
        truth.mkdir("/vm")
        truth.create_file("/vm/file", data=b"x")
        with opened(truth) as volume:
            with pytest.raises(PathNotFound):
                volume.open_file("/vm/file/below")
            with pytest.raises(VmfsError, match="is not a directory but a file"):
                list(volume.entries("/vm/file"))
            with pytest.raises(VmfsError, match="is a directory"):
                volume.open_file("/vm")


def test_directory_inside_itself(tmp_path: Path) -> None:
    """An entry that points to its own directory: paths stay finite because each name must be written out."""
    with lab(tmp_path, spec(5)) as truth:
        truth.mkdir("/vm")
        truth.mkdir("/vm/inner")
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            outer = tree.find("/vm")
            [run] = [run for run in volume.logical.place(tree.view.map_of(outer)) if not run.is_zero]
            entries = list(tree.entries(outer))
            place = run.device_offset + 140 * [entry.name for entry in entries].index("inner")
            overlay.patch_number(place + 4, outer.address)
            overlay.patch_number(place + 8, outer.generation)
            assert volume.stat("/vm/inner/inner/inner").address == outer.address
            with pytest.raises(VmfsError, match="more than 256 directories deep"):
                volume.stat("/vm" + "/inner" * 300)


@pytest.mark.parametrize(("generation", "alive"), [(-1, 1), (0, 2)])
def test_a_name_twice(generation: int, alive: int, tmp_path: Path) -> None:
    """An entry that outlived its file does not hide the one that has the name now; two living ones are refused."""
    with lab(tmp_path, spec(5)) as truth:
        truth.mkdir("/vm")
        truth.create_file("/vm/one", data=b"one")
        truth.create_file("/vm/two", data=b"two")
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            folder = tree.find("/vm")
            [run] = [run for run in volume.logical.place(tree.view.map_of(folder)) if not run.is_zero]
            entries = list(tree.entries(folder))
            [number] = [number for number, entry in enumerate(entries) if entry.name == "one"]
            place = run.device_offset + 140 * number
            overlay.patch(place + 12, b"two\0")
            overlay.patch_number(place + 8, entries[number].generation + generation)
            if alive == 1:
                assert read(volume.open_file("/vm/two"), 0, 3) == b"two"
            else:
                with pytest.raises(VmfsError, match="is 2 times in its directory, and 2 of the files are there"):
                    volume.open_file("/vm/two")


@pytest.mark.parametrize(
    ("offset", "number", "match"),
    [
        (0x00, 0xF50002, "directory version 0xf50002 is unknown"),
        (0x0C, 129, "129 allocation maps"),
        (0x0C, 2, "it uses one allocation map twice"),
        (0x10000 + 4096 + 4, 15, "directory block 1 says it has 15 slots, there is room for 14"),
        (0x10, 0xFFFFFF, "lies past the end of the directory"),
        (0x10, 1, "holds entries where map belong"),
    ],
)
def test_hashed_directory_that_contradicts_itself(offset: int, number: int, match: str, tmp_path: Path) -> None:
    with lab(tmp_path, spec(6)) as truth:
        truth.mkdir("/vm")
        truth.create_file("/vm/file", data=b"x")
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            [run] = volume.logical.place(tree.view.map_of(tree.find("/vm"))).between(offset, 4)
            overlay.patch_number(run.device_offset, number)
            with pytest.raises(VmfsError, match=match):
                list(volume.entries("/vm"))


@VERSIONS
@pytest.mark.parametrize("name", ["disk-000", "disk0", "0", "back\\", "\\0", "new\nline"])
def test_links_lead_to_the_name_as_it_is_written(version: int, name: str, tmp_path: Path) -> None:
    """Nothing is cut off a target: what remains might be the name of another file."""
    with lab(tmp_path, spec(version)) as truth:
        truth.mkdir("/vm")
        for other in {name.rstrip("0"), name.rstrip("\\"), name.rstrip("\\0"), name[:-1]} - {"", name}:
            truth.create_file(f"/vm/{other}", data=b"another")
        truth.create_file(f"/vm/{name}", data=b"right")
        truth.symlink("/relative", f"vm/{name}")
        truth.symlink("/absolute", f"/vmfs/volumes/{truth.uuid}/vm/{name}")
        truth.symlink("/padded", f"vm/{name}\0\0rest")
        with opened(truth) as volume:
            for link in ("relative", "absolute", "padded"):
                file = volume.open_file(f"/{link}")
                assert read(file, 0, file.size_bytes) == b"right"


@VERSIONS
def test_links_that_lead_off_the_volume_or_nowhere(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, spec(version)) as truth:
        for number, target in enumerate(("/vmfs/volumes/other/vm", "/etc/passwd", "/", "/vmfs/volumes")):
            truth.symlink(f"/away{number}", target)
        truth.symlink("/nowhere", "vm/nothing")
        truth.symlink("/long", "/".join(["x/.."] * 600))
        truth.mkdir("/x")
        with opened(truth) as volume:
            for number in range(4):
                with pytest.raises(Unreadable, match="is a symbolic link off this volume"):
                    volume.open_file(f"/away{number}")
            with pytest.raises(PathNotFound):
                volume.open_file("/nowhere")
            with pytest.raises(VmfsError, match="more than 256 directories deep"):
                volume.stat("/long")


@pytest.mark.parametrize("version", [3, 5])
class TestFlat:
    """Entries of 140 bytes, one after the other."""

    def start(self, volume: Volume) -> int:
        """Where on the device the entries of /vm start."""
        tree = volume.tree()
        return next(iter(volume.logical.place(tree.view.map_of(tree.find("/vm"))))).device_offset

    def test_gaps(self, version: int, tmp_path: Path) -> None:
        """Whatever else a freed entry still says, without an address or a type it is none; the rest stays."""
        with lab(tmp_path, spec(version)) as truth:
            truth.mkdir("/vm")
            for name in "abcde":
                truth.create_file(f"/vm/{name}", data=name.encode())
            with overlaid(truth) as (volume, overlay):
                start = self.start(volume)
                overlay.patch(start, bytes(140))  # "."
                overlay.patch_number(start + 140 * 3 + 4, 0)
                overlay.patch_number(start + 140 * 5, 0)
                left = [name for name in truth.list("/vm") if name in {e.name for e in volume.entries("/vm")}]
                assert len(left) == 3
                for name in left:
                    assert read(volume.open_file(f"/vm/{name}"), 0, 1) == name.encode()
                for name in set("abcde") - set(left):
                    with pytest.raises(PathNotFound):
                        volume.open_file(f"/vm/{name}")

    def test_length_is_no_whole_number_of_entries(self, version: int, tmp_path: Path) -> None:
        """Zeroes behind the last entry are nothing; part of an entry is refused."""
        with lab(tmp_path, spec(version)) as truth:
            truth.mkdir("/vm")
            truth.create_file("/vm/a", data=b"a")
            with overlaid(truth) as (volume, overlay):
                start = self.start(volume)
                length = DATA + volume.tree().find("/vm").offset + 512 + 0x14
                overlay.patch_number(length, 512, 8)
                assert [entry.name for entry in volume.entries("/vm")] == ["a"]
                overlay.patch(start + 500, b"x")
                with pytest.raises(VmfsError, match="is not a whole number of 140-byte entries"):
                    list(volume.entries("/vm"))


def test_used_slot_without_an_address(tmp_path: Path) -> None:
    """A hashed directory's bitmap says used, the slot is empty: no entry, and no harm to the others."""
    with lab(tmp_path, spec(6)) as truth:
        truth.mkdir("/vm")
        for name in "abc":
            truth.create_file(f"/vm/{name}", data=name.encode())
        with overlaid(truth) as (volume, overlay):
            tree = volume.tree()
            runs = list(volume.logical.place(tree.view.map_of(tree.find("/vm"))))
            content = b"".join(read(overlay, run.device_offset, run.length) for run in runs)
            block = 0x10000 + 4096
            slots = [content[block + 64 + 0x120 * slot + 0x18 :][:1] for slot in range(3)]
            assert sorted(slots) == [b"a", b"b", b"c"]
            victim = block + 64 + 0x120 * slots.index(b"b")
            [run] = [run for run in runs if run.file_offset <= victim < run.file_offset + run.length]
            overlay.patch_number(run.device_offset + victim - run.file_offset + 4, 0)
            assert sorted(entry.name for entry in volume.entries("/vm")) == ["a", "c"]


class Sparse:
    """A huge directory's bytes, most of them zeroes."""

    name = "directory"

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.parts: dict[int, bytes] = {}

    def read_into(self, offset: int, buf: memoryview) -> None:
        check_range(self, offset, len(buf))
        buf[:] = bytes(len(buf))
        for start, data in self.parts.items():
            low, high = max(offset, start), min(offset + len(buf), start + len(data))
            if low < high:
                buf[low - offset : high - offset] = data[low - start : high - start]


def test_a_directory_of_two_maps(tmp_path: Path) -> None:
    """A map says what 8064 blocks are; the second one counts on from there."""
    block, per_map = 4096, 2 * (4096 - 64)
    content = Sparse(0x10000 + (per_map + 8) * block)

    def put(number: int, kind: int, body: bytes, free: int = 0) -> None:
        header = struct.pack("<HHHHQ", 1, kind, 14, 0, free).ljust(64, b"\0")
        content.parts[0x10000 + number * block] = (header + body).ljust(block, b"\0")

    def entry(name: bytes, number: int) -> bytes:
        raw = struct.pack("<III", 3, 4 | number << 22, number).ljust(0x18, b"\0") + name
        return raw.ljust(0x120, b"\0")

    content.parts[0] = struct.pack("<IIIIII", 0xF50001, 6, 0, 2, 0, per_map + 1).ljust(0x5F8, b"\0")
    put(0, 3, b"\x31\x89".ljust(per_map // 2 - 1, b"\x88") + b"\x81")
    put(1, 1, entry(b"one", 1) + entry(b"freed", 2), ~1 & 0x3FFF)
    put(per_map - 1, 1, entry(b"two", 3) + entry(b"three", 4), ~3 & 0x3FFF)
    put(per_map + 1, 3, b"\x83\x18".ljust(per_map // 2, b"\x88"))
    put(per_map + 2, 1, b"".join(entry(b"n%d" % number, number) for number in range(5, 19)))
    with lab(tmp_path, spec(6)) as truth, opened(truth) as volume:
        inode = dataclasses.replace(volume.tree().root(), length=content.size_bytes)
        found = [entry.name for entry in directory.entries(volume.fs, inode, content)]
        assert found == ["one", "two", "three", *(f"n{number}" for number in range(5, 19))]
        too_long = dataclasses.replace(inode, length=1 << 40)
        with pytest.raises(VmfsError, match="is more than the 268435456 that are read"):
            directory.entries(volume.fs, too_long, content)


@pytest.mark.parametrize("version", [5, 6])
def test_hundreds_of_entries_made_and_deleted(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, spec(version)) as truth:
        truth.mkdir("/vm")
        for number in range(600):
            truth.create_file(f"/vm/{number}")
            if number >= 100:
                truth.delete(f"/vm/{number - 100}")
        with opened(truth) as volume:
            assert sorted(entry.name for entry in volume.entries("/vm")) == truth.list("/vm")
