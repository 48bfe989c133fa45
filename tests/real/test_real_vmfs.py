"""The reader against real volumes: VMFS-5 and -6 made on ESXi in 2025, and the volume manager from LVM-3 to LVM-6.

What must be read is known: who made the images wrote down what is on them. Beyond that, every file of every image is
read, which holds the reader's self-checks to what ESXi really writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.real import fetch
from vcbproxy.device import FileDevice, check_range, read
from vcbproxy.errors import LvmError, PathNotFound, Unreadable
from vcbproxy.extent import Kind, tiled
from vcbproxy.units import GiB, MiB, TiB
from vcbproxy.vmfs import lvm, probe, span
from vcbproxy.vmfs.file import VmfsFile
from vcbproxy.vmfs.inode import FileType, Layout
from vcbproxy.vmfs.volume import Volume

pytestmark = pytest.mark.real

SINGLE = [
    "vmfs5",
    "vmfs5l",
    "vmfs5d",
    "vmfs5ld",
    "vmfs5-resource-optimized",
    "vmfs5-no-dense-sbpc",
    "vmfs6",
    "vmfs6l",
    "vmfs6d",
    "vmfs6ld",
    "vmfs6-resource-optimized",
    "zero5",
    "zero6",
]
SPANS = ["vmfs5-span", "vmfs6-span"]
SYSTEM = {".fbb.sf", ".fdc.sf", ".pbc.sf", ".sbc.sf", ".vh.sf", ".pb2.sf", ".sdd.sf"}


def names_of(label: str) -> list[str]:
    if label in SPANS:
        return [f"vmfs/span/{label}-{number}.bin" for number in (1, 0)]  # the order does not matter
    return [f"vmfs/{label}.bin"]


@pytest.fixture
def volume(request: pytest.FixtureRequest) -> Iterator[Volume]:
    devices = [FileDevice(fetch.image(name)) for name in names_of(request.param)]
    yield Volume.open(devices)
    for device in devices:
        device.close()


def everything(volume: Volume, path: str = "") -> Iterator[str]:
    for entry in volume.entries(path or "/"):
        yield f"{path}/{entry.name}"
        if volume.stat(f"{path}/{entry.name}", follow=False).type is FileType.DIRECTORY:
            yield from everything(volume, f"{path}/{entry.name}")


def content(file: VmfsFile) -> bytes:
    return read(file, 0, file.size_bytes)


@pytest.mark.parametrize("volume", SINGLE + SPANS, indirect=True, ids=lambda label: label)
def test_volume_is_what_it_says(volume: Volume, request: pytest.FixtureRequest) -> None:
    label = request.node.callspec.params["volume"]
    assert volume.label == label
    assert volume.major == (6 if "6" in label else 5)
    assert volume.fs.local == (label in ("vmfs5l", "vmfs5ld", "vmfs6l", "vmfs6ld"))
    assert volume.version == {True: "6.82", False: "5.60" if volume.fs.local else "5.81"}[volume.major == 6]
    assert volume.fs.dense == (label != "vmfs5-no-dense-sbpc")
    assert len(volume.devices) == (2 if label in SPANS else 1)


@pytest.mark.parametrize("volume", SINGLE + SPANS, indirect=True, ids=lambda label: label)
def test_system_files(volume: Volume) -> None:
    found = {entry.name for entry in volume.entries("/")}
    assert found >= SYSTEM | ({".jbc.sf"} if volume.major == 6 else set())
    for name in SYSTEM:
        info = volume.stat(name)
        assert info.type is FileType.SYSTEM
        assert (info.mode & 0o170000 == 0o040000) == (name == ".sdd.sf")


@pytest.mark.parametrize("volume", SINGLE + SPANS, indirect=True, ids=lambda label: label)
def test_every_file_maps_and_reads(volume: Volume) -> None:
    """All self-checks pass on all files; the allocated part of each is read, and stays as it was."""
    refused = []
    for path in everything(volume):
        info = volume.stat(path, follow=False)
        if info.type is FileType.RDM:
            refused.append(path)
        if info.type not in (FileType.FILE, FileType.SYSTEM) or path == "/.sdd.sf":
            continue
        file = volume.open_file(path)
        for extent in tiled(file.extents(), file.size_bytes):
            if extent.kind is Kind.DATA:
                read(file, extent.start, min(extent.length, 4 * MiB))
        file.recheck()
    assert refused == (["/rdm-rdm.vmdk"] if volume.label in ("vmfs5", "vmfs6") else [])


@pytest.mark.parametrize("volume", ["vmfs5", "vmfs6"], indirect=True, ids=lambda label: label)
class TestContent:
    def test_small(self, volume: Volume) -> None:
        file = volume.open_file("/small")
        assert content(file) == b"tiny\n"
        assert file.info.layout is Layout.RESIDENT

    def test_big(self, volume: Volume) -> None:
        file = volume.open_file("/big")
        assert content(file) == b"Kusjes van SRT<3" * 65536 + b"\n"
        assert file.info.layout is Layout.BLOCKS

    def test_bigger(self, volume: Volume) -> None:
        file = volume.open_file("/bigger")
        assert file.size_bytes == 128 * MiB
        for number in range(128):
            assert read(file, number * MiB, MiB) == bytes([number]) * MiB

    def test_symlink(self, volume: Volume) -> None:
        info = volume.stat("/symlink", follow=False)
        assert info.type is FileType.SYMLINK
        tree = volume.tree()
        assert tree.link_target(tree.find("/symlink", follow=False)) == f"/vmfs/volumes/{volume.label}/small"
        assert content(volume.open_file("/symlink")) == b"tiny\n"

    def test_directory(self, volume: Volume) -> None:
        found = {entry.name for entry in volume.entries("/directory")}
        assert found == {f"file{number}" for number in range(1, 101)}
        for name in found:
            assert content(volume.open_file(f"directory/{name}")) == f"File {name[4:]}\n".encode()

    def test_colliding_names(self, volume: Volume) -> None:
        found = [entry.name for entry in volume.entries("/collision")]
        assert len(found) == len(set(found)) > 12, "more than one group of links"
        for name in found:
            assert volume.stat(f"/collision/{name}").type is FileType.FILE

    def test_thin_disk(self, volume: Volume) -> None:
        file = volume.open_file("/normal-flat.vmdk")
        assert file.size_bytes == 69 * GiB
        assert file.info.layout is Layout.POINTERS
        assert read(file, 42 * GiB, 512) == b"\x42" * 512
        assert read(file, 42 * GiB - 512, 512) == bytes(512)
        assert file.runs().allocated_bytes == MiB

    def test_thin_disk_behind_two_levels(self, volume: Volume) -> None:
        file = volume.open_file("/large-flat.vmdk")
        assert file.size_bytes == 42 * TiB
        assert file.info.layout is Layout.DOUBLE
        assert read(file, 117 * GiB, 512) == b"\x42" * 512
        assert [extent.start for extent in file.extents()] == [0, 117 * GiB, 117 * GiB + MiB]

    def test_raw_device_mapping_is_refused_by_name(self, volume: Volume) -> None:
        with pytest.raises(Unreadable, match=r"/rdm-rdm\.vmdk: is a raw device mapping"):
            volume.open_file("/rdm-rdm.vmdk")
        info = volume.stat("/rdm-rdm.vmdk")
        assert (info.type, info.size_bytes) == (FileType.RDM, 6969 * GiB)

    def test_no_such_file(self, volume: Volume) -> None:
        for path in ("/nothing", "/directory/nothing", "/small/nothing"):
            with pytest.raises(PathNotFound, match=f"no such file: {path}"):
                volume.open_file(path)


@pytest.mark.parametrize("volume", ["zero5", "zero6"], indirect=True, ids=lambda label: label)
def test_empty_disk_is_one_hole(volume: Volume) -> None:
    file = volume.open_file("/empty-flat.vmdk")
    assert file.info.layout is Layout.POINTERS
    assert [(extent.start, extent.length, extent.kind) for extent in file.extents()] == [(0, 100 * GiB, Kind.ZERO)]
    assert read(file, 0, 512) == bytes(512)


@pytest.mark.parametrize("label", SPANS)
def test_missing_span_is_named(label: str) -> None:
    for given, missing in ((0, 2), (1, 1)):
        with FileDevice(fetch.image(f"vmfs/span/{label}-{given}.bin")) as device:
            with pytest.raises(LvmError, match=f"device {missing} of 2 is missing"):
                Volume.open([device])
            [found] = probe.assemble([device])
            assert found.missing_text == f"device {missing} of 2 is missing"
            assert found.label == (label if given == 0 else "")


def test_foreign_and_repeated_spans_are_named() -> None:
    names = ("vmfs5-span-0", "vmfs5-span-1", "vmfs6-span-1")
    devices = [FileDevice(fetch.image(f"vmfs/span/{name}.bin"), name) for name in names]
    with pytest.raises(LvmError, match="vmfs6-span-1: belongs to volume"):
        Volume.open([devices[0], devices[2]])
    with pytest.raises(LvmError, match="vmfs5-span-0: holds the same part of volume"):
        Volume.open([devices[0], devices[1], devices[0]])
    sets = probe.assemble(devices)
    assert [(found.label, found.missing) for found in sets] == [("", 1), ("vmfs5-span", 0)]
    for device in devices:
        device.close()


def logical(names: Sequence[str]) -> tuple[span.LogicalVolume, list[FileDevice]]:
    devices = [FileDevice(fetch.image(name)) for name in names]
    members = [lvm.find(device) for device in devices]
    return span.assemble([member for member in members if member is not None]), devices


@pytest.mark.parametrize("version", [3, 4, 5, 6])
@pytest.mark.parametrize("spans", [1, 2])
def test_volume_manager(version: int, spans: int) -> None:
    """MiB i of the volume is filled with byte i."""
    names = [f"lvm/lvm{version}.bin"]
    if spans == 2:
        names = [f"lvm/span/lvm{version}-span-{number}.bin" for number in (1, 0)]
    volume, devices = logical(names)
    assert volume.name == f"lvm{version}" + ("-span" if spans == 2 else "")
    assert volume.size_bytes == spans * 512 * MiB
    assert {member.major for member in volume.members} == {version}
    for number in range(volume.size_bytes // MiB):
        pattern = bytes([number % 256]) * 4096
        assert read(volume, number * MiB, 4096) == pattern
        assert read(volume, (number + 1) * MiB - 4096, 4096) == pattern
    assert len(volume.runs()) == spans
    for device in devices:
        device.close()


class Dump:
    """A huge device of which a few ranges are known; anything else must not be asked for."""

    name = "dump"
    size_bytes = 65 * TiB

    def __init__(self, parts: dict[int, bytes]) -> None:
        self._parts = parts

    def read_into(self, offset: int, buf: memoryview) -> None:
        check_range(self, offset, len(buf))
        buf[:] = bytes(len(buf))
        end = offset + len(buf)
        for start, data in self._parts.items():
            low, high = max(offset, start), min(end, start + len(data))
            if low < high:
                buf[low - offset : high - offset] = data[low - start : high - start]


@pytest.mark.parametrize("version", [5, 6])
def test_sixty_four_tebibytes_on_one_device(version: int) -> None:
    """Behind every 16 TiB lie more tables of physical extents, so that physical offsets jump."""
    device = Dump(dict(fetch.lines(f"lvm/huge/lvm{version}.csv")))
    member = lvm.find(device)
    assert member is not None
    assert member.pe_count == {5: 0x3FFFF, 6: 4}[version]
    volume = span.assemble([member])
    assert (volume.name, volume.size_bytes) == (f"lvm{version}-huge", 64 * TiB - 256 * MiB)
    assert len(volume.runs()) == 4
    for offset in (0, 16 * TiB, 32 * TiB, 48 * TiB):
        wanted = f"Logical offset {offset:#x}" if offset else "Logical offset 0"
        assert read(volume, offset, 32).rstrip(b"\0").decode() == wanted
