"""Exported files: only regular files of the folder are opened, and nothing stays open after a failure."""

import os
from pathlib import Path

import pytest

from tests.images import data, read_over
from tests.vmdk.builders import descriptor
from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.chain import FolderFiles
from vcbproxy.vmdk.image import open_image


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A flat disk of two grains in ``export/``, beside a secret that is not part of it."""
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "x.vmdk").write_bytes(descriptor("vmfs", ['RW 16 VMFS "x-flat.vmdk"']))
    (folder / "x-flat.vmdk").write_bytes(data("AB", 4096))
    (tmp_path / "secret").write_bytes(bytes(8192))
    return folder / "x.vmdk"


def refused(path: Path, reason: str) -> None:
    with pytest.raises(VmdkError, match=reason):
        open_image(path)


def test_an_export_is_read(export):
    with open_image(export) as disk:
        assert read_over(disk, 0, disk.size_bytes) == data("AB", 4096)


def test_a_link_to_an_export_is_followed(export):
    link = export.parent.parent / "link.vmdk"
    link.symlink_to(export)
    with open_image(link) as disk:
        assert disk.size_bytes == 8192


def test_a_link_that_leaves_the_export_is_refused(export):
    flat = export.with_name("x-flat.vmdk")
    flat.unlink()
    flat.symlink_to("../secret")
    refused(export, "out of its folder")


def test_links_in_a_loop_are_refused(export):
    flat = export.with_name("x-flat.vmdk")
    flat.unlink()
    flat.symlink_to(flat)
    refused(export, "cannot be opened")
    refused(flat, "cannot be opened")


def test_a_fifo_in_place_of_an_extent_does_not_hang(export):
    export.with_name("x-flat.vmdk").unlink()
    os.mkfifo(export.with_name("x-flat.vmdk"))
    refused(export, "not a regular file")


def test_no_file_and_no_path_are_refused(export):
    refused(export.with_name("nowhere.vmdk"), "cannot be opened")
    refused(export.parent, "not a regular file")
    refused(Path("a\0b"), "cannot be opened")


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "sub/../../secret", ""])
def test_a_folder_opens_nothing_outside_of_it(export, path):
    with pytest.raises(VmdkError):
        FolderFiles(export.parent).open(path)


def test_files_are_closed_when_a_later_one_is_missing(export):
    export.with_name("x-flat.vmdk").unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        refused(export, "No such file")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
