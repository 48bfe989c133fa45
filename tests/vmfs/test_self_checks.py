"""One fault at a time on a good volume: each must be refused, by the check that is meant for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, opened, overlaid
from tests.vmfs.overlay import Overlay
from tests.vmfs.patient import DATA, META, PATH, WIDTH, Patient
from vcbproxy.device import Device, FileDevice, Slice, read
from vcbproxy.errors import DeviceError, LvmError, SourceError, Unreadable, VmfsError
from vcbproxy.lab.vmfs import Allocation, Layout, VolumeSpec
from vcbproxy.units import GiB, MiB
from vcbproxy.vmfs import address, resource, runs, view
from vcbproxy.vmfs.volume import Volume


def test_untouched(patient: Patient) -> None:
    assert len(patient.volume.open_file(PATH).runs()) >= 1


def test_magic(patient: Patient) -> None:
    patient.overlay.patch_number(patient.fd, 0x10C00002)
    patient.refused("no file descriptor here: magic 0x10c00002")


def test_own_offset(patient: Patient) -> None:
    patient.overlay.patch_number(patient.fd + 4, 0x1234000, 8)
    patient.refused("says it lies at 0x1234000")


def test_own_address(patient: Patient) -> None:
    patient.meta(0x00, 0x03C00044)
    patient.refused("says its address is 0x3c00044")


def test_deleted(patient: Patient) -> None:
    patient.meta(0x08, 0)
    patient.refused("it is deleted: link count 0")


def test_generation(patient: Patient) -> None:
    patient.meta(0x04, 4242)
    patient.refused("generation 4242 in its file descriptor")


@pytest.mark.parametrize(("kind", "match"), [(9, "its type 9 is unknown"), (4, "a SYMLINK by its file descriptor")])
def test_type(patient: Patient, kind: int, match: str) -> None:
    patient.meta(0x0C, kind)
    patient.refused(match)


@pytest.mark.parametrize(
    ("zla", "match"),
    [
        (7, r"block layout \(ZLA\) 7 is unknown"),
        (0, "a length but no block layout"),
        (2, "is a file block, where a sub-block belongs"),
        (3, "is a file block, where a .* belongs"),
        (0x10D0, "is a file block, where a .* belongs|second-level"),
        (0x10D1, "are said to lie in its file descriptor"),
    ],
)
def test_layout(patient: Patient, zla: int, match: str) -> None:
    patient.meta(0x44, zla)
    patient.refused(match)


@pytest.mark.parametrize(("length", "blocks"), [(8 * MiB, 0), (0, 8)])
def test_no_layout_and_yet_something_to_lay_out(patient: Patient, length: int, blocks: int) -> None:
    patient.meta(0x44, 0)
    patient.meta(0x14, length, 8)
    patient.meta(0x24, blocks, 8)
    patient.refused("a length but no block layout")


@pytest.mark.parametrize("blocks", [0, 7, 9, 1 << 40])
def test_number_of_blocks(patient: Patient, blocks: int) -> None:
    patient.meta(0x24, blocks, 8)
    patient.refused(f"8 blocks were found, its file descriptor says {blocks}")


def test_number_of_blocks_to_be_zeroed(patient: Patient) -> None:
    patient.meta(0x48, 3)
    patient.refused("0 blocks to be zeroed were found, its file descriptor says 3")


def test_high_half_of_the_number_of_blocks_to_be_zeroed(patient: Patient) -> None:
    """VMFS-6 counts them in 64 bits; older versions have nothing there that counts."""
    patient.meta(0x54, 1)
    if patient.version == 6:
        patient.refused("0 blocks to be zeroed were found, its file descriptor says 4294967296")
    else:
        assert not any(run.is_zero for run in patient.volume.open_file(PATH).runs())


@pytest.mark.parametrize("length", [10_000 * MiB, 1 << 62, (1 << 64) - 1])
def test_length(patient: Patient, length: int) -> None:
    patient.meta(0x14, length, 8)
    patient.refused("but its layout can hold")


@pytest.mark.parametrize("size", [0, 4096, 3 * MiB, 1 << 62])
def test_block_size(patient: Patient, size: int) -> None:
    patient.meta(0x1C, size, 8)
    patient.refused("its block size is|its layout can hold")


@pytest.mark.parametrize("kind", [2, 3, 4, 5, 6])
def test_pointer_type(patient: Patient, kind: int) -> None:
    patient.set_pointer(3, patient.pointer(3) & ~7 | kind)
    patient.refused("where a file block.* belongs")


def test_pointer_past_the_end(patient: Patient) -> None:
    high = {4: 0xFFFFFFC1, 8: (0x7FFFFFFF << 15) | 1}[WIDTH[patient.version]]
    patient.set_pointer(3, high)
    patient.refused("lies past the end of the volume")


def test_pointer_twice(patient: Patient) -> None:
    patient.set_pointer(3, patient.pointer(5))
    patient.refused("one of its blocks is used twice")


def test_more_pieces_than_the_volume_has_blocks(patient: Patient) -> None:
    """Told at once, while they are few: pointer blocks full of the same few pointers would take any memory."""
    width = WIDTH[patient.version]
    patient.truth.create_file("/vm/long", 600 * MiB, layout=Layout.POINTERS)
    patient.truth.write("/vm/long", 0, b"x" * 2 * MiB)
    inode = patient.volume.tree().find("/vm/long")
    kind = address.Kind.SUB_BLOCK if width == 8 else address.Kind.POINTER_BLOCK
    source = patient.volume.tree().view._resource(kind)
    raw = inode.pointers(patient.volume.fs)[:1]
    cluster, item = address.resource(raw, kind, width)
    [piece] = source.pieces(source.place(int(cluster[0]), int(item[0]), "/vm/long"), "/vm/long")
    pair = read(patient.overlay, DATA + piece.device_offset, 2 * width)
    patient.overlay.patch(DATA + piece.device_offset, (pair[width:] + pair[:width]) * 300)
    with pytest.raises(VmfsError, match=r"it lies in [0-9]+ pieces, the volume has [0-9]+ blocks"):
        patient.volume.open_file("/vm/long")


def test_pointer_lost(patient: Patient) -> None:
    """A pointer that reads as zero would be a hole: the count tells."""
    patient.set_pointer(3, 0)
    patient.refused("7 blocks were found, its file descriptor says 8")


@pytest.mark.parametrize("bit", [3, 4])
def test_bits_without_a_meaning_are_ignored(patient: Patient, bit: int) -> None:
    """Unused, unused or copy-on-write: the block is where it was."""
    before = read(patient.volume.open_file(PATH), 0, 8 * MiB)
    patient.set_pointer(3, patient.pointer(3) | 1 << bit)
    assert read(patient.volume.open_file(PATH), 0, 8 * MiB) == before


@pytest.mark.parametrize("patient", [6], indirect=True)
@pytest.mark.parametrize("bit", [46, 50])
def test_bits_between_numbers_are_refused(patient: Patient, bit: int) -> None:
    patient.set_pointer(3, patient.pointer(3) | 1 << bit)
    patient.refused("has unknown bits set")


def test_link_in_a_circle(patient: Patient) -> None:
    patient.truth.symlink("/a", "b")
    patient.truth.symlink("/b", "a")
    with pytest.raises(VmfsError, match="more than 16 symbolic links"):
        patient.volume.open_file("/a")


def test_link_off_the_volume(patient: Patient) -> None:
    patient.truth.symlink("/away", "/vmfs/volumes/other/disk")
    patient.truth.symlink("/home", f"/vmfs/volumes/{patient.volume.uuid}/vm")
    with pytest.raises(VmfsError, match="a symbolic link off this volume, to /vmfs/volumes/other/disk"):
        patient.volume.open_file("/away")
    assert patient.volume.open_file("/home/disk").size_bytes == 8 * MiB


def test_another_logical_volume(patient: Patient) -> None:
    patient.overlay.patch(DATA + 0x200000 + 0xB1, b"somebody else's!")
    with pytest.raises(VmfsError, match="the file system belongs to logical volume"):
        Volume.open([patient.overlay])


@pytest.mark.parametrize(
    ("offset", "number", "size", "match"),
    [
        (0x00, 0x11223344, 4, "no VMFS file system here"),
        (0x04, 34, 4, "VMFS version code 34 is unknown"),
        (0x04, 25, 4, "VMFS version code 25 is unknown"),
        (0x04, 0, 4, "VMFS version code 0 is unknown"),
        (0xA1, 1000, 8, "a file block size of 1000 bytes cannot be"),
        (0xA1, 0, 8, "a file block size of 0 bytes cannot be"),
        (0xD9, 3, 4, "a sub-block size of 3 bytes cannot be"),
    ],
)
def test_descriptor(patient: Patient, offset: int, number: int, size: int, match: str) -> None:
    patient.overlay.patch_number(DATA + 0x200000 + offset, number, size)
    with pytest.raises(VmfsError, match=match):
        Volume.open([patient.overlay])


@pytest.mark.parametrize(
    ("offset", "number", "match"),
    [
        (0x00, 1, "no VMFS volume starts here"),
        (0x04, 7, "LVM version 7.* is unknown"),
        (0x66, 2, "names 2 volumes"),
        (0xBE, 9, "9 physical extent tables"),
        (0xC2, 0x500, "points back to 0x500|cut short"),
    ],
)
def test_lvm_header(patient: Patient, offset: int, number: int, match: str) -> None:
    patient.overlay.patch_number(0x100000 + offset, number)
    with pytest.raises(LvmError, match=match):
        Volume.open([patient.overlay])


def test_cut_device(tmp_path: Path) -> None:
    """A LUN presented shorter than it is, at any place, is a clear error and never zeroes."""
    with lab(tmp_path, VolumeSpec(version=5, size_bytes=SMALL)) as truth, FileDevice(truth.paths[0]) as device:
        for size in (0, 511, 512, MiB, MiB + 100, 2 * MiB, 17 * MiB, 20 * MiB, device.size_bytes - 128 * MiB):
            with pytest.raises(LvmError, match=r"cut short|no VMFS|ends inside"):
                Volume.open([Overlay(device, size)])


def test_cut_file_system_without_lvm(patient: Patient) -> None:
    """A copy of /dev/lvm/... that broke off: what lies behind its end is refused when mapped, never zeroes."""
    whole = patient.overlay.size_bytes - DATA
    last = max(run.device_offset + run.length for run in patient.volume.open_file(PATH).runs()) - DATA
    for size, whole_file in ((whole, True), (last, True), (last - 1, False), (last - MiB, False)):
        volume = Volume.open([Slice(patient.overlay, DATA, size)])
        if whole_file:
            assert volume.open_file(PATH).size_bytes == 8 * MiB
            continue
        for _ in range(2):
            with pytest.raises(VmfsError, match="lies past the end of the volume"):
                volume.open_file(PATH)


def test_device_that_shrinks_while_it_is_read(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    last = max(run.device_offset + run.length for run in file.runs())
    shrunk = Shrinking(patient.overlay)
    file = Volume.open([shrunk]).open_file(PATH)
    shrunk.end = last - 1
    with pytest.raises(DeviceError):
        read(file, 0, 8 * MiB)


class Shrinking:
    """A device that ends earlier than it said it would."""

    def __init__(self, base: Device) -> None:
        self._base = base
        self.name, self.size_bytes, self.end = base.name, base.size_bytes, base.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        if offset + len(buf) > self.end:
            raise DeviceError(device=self.name, offset=offset, length=len(buf), reason=f"it ended at {self.end}")
        self._base.read_into(offset, buf)


@pytest.mark.parametrize(
    ("at", "number", "size", "match"),
    [
        (0x134, 512, 4, "a metadata alignment of 512 bytes cannot be"),
        (0x134, 2048, 4, "a metadata alignment of 2048 bytes cannot be"),
        (0x138, 40, 2, "large blocks of 2.40 blocks cannot be"),
        (0x13E, 30, 2, "pointer blocks of 2.30 bytes cannot be"),
    ],
)
@pytest.mark.parametrize("patient", [6], indirect=True)
def test_geometry_of_new_versions(patient: Patient, at: int, number: int, size: int, match: str) -> None:
    patient.overlay.patch_number(DATA + 0x200000 + at, number, size)
    with pytest.raises(VmfsError, match=match):
        Volume.open([patient.overlay])


@pytest.mark.parametrize("kind", [2, 4])
def test_resource_files_without_a_header(patient: Patient, kind: int) -> None:
    """.fdc.sf and .sbc.sf: nothing is looked up by numbers that cannot be."""
    patient.truth.create_file("/vm/small", 5000, b"x", layout=Layout.SUB_BLOCK)
    fields = {0x00: 0, 0x04: 0, 0x0C: 24, 0x10: 4096} | ({0x20: 0} if patient.version == 6 else {})
    for at, number in fields.items():
        patient.overlay.reset()
        place = system_file(patient, kind)
        patient.overlay.patch_number(place + at, number)
        with pytest.raises(VmfsError, match=r"its header cannot be|no resource file header|its items have"):
            patient.volume.open_file("/vm/small")


def system_file(patient: Patient, item: int) -> int:
    """Where on the device the header of a resource file lies."""
    tree = patient.volume.tree()
    name = {2: "/.fdc.sf", 4: "/.sbc.sf"}[item]
    return next(iter(patient.volume.logical.place(tree.view.map_of(tree.find(name))))).device_offset


@pytest.mark.parametrize("version", [3, 5, 6])
def test_missing_span(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL), devices=3) as truth:
        devices = [FileDevice(path) for path in truth.paths]
        for missing, number in ((0, "1"), (1, "2"), (2, "3")):
            with pytest.raises(LvmError, match=f"device {number} of 3 is missing"):
                Volume.open([device for place, device in enumerate(devices) if place != missing])
        with pytest.raises(LvmError, match="devices 2, 3 of 3 are missing"):
            Volume.open(devices[:1])
        for device in devices:
            device.close()


def test_map_is_read_once(tmp_path: Path) -> None:
    """Metadata reads are bounded by what there is: no pointer block twice, no scan of the volume."""
    with lab(tmp_path, VolumeSpec(version=6, size_bytes=64 * GiB)) as truth:
        truth.create_file("/disk", 48 * GiB, allocation=Allocation.EAGER, materialise=False)
        with overlaid(truth) as (volume, overlay):
            overlay.bytes_read = overlay.reads = 0
            volume.open_file("/disk")
            assert overlay.bytes_read < 3 * MiB
            assert overlay.reads < 60


def test_both_ways_to_open(tmp_path: Path) -> None:
    with lab(tmp_path, VolumeSpec(version=5, size_bytes=SMALL), devices=2) as truth, opened(truth) as volume:
        assert [device.name for device in volume.devices] == [str(path) for path in truth.paths]


def test_no_devices() -> None:
    with pytest.raises(SourceError, match="no devices were given"):
        Volume.open([])


@pytest.mark.parametrize("patient", [6], indirect=True)
def test_block_number_beyond_its_cluster(patient: Patient) -> None:
    """Taken at its word, it would be a block of the next cluster."""
    patient.set_pointer(3, patient.pointer(3) & ~(0x1FFF << 51) | 512 << 51)
    patient.refused("names file block 512 of a cluster of 512")


@pytest.mark.parametrize("patient", [6], indirect=True)
@pytest.mark.parametrize("number", [1 << 24, (1 << 24) + 1, 1 << 23, (1 << 31) - 1])
def test_large_block_whose_place_does_not_fit_64_bits(patient: Patient, number: int) -> None:
    """Large blocks of 1 TiB: this number's place would come out at the volume's start, or before it."""
    patient.overlay.patch_number(DATA + 0x200000 + 0x138, 20, 2)
    patient.volume = Volume.open([patient.overlay])
    patient.set_pointer(3, 7 | number << 15)
    patient.refused(f"number {number}, lies past the end of the volume")


@pytest.mark.parametrize("patient", [6], indirect=True)
def test_large_blocks_in_a_file_that_counts_in_other_steps(patient: Patient) -> None:
    """Where in a large block a slot lies follows from the step; with another one it would lie elsewhere."""
    for index in range(8):
        patient.set_pointer(index, 7)
    patient.meta(0x1C, 2 * MiB, 8)
    patient.refused("it uses large blocks, with a block size of 2097152")


@pytest.mark.parametrize("patient", [3, 5], indirect=True)
@pytest.mark.parametrize("code", [3, 8, 12, 19, 23])
def test_releases_between_those_that_were_seen(patient: Patient, code: int) -> None:
    """Laid out alike; the version that is shown goes by what they have."""
    before = read(patient.volume.open_file(PATH), 0, 8 * MiB)
    patient.overlay.patch_number(DATA + 0x200000 + 0x04, code)
    volume = Volume.open([patient.overlay])
    assert volume.major == patient.version
    assert read(volume.open_file(PATH), 0, 8 * MiB) == before


def test_sub_blocks_of_another_size(patient: Patient) -> None:
    """A file that counts in other steps than its sub-blocks have would be put together wrongly."""
    patient.truth.create_file("/vm/small", data=b"small" * 1000, layout=Layout.SUB_BLOCK)
    inode = patient.volume.tree().find("/vm/small")
    at = DATA + inode.offset + META[patient.version] + 0x1C
    assert read(patient.volume.open_file("/vm/small"), 0, 5) == b"small"
    patient.overlay.patch_number(at, inode.block_size_bytes * 2, 8)
    with pytest.raises(VmfsError, match=r"its block size is \d+, that of \.sbc\.sf \d+"):
        patient.volume.open_file("/vm/small")


def test_sub_blocks_hold_no_more_than_there_are_pointers_to_them(patient: Patient) -> None:
    patient.truth.create_file("/vm/small", data=b"small" * 1000, layout=Layout.SUB_BLOCK)
    inode = patient.volume.tree().find("/vm/small")
    patient.overlay.patch_number(DATA + inode.offset + META[patient.version] + 0x14, 1 << 40, 8)
    with pytest.raises(VmfsError, match=r"its length is 1099511627776, but its layout can hold \d+ bytes"):
        patient.volume.open_file("/vm/small")


def test_system_files_never_need_each_other_in_a_circle() -> None:
    opened: list[view.Kind] = []
    while len(opened) < len(view._MAY_NEED):
        ready = [kind for kind, needs in view._MAY_NEED.items() if kind not in opened and set(needs) <= {*opened}]
        assert ready, "some could never be opened"
        opened += ready


def test_pointer_block_twice(patient: Patient) -> None:
    """Even where no data block would be shared, because the second time is behind the end."""
    n = {4: 1024, 8: 8192}[WIDTH[patient.version]]
    patient.truth.create_file("/vm/long", (n + 1) * MiB, layout=Layout.POINTERS)
    patient.truth.write("/vm/long", 0, b"x")
    patient.truth.write("/vm/long", n * MiB, b"y")
    patient.fd = DATA + patient.volume.tree().find("/vm/long").offset
    patient.set_pointer(1, patient.pointer(0))
    with pytest.raises(VmfsError, match="one of its pointer blocks is used twice"):
        patient.volume.open_file("/vm/long")


@pytest.mark.parametrize("patient", [6], indirect=True)
def test_pointer_blocks_of_another_size(patient: Patient) -> None:
    """Taken for half as long, every pointer behind the middle of a block would be another block's."""
    patient.truth.create_file("/vm/long", 400 * MiB, layout=Layout.POINTERS)
    patient.truth.write("/vm/long", 399 * MiB, b"y")
    patient.overlay.patch_number(DATA + 0x200000 + 0x13E, 15, 2)
    volume = Volume.open([patient.overlay])
    with pytest.raises(VmfsError, match=r"pointer blocks of 32768 bytes do not fit \.\w+\.sf, whose items have 65536"):
        volume.open_file("/vm/long")


def test_a_raw_device_mapping(patient: Patient) -> None:
    patient.truth.rdm("/vm/raw-rdm.vmdk", "600144f0000000000000000000000007", 64 * MiB)
    with pytest.raises(Unreadable, match=r"/vm/raw-rdm\.vmdk: is a raw device mapping"):
        patient.volume.open_file("/vm/raw-rdm.vmdk")


def test_items_that_a_resource_file_does_not_have(patient: Patient) -> None:
    """Never the item of the next cluster, nor one that lies in the file but is none of its items."""
    patient.truth.create_file("/vm/small", data=b"small" * 1000, layout=Layout.SUB_BLOCK)
    patient.fd = DATA + patient.volume.tree().find("/vm/small").offset
    header = system_file(patient, 4)
    per_cluster, pointer = patient.overlay.number(header), patient.pointer(0)
    item = pointer >> 28 | (pointer >> 3 & 3) << 4 if patient.version < 6 else pointer >> 56
    for at, number in ((0x00, item), (0x14, item)):
        assert item > 0
        patient.overlay.reset()
        patient.overlay.patch_number(header + at, number)
        if at == 0x00:
            patient.overlay.patch_number(header + 0x14, patient.overlay.number(header + 0x14) - 1)
        with pytest.raises(VmfsError, match=rf"refers to cluster 0 item {item} of \.sbc\.sf, which has"):
            patient.volume.open_file("/vm/small")
    assert per_cluster > item


def test_a_system_file_that_is_none(patient: Patient) -> None:
    patient.fd = DATA + patient.volume.tree().find("/.fdc.sf").offset
    patient.meta(0x0C, 3)
    patient.refused(r"\.fdc\.sf: is a FILE, not a system file")


def test_descriptors_that_are_not_where_they_must_be(patient: Patient) -> None:
    """.fdc.sf as a file, and the fixed place that every host starts from, must agree."""
    header, away = system_file(patient, 2), 1 if patient.version < 6 else 100
    patient.overlay.patch(header + away * MiB, read(patient.overlay, header, 64))
    patient.fd = DATA + patient.volume.tree().find("/.fdc.sf").offset
    patient.set_pointer(0, patient.pointer(0) + (away << 6 if patient.version < 6 else away << 51))
    patient.refused(r"\.fdc\.sf: it puts the root directory at .*, not at")


@pytest.mark.parametrize("patient", [5], indirect=True)
def test_second_level_pointer_blocks_of_an_upgraded_volume(patient: Patient) -> None:
    """The descriptor says where .pb2.sf is; on volumes that were VMFS-3 once it is not in the usual place."""
    patient.truth.create_file("/vm/long", 300 * GiB, layout=Layout.DOUBLE)
    patient.truth.write("/vm/long", 280 * GiB, b"far out")
    usual = DATA + patient.volume.tree().find("/.pb2.sf").offset
    moved, address = 0x100000, 0x12345704
    patient.overlay.patch(DATA + moved, read(patient.overlay, usual, 2048))
    patient.overlay.patch_number(DATA + moved + 4, moved, 8)
    patient.overlay.patch_number(DATA + moved + 512, address)
    patient.overlay.patch_number(DATA + 0x200000 + 0xE1, moved, 8)
    patient.overlay.patch_number(DATA + 0x200000 + 0xE9, address)
    patient.overlay.patch(usual, bytes(2048))
    volume = Volume.open([patient.overlay])
    assert read(volume.open_file("/vm/long"), 280 * GiB, 7) == b"far out"
    patient.overlay.patch_number(DATA + 0x200000 + 0xE9, address + 64)
    with pytest.raises(VmfsError, match=r"\.pb2\.sf: its file descriptor says its address is 0x12345704"):
        Volume.open([patient.overlay]).open_file("/vm/long")


def test_item_past_the_end_of_its_resource_file(patient: Patient) -> None:
    """Its header promises more items than the file has: what is missing would read as zeroes."""
    patient.truth.create_file("/vm/small", data=b"small" * 1000, layout=Layout.SUB_BLOCK)
    small = patient.volume.open_file("/vm/small")
    offset = patient.volume.tree().find("/.sbc.sf").offset
    patient.fd = DATA + offset
    inside = next(iter(small.runs())).device_offset - system_file(patient, 4)
    step = patient.volume.fs.sub_block_bytes
    patient.meta(0x14, inside + step, 8)
    assert read(patient.volume.open_file("/vm/small"), 0, 5) == b"small"
    for length in (inside + step - 1, inside + 1, inside):
        patient.meta(0x14, length, 8)
        with pytest.raises(VmfsError, match=r"refers to an item past the end of \.sbc\.sf"):
            patient.volume.open_file("/vm/small")


@pytest.mark.parametrize("patient", [3, 5], indirect=True)
def test_item_in_a_hole_of_its_resource_file(patient: Patient) -> None:
    patient.truth.create_file("/vm/small", data=b"small" * 1000, layout=Layout.SUB_BLOCK)
    tree = patient.volume.tree()
    patient.fd = DATA + tree.find("/vm/small").offset
    patient.set_pointer(0, patient.pointer(0) + (4 << 6))
    inside = next(iter(patient.volume.open_file("/vm/small").runs())).device_offset - system_file(patient, 4)
    assert inside // MiB > 0
    inode = tree.find("/.sbc.sf")
    patient.fd = DATA + inode.offset
    patient.set_pointer(inside // MiB, 0)
    patient.meta(0x24, inode.blocks - 1, 8)
    with pytest.raises(VmfsError, match=r"refers to an item in a hole of \.sbc\.sf"):
        patient.volume.open_file("/vm/small")


def test_where_items_lie() -> None:
    """Three clusters of four items to a group, laid down one by one."""
    size, header = 512, 1024
    table = resource.Resource(
        ".x.sf", "v", 4, 3, 4096, size, 3 * header + 12 * size + 77, 36, header, runs.of_one(0, 0, 1 << 20)
    )
    at = 4096
    for group in range(3):
        first = at + 3 * header
        for cluster in range(3):
            for item in range(4):
                assert table.place(group * 3 + cluster, item, "file") == first
                first += size
        at += table.group_bytes
