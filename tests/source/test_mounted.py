"""A file of a mounted datastore: whatever is done to it while it is read is noticed. NFS itself: docs/guest.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.beside import until
from tests.san import faulty
from tests.san.hands import hands
from vcbproxy.device import read
from vcbproxy.errors import CannotOpen, Changed, PathNotFound
from vcbproxy.san.patience import Patience
from vcbproxy.source.mounted import MountedFile

SIZE = 8192


def overwrite_and_set_the_clock_back(file: Path) -> None:
    """As restoring tools do: same size, same time of modification, other bytes."""
    before = file.stat()
    file.write_bytes(b"x" * SIZE)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(bytes(SIZE))
    os.utime(fresh, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    fresh.replace(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda file: file.write_bytes(b"x" * SIZE),
    "overwritten-in-secret": overwrite_and_set_the_clock_back,
    "replaced": replace,
    "cut": lambda file: os.truncate(file, 4096),
    "grown": lambda file: os.truncate(file, 2 * SIZE),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "disk-flat.vmdk"
    path.write_bytes(bytes(SIZE))
    with Patience() as patience:
        file = MountedFile(tmp_path, path.name, "[nfs1] web01/disk-flat.vmdk", patience)
        try:
            assert read(file, 0, SIZE) == bytes(SIZE)
            file.recheck()
            change(path)
            with pytest.raises(Changed, match=r"^\[nfs1\] web01/disk-flat.vmdk changed while it was read: its? "):
                file.recheck()
        finally:
            file.close()


def test_a_link_in_a_circle_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    with Patience() as patience, pytest.raises(PathNotFound):
        MountedFile(tmp_path, "round", "[nfs1] round", patience)


@pytest.mark.root
def test_a_mount_whose_server_is_gone_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(8192))
    with faulty.lun(tmp_path / "disk") as bad, Patience(timeout_s=0.5) as patience:
        folder, name = bad.mounted.parent, bad.mounted.name
        file = MountedFile(folder, name, "[nfs] disk", patience)
        with bad.mount_hanging():
            with pytest.raises(CannotOpen, match=rf"{folder}: no answer for \d+ s; is its server up"):
                file.recheck()
            asked = hands()
            with pytest.raises(CannotOpen, match="no answer"):
                MountedFile(folder, name, "[nfs] disk", patience)
            assert hands() == asked, "while it does not answer, it is not asked again"
        until(lambda: not patience.overdue, "the late answer", timeout_s=10)
        file.recheck()
        file.close()


@pytest.mark.root
def test_a_mount_that_hangs_does_so_before_anything_is_asked_of_it(tmp_path: Path) -> None:
    """Else the test above, on a busy machine, is answered."""
    (tmp_path / "disk").write_bytes(bytes(8192))
    with faulty.lun(tmp_path / "disk") as bad:
        for _ in range(30):
            bad.mounted.open("rb").close()
            with bad.mount_hanging():
                assert bad.mount_server_states() == {"T"}
