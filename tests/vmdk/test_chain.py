"""Chains: a child's grain hides its parent's; pairs that do not belong together are refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.images import data, extents, over, read_over
from tests.vmdk.builders import MemoryFiles, chain, cowd, descriptor, sesparse
from vcbproxy.device import MappedDevice, MemoryDevice
from vcbproxy.errors import DeviceError, SourceError
from vcbproxy.extent import Kind
from vcbproxy.vmdk.chain import open_disk

CELL = 64 << 10


def everything(files: MemoryFiles, path: str = "vm/disk-0.vmdk") -> bytes:
    with open_disk(files, path) as disk:
        return read_over(disk, 0, disk.size_bytes)


@pytest.mark.parametrize(
    "links",
    [
        [("vmfs", "AB-C")],
        [("seSparse", "-b0-"), ("vmfs", "AB-C")],
        [("vmfsSparse", "-b--"), ("vmfs", "AB-C")],
        [("vmfsSparse", "c--d"), ("vmfsSparse", "-b-e"), ("vmfs", "AB-C")],
        [("seSparse", "0-c-"), ("seSparse", "x0-0"), ("seSparse", "--zz"), ("vmfs", "ABCD")],
        [("seSparse", "0--"), ("vmfsSparse", "-b-"), ("vmfs", "ABC")],
        [("vmfsSparse", "A-B-"), ("vmfs", "----")],
        [("seSparse", "A-0B")],
        [("seSparse", "----"), ("vmfs", "----")],
        [("seSparse", "aaaa"), ("vmfs", "BBBB")],
        [("monolithicSparse", "-0x-y"), ("monolithicSparse", "A-0AA")],
    ],
    ids=lambda links: " over ".join(text for _, text in links),
)
def test_the_newest_link_that_knows_decides(links):
    files, expected = chain(CELL, *links), over(*(text for _, text in links))
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        assert read_over(disk, 0, disk.size_bytes) == data(expected, CELL)
        assert list(disk.extents()) == extents(expected, CELL)


def test_reads_across_every_border():
    files = chain(8192, ("seSparse", "a-0-b"), ("vmfsSparse", "-cc--"), ("vmfs", "AB-DE"))
    expected = data(over("a-0-b", "-cc--", "AB-DE"), 8192)
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        for offset in range(0, len(expected) - 5000, 1231):
            for length in (1, 511, 4096, 5000):
                assert read_over(disk, offset, length) == expected[offset : offset + length]
        assert read_over(disk, len(expected), 0) == b""


def test_says_what_it_is_made_of():
    with open_disk(chain(CELL, ("seSparse", "a-"), ("vmfs", "AB")), "vm/disk-0.vmdk") as disk:
        assert isinstance(disk, MappedDevice)
        assert disk.name == "vm/disk-0.vmdk"
        facts = [(link.path, link.kind, link.cid, link.parent_cid) for link in disk.links]
        assert facts == [("vm/disk-0.vmdk", "seSparse", 0, 1), ("vm/disk-1.vmdk", "vmfs", 1, None)]
        names = ["vm/disk-0.vmdk", "vm/disk-0-x.vmdk", "vm/disk-1.vmdk", "vm/disk-1-x.vmdk"]
        assert [file.name for file in disk.files] == names


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 2 * CELL + 1), (2 * CELL, 1)])
def test_reading_past_the_end_raises(offset, length):
    with open_disk(chain(CELL, ("vmfs", "AB")), "vm/disk-0.vmdk") as disk, pytest.raises(DeviceError):
        disk.read_into(offset, memoryview(bytearray(length)))


def test_extents_of_a_split_disk_lie_end_to_end():
    lines = ['RW 16 FLAT "a.vmdk" 8', "RW 8 ZERO", 'RW 8 FLAT "b.vmdk" 0']
    files = MemoryFiles({"d.vmdk": descriptor("twoGbMaxExtentFlat", lines)})
    files.contents |= {"a.vmdk": data("XAB", 4096), "b.vmdk": data("C", 4096)}
    with open_disk(files, "d.vmdk") as disk:
        assert read_over(disk, 0, disk.size_bytes) == data("XAB", 4096)[4096:] + bytes(4096) + data("C", 4096)
        assert [(e.start, e.length, e.kind) for e in disk.extents()] == [
            (0, 8192, Kind.DATA),
            (8192, 4096, Kind.ZERO),
            (12288, 4096, Kind.DATA),
        ]


def test_linked_clones_find_their_base_in_another_folder():
    for hint in ("../template/base.vmdk", "/vmfs/volumes/san1/template/base.vmdk"):
        child = descriptor("seSparse", ['RW 16 SESPARSE "c-s.vmdk"'], cid="b", parent_cid="a", parent=hint)
        contents = {
            "clone/c.vmdk": child,
            "clone/c-s.vmdk": sesparse("x-", 4096),
            "template/base.vmdk": descriptor("vmfs", ['RW 16 VMFS "base-flat.vmdk"'], cid="a"),
            "template/base-flat.vmdk": data("AB", 4096),
        }
        assert everything(MemoryFiles(contents, names=("san1",)), "clone/c.vmdk") == data("xB", 4096)


def refused(files: MemoryFiles, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        everything(files)
    for word in words:
        assert word in str(caught.value)


def test_a_parent_that_was_written_since_is_refused_naming_both():
    files = chain(CELL, ("seSparse", "a-"), ("vmfs", "AB"))
    files.contents["vm/disk-1.vmdk"] = files.contents["vm/disk-1.vmdk"].replace(b"CID=00000001", b"CID=deadbeef")
    refused(files, "vm/disk-0.vmdk", "00000001", "vm/disk-1.vmdk", "deadbeef")


def test_a_parent_of_another_size_is_refused():
    files = chain(CELL, ("seSparse", "a-"), ("vmfs", "AB"))
    larger = chain(CELL, ("seSparse", "a-"), ("vmfs", "ABC")).contents
    files.contents |= {name: larger[name] for name in ("vm/disk-1.vmdk", "vm/disk-1-x.vmdk")}
    refused(files, str(2 * CELL), str(3 * CELL))


def test_a_chain_that_bites_its_tail_is_refused():
    files = chain(CELL, ("seSparse", "a-"), ("seSparse", "b-"), ("vmfs", "AB"))
    bitten = files.contents["vm/disk-1.vmdk"].replace(b"parentCID=00000002", b"parentCID=00000000")
    files.contents["vm/disk-1.vmdk"] = bitten.replace(b"disk-2.vmdk", b"../vm/disk-0.vmdk")
    refused(files, "one of its own descendants")


def test_a_disk_that_is_its_own_parent_is_refused():
    files = chain(CELL, ("seSparse", "a-"), ("vmfs", "AB"))
    own = files.contents["vm/disk-0.vmdk"].replace(b"disk-1.vmdk", b"disk-0.vmdk")
    files.contents["vm/disk-0.vmdk"] = own
    refused(files, "one of its own descendants")


def test_255_links_are_read_and_256_refused():
    links = [("seSparse", "--")] * 254 + [("vmfs", "AB")]
    assert everything(chain(4096, *links)) == data("AB", 4096)
    refused(chain(4096, ("seSparse", "--"), *links), "more than 255 links")


@pytest.mark.parametrize("missing", ["vm/disk-0-x.vmdk", "vm/disk-1.vmdk", "vm/disk-1-x.vmdk"])
def test_a_missing_file_is_named(missing):
    files = chain(CELL, ("seSparse", "a-"), ("vmfs", "AB"))
    del files.contents[missing]
    refused(files, missing)


@pytest.mark.parametrize("other", ["disk-1-x.vmdk", "disk-1.vmdk", "disk-0.vmdk"])
def test_a_file_that_would_be_used_twice_is_refused(other):
    """A child that names its parent's extent, a descriptor, or itself, is nobody's disk."""
    files = chain(CELL, ("vmfsSparse", "a-"), ("vmfsSparse", "AB"), ("vmfs", "--"))
    parent = files.contents["vm/disk-1.vmdk"]
    files.contents["vm/disk-1.vmdk"] = parent.replace(b"disk-1-x.vmdk", other.replace("1-x", "0-x").encode())
    refused(files, "vm/disk-1.vmdk", "used twice")


def test_flat_extents_may_share_a_file():
    lines = ['RW 8 FLAT "a.vmdk" 8', 'RW 8 FLAT "a.vmdk" 0']
    files = MemoryFiles({"d.vmdk": descriptor("twoGbMaxExtentFlat", lines), "a.vmdk": data("AB", 4096)})
    assert everything(files, "d.vmdk") == data("AB", 4096)[4096:] + data("AB", 4096)[:4096]


def test_a_flat_file_that_is_too_short_is_refused():
    files = chain(CELL, ("vmfs", "AB"))
    files.contents["vm/disk-0-x.vmdk"] = files.contents["vm/disk-0-x.vmdk"][:-512]
    refused(files, "vm/disk-0-x.vmdk", "(1 sectors are missing)")


def test_a_flat_file_must_reach_to_the_end_of_an_extent_that_begins_later():
    lines = ['RW 8 FLAT "a.vmdk" 9']
    files = {"vm/disk-0.vmdk": descriptor("monolithicFlat", lines), "vm/a.vmdk": data("AB", 4096)}
    refused(MemoryFiles(files), "vm/a.vmdk", "(1 sectors are missing)")


def test_a_flat_file_that_is_longer_is_read_as_far_as_the_disk_goes():
    files = chain(CELL, ("vmfs", "AB"))
    files.contents["vm/disk-0-x.vmdk"] += b"more"
    assert everything(files) == data("AB", CELL)


@pytest.mark.parametrize("content", [cowd("A", 4096), sesparse("A", 4096), b"", bytes(4096)])
def test_an_extent_file_in_place_of_a_descriptor_is_refused(content):
    refused(MemoryFiles({"vm/disk-0.vmdk": content}), "not a VMDK descriptor")


def test_many_threads_read_one_disk():
    text = "a-0-b-c0" * 4
    files = chain(CELL, ("seSparse", text), ("vmfsSparse", "-x" * 16), ("vmfs", "AB-D" * 8))
    expected = data(over(text, "-x" * 16, "AB-D" * 8), CELL)
    with open_disk(files, "vm/disk-0.vmdk") as disk, ThreadPoolExecutor(8) as pool:
        offsets = [(number * 37_337) % (len(expected) - 70_000) for number in range(400)]
        for offset, got in zip(offsets, pool.map(lambda at: read_over(disk, at, 70_000), offsets), strict=True):
            assert got == expected[offset : offset + 70_000]


class Closing(MemoryDevice):
    """A file that remembers being closed."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1


def test_every_file_is_closed_after_a_failure_too():
    files = chain(CELL, ("seSparse", "a-"), ("vmfs", "AB"))
    files.wrap = lambda device: Closing(bytes(device._data), device.name)
    Closing.closed = 0
    with open_disk(files, "vm/disk-0.vmdk") as disk:
        assert Closing.closed == 0
    assert Closing.closed == len(disk.files) == 4
    Closing.closed = 0
    del files.contents["vm/disk-1-x.vmdk"]
    refused(files)
    assert Closing.closed == 3
