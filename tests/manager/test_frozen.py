"""What the manager says after a copy: which differences are none, which cost a second read, which end it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vcbproxy.errors import Changed, Diverged
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.manager.disk import Disk, DiskKind
from vcbproxy.manager.frozen import Now


def path(number: int, datastore: str = "san1", folder: str = "web01") -> DatastorePath:
    return DatastorePath(datastore, f"{folder}/web01-{number:06d}.vmdk")


FROZEN = Disk(
    key="scsi0-0",
    device_key=2000,
    label="Hard disk 1",
    path=path(1),
    capacity_bytes=1 << 20,
    kind=DiskKind.SESPARSE,
    mode="persistent",
    shared=False,
    encrypted=False,
    change_id=None,
    datastore="datastore-11",
    parents=(path(0),),
)
LIVE = replace(FROZEN, path=path(2), parents=(path(1), path(0)))


def now(frozen: Disk | None = FROZEN, live: Disk | None = LIVE, *more: Disk) -> Now:
    disks = [disk for disk in (live, *more) if disk is not None]
    return Now("web01", {} if frozen is None else {frozen.key: frozen}, {disk.key: disk for disk in disks})


def renamed(disk: Disk) -> Disk:
    """The same disk on a datastore that somebody gave another name."""
    moved = [DatastorePath("san-new", where.path) for where in (disk.path, *disk.parents)]
    return replace(disk, path=moved[0], parents=tuple(moved[1:]))


@pytest.mark.parametrize(
    ("frozen", "live"),
    [
        (FROZEN, LIVE),
        (FROZEN, replace(LIVE, path=path(3), parents=(path(2), path(1), path(0)))),  # another snapshot above ours
        (FROZEN, replace(LIVE, path=path(9))),  # reverted to ours: it goes on from the same file
        (renamed(FROZEN), renamed(LIVE)),
        (replace(FROZEN, change_id="52 aa/7"), LIVE),
        (FROZEN, replace(LIVE, path=path(2, "home"), datastore="datastore-9")),  # deltas in the VM's own folder
    ],
)
def test_it_stood_still(frozen: Disk, live: Disk) -> None:
    now(frozen, live).check(FROZEN)


@pytest.mark.parametrize(
    "frozen",
    [
        replace(FROZEN, path=path(1, "san2"), parents=(path(0, "san2"),), datastore="datastore-12"),
        replace(FROZEN, path=path(1, folder="web01_1"), parents=(path(0, folder="web01_1"),)),
        replace(FROZEN, datastore="datastore-12"),  # another datastore that took over the name
        replace(FROZEN, parents=()),  # its parent was merged into it, or it into that
        replace(FROZEN, parents=(path(0, "san2"),)),
    ],
)
def test_it_was_moved_or_merged(frozen: Disk) -> None:
    with pytest.raises(Changed, match="moved or merged") as caught:
        now(frozen).check(FROZEN)
    assert type(caught.value) is Changed, "reading it again may succeed"


@pytest.mark.parametrize(
    ("frozen", "live", "why"),
    [
        (None, LIVE, "does not name it"),
        (replace(FROZEN, capacity_bytes=2 << 20), LIVE, "does not name it"),
        (FROZEN, None, "taken from the VM"),
        (FROZEN, replace(LIVE, capacity_bytes=2 << 20), "resized from 1048576 to 2097152"),
        (FROZEN, replace(LIVE, parents=(path(0),)), "was it reverted"),
        (FROZEN, replace(LIVE, path=path(1), parents=(path(0),)), "was it reverted"),  # it writes to what was frozen
        (FROZEN, replace(LIVE, parents=(path(1, "san2"), path(0, "san2"))), "was it reverted"),
    ],
)
def test_the_vm_went_another_way(frozen: Disk | None, live: Disk | None, why: str) -> None:
    with pytest.raises(Diverged, match=why):
        now(frozen, live).check(FROZEN)


def test_what_came_later_is_named() -> None:
    later = replace(LIVE, key="scsi0-1")
    assert now(FROZEN, LIVE, later).added() == [later]
