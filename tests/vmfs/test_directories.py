"""Directories list what is there, after creating, deleting and renaming; paths and links lead where they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, opened, overlaid
from vcbproxy.device import read
from vcbproxy.errors import PathNotFound, VmfsError
from vcbproxy.lab.vmfs import VolumeSpec
from vcbproxy.vmfs.inode import FileType

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
        truth.symlink("/whole", f"/vmfs/volumes/{truth.label}/a/up/d/file")
        with opened(truth) as volume:
            for path in (f"{deep}/file", "a//b/./c/d/../d/file", "/../../a/b/c/d/file", "/a/up/d/file", "/whole"):
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
            first = next(iter(volume.logical.place(tree.view.map_of(tree.find("/vm")))))
            overlay.patch_number(first.device_offset + offset, number)
            with pytest.raises(VmfsError, match=match):
                list(volume.entries("/vm"))
