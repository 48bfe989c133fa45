"""A chain whose metadata were rewritten under the reader: the second look says so, whatever the volume says."""

import struct
from collections.abc import Callable

import pytest

from tests.images import data, read_over
from tests.vmdk.builders import MemoryFiles, chain, descriptor, hosted
from vcbproxy.device import MemoryDevice
from vcbproxy.errors import Changed
from vcbproxy.vmdk.chain import VirtualDisk, open_disk

CELL = 64 << 10
SECTOR = 512


class Rewritable(MemoryFiles):
    """A datastore whose files can be rewritten while they are open."""

    def __init__(self, files: MemoryFiles) -> None:
        super().__init__(files.contents)
        self.live = {path: bytearray(content) for path, content in files.contents.items()}

    def open(self, path: str) -> MemoryDevice:
        return MemoryDevice(self.live[path], path, self.granule_bytes)

    def put(self, path: str, at: int, content: bytes) -> None:
        self.live[path][at : at + len(content)] = content

    def number(self, path: str, at: int, layout: str) -> int:
        return int(struct.unpack_from(layout, self.live[path], at)[0])


def sesparse_table(files: Rewritable, path: str) -> int:
    return files.number(path, 18 * 8, "<Q") * SECTOR


def cowd_table(files: Rewritable, path: str) -> int:
    return files.number(path, files.number(path, 20, "<I") * SECTOR, "<I") * SECTOR


def whole(disk: VirtualDisk) -> bytes:
    list(disk.extents())
    return read_over(disk, 0, disk.size_bytes)


def test_nothing_happened():
    files = Rewritable(chain(CELL, ("seSparse", "A-0-"), ("vmfsSparse", "-B--"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        assert whole(disk) == data("AB0F", CELL)
        disk.recheck()


@pytest.mark.parametrize(
    ("kind", "table"), [("seSparse", sesparse_table), ("vmfsSparse", cowd_table)], ids=["seSparse", "vmfsSparse"]
)
def test_a_grain_that_reached_the_table_after_it_was_read(kind: str, table: Callable[[Rewritable, str], int]):
    """What a host had not flushed yet: the delta's file has the same blocks on the volume before and after."""
    files = Rewritable(chain(CELL, (kind, "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        assert whole(disk) == data("ADEB", CELL)
        width = 8 if kind == "seSparse" else 4
        at = table(files, "vm/disk-0-x.vmdk")
        grains_before = CELL // (4096 if kind == "seSparse" else 512)
        files.put(
            "vm/disk-0-x.vmdk", at + grains_before * width, bytes(files.live["vm/disk-0-x.vmdk"][at : at + width])
        )
        files.put("vm/disk-0-x.vmdk", at, bytes(width))
        with pytest.raises(Changed, match=r"disk-0-x.vmdk changed while it was read: grain table 0 was rewritten"):
            disk.recheck()


@pytest.mark.parametrize(("kind", "width"), [("seSparse", 8), ("vmfsSparse", 4)])
def test_a_table_that_came_after_the_directory_was_read(kind: str, width: int):
    files = Rewritable(chain(CELL, (kind, "-" * 300 + "A"), ("vmfs", "B" * 301)))
    path = "vm/disk-0-x.vmdk"
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        whole(disk)
        directory = (files.number(path, 16 * 8, "<Q") if kind == "seSparse" else files.number(path, 20, "<I")) * SECTOR
        last = 300 * CELL // ((4096 if kind == "seSparse" else 512) * 4096)
        entry = bytes(files.live[path][directory + last * width : directory + (last + 1) * width])
        assert any(entry)
        files.put(path, directory, entry)
        files.put(path, directory + last * width, bytes(width))
        with pytest.raises(Changed, match="grain directory page 0 was rewritten"):
            disk.recheck()


def test_a_table_that_is_read_twice_must_say_the_same_twice():
    """The cache drops tables; the copy must not go on with a map that is half old and half new."""
    files = Rewritable(chain(CELL, ("seSparse", "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        whole(disk)
        files.put("vm/disk-0-x.vmdk", sesparse_table(files, "vm/disk-0-x.vmdk"), bytes(8))
        disk.links[0]._layers[0]._cache._items.clear()  # as if other tables had pushed it out
        with pytest.raises(Changed, match="grain table 0 was rewritten"):
            read_over(disk, 0, 4096)


def test_a_journal_that_must_be_replayed_now():
    files = Rewritable(chain(CELL, ("seSparse", "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        whole(disk)
        files.put("vm/disk-0-x.vmdk", SECTOR + 24, struct.pack("<Q", 1))
        with pytest.raises(Changed, match=r"can no longer be read: .*its journal must be replayed"):
            disk.recheck()


@pytest.mark.parametrize(
    ("kind", "at", "layout", "change"),
    [("seSparse", 25 * 8, "<Q", 8), ("vmfsSparse", 24, "<I", 1), ("seSparse", 17 * 8, "<Q", 1)],
)
def test_a_header_that_was_rewritten(kind: str, at: int, layout: str, change: int):
    files = Rewritable(chain(CELL, (kind, "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        value = files.number("vm/disk-0-x.vmdk", at, layout) + change
        files.put("vm/disk-0-x.vmdk", at, struct.pack(layout, value))
        with pytest.raises(Changed, match="its header was rewritten"):
            disk.recheck()


def test_a_parent_that_was_written_meanwhile_has_another_cid():
    """The text is as long as before, and lies where it lay."""
    files = Rewritable(chain(CELL, ("seSparse", "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        text = bytes(files.live["vm/disk-1.vmdk"])
        files.put("vm/disk-1.vmdk", 0, text.replace(b"CID=00000001", b"CID=00000abc", 1))
        with pytest.raises(Changed, match=r"disk-1\.vmdk changed while it was read: its descriptor was rewritten"):
            disk.recheck()
        files.put("vm/disk-1.vmdk", 0, b"\xff" * len(text))
        with pytest.raises(Changed, match=r"it can no longer be read: .*not a VMDK descriptor"):
            disk.recheck()


def test_a_grain_that_lies_elsewhere_now():
    """The same grains are here; two of them have changed places."""
    files = Rewritable(chain(CELL, ("seSparse", "A--B"), ("vmfs", "CDEF")))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        whole(disk)
        at = sesparse_table(files, "vm/disk-0-x.vmdk")
        first, second = (bytes(files.live["vm/disk-0-x.vmdk"][at + skip : at + skip + 8]) for skip in (0, 8))
        files.put("vm/disk-0-x.vmdk", at, second + first)
        with pytest.raises(Changed, match="grain table 0 was rewritten"):
            disk.recheck()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (48, "grain directory page 0 was rewritten"),
        (56, "grain directory page 0 was rewritten"),
        (64, "its header was"),
    ],
)
def test_hosted_headers_and_directories_are_read_again(place: int, reason: str):
    content = hosted("A-0B", CELL, text_inside=descriptor("monolithicSparse", ['RW 512 SPARSE "disk.vmdk"']))
    files = Rewritable(MemoryFiles({"disk.vmdk": content}))
    with open_disk(files, "disk.vmdk") as disk:
        whole(disk)
        value = files.number("disk.vmdk", place, "<Q")
        if place == 64:
            files.put("disk.vmdk", place, struct.pack("<Q", value - 1))
        else:
            files.put("disk.vmdk", value * SECTOR, bytes(4))
        with pytest.raises(Changed, match=reason):
            disk.recheck()


@pytest.mark.parametrize("copy", ["first", "second", "both"])
def test_hosted_tables_are_held_to_both_copies(copy: str):
    content = hosted("A-0B", CELL, text_inside=descriptor("monolithicSparse", ['RW 512 SPARSE "disk.vmdk"']))
    files = Rewritable(MemoryFiles({"disk.vmdk": content}))
    with open_disk(files, "disk.vmdk") as disk:
        whole(disk)
        for name, at in (("first", 48), ("second", 56)):
            if copy in (name, "both"):
                directory = files.number("disk.vmdk", at, "<Q") * SECTOR
                table = files.number("disk.vmdk", directory, "<I") * SECTOR
                files.put("disk.vmdk", table, bytes(4))
        with pytest.raises(Changed, match=r"rewritten|the two copies of grain table 0 differ"):
            disk.recheck()
