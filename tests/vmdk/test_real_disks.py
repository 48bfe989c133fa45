"""Disks that ESXi made, on volumes that ESXi made: descriptor, map and bytes, through our own VMFS reader."""

import shutil
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.images import read_over
from tests.real.fetch import image, sesparse_delta
from tests.vmdk.builders import descriptor
from vcbproxy.device import FileDevice, MappedDevice, MemoryDevice, read
from vcbproxy.errors import VmdkError
from vcbproxy.extent import Extent, Kind
from vcbproxy.units import GiB, KiB, MiB
from vcbproxy.vmdk.chain import VirtualDisk, open_disk
from vcbproxy.vmdk.image import open_image
from vcbproxy.vmdk.paths import resolve_inside
from vcbproxy.vmfs.mapping import DiskId
from vcbproxy.vmfs.volume import Volume

pytestmark = pytest.mark.real


class OnVolume:
    """The files of a volume, by their paths from its root."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume

    def open(self, path: str) -> MappedDevice:
        return self.volume.open_file(path)

    def resolve(self, base_path: str, reference: str) -> str:
        return resolve_inside(base_path, reference, (self.volume.label, self.volume.uuid))


@contextmanager
def datastore(name: str) -> Iterator[OnVolume]:
    with ExitStack() as stack:
        yield OnVolume(Volume.open([stack.enter_context(FileDevice(image(name)))]))


@pytest.mark.parametrize("name", ["vmfs/vmfs5.bin", "vmfs/vmfs6.bin"])
@pytest.mark.parametrize(("disk_name", "sectors", "gib"), [("normal", 144703488, 42), ("large", 90194313216, 117)])
def test_thin_disks(name, disk_name, sectors, gib):
    """69 GiB with a MiB at 42 GiB; 42 TiB, double indirect, with a MiB at 117 GiB."""
    with datastore(name) as files, open_disk(files, f"{disk_name}.vmdk") as disk:
        assert disk.size_bytes == sectors * 512
        end = gib * GiB + MiB
        assert list(disk.extents()) == [
            Extent(0, gib * GiB, Kind.ZERO),
            Extent(gib * GiB, MiB, Kind.DATA),
            Extent(end, disk.size_bytes - end, Kind.ZERO),
        ]
        content = read_over(disk, gib * GiB - 4096, MiB + 8192)
        assert not any(content[:4096] + content[-4096:])
        assert any(content[4096:-4096])


@pytest.mark.parametrize("name", ["vmfs/vmfs5.bin", "vmfs/vmfs6.bin"])
def test_a_raw_device_mapping(name):
    """Of a disk without an NAA name: its serial number, and six bytes of its model. No LUN is behind it here."""
    with datastore(name) as files:
        mapping = files.volume.open_mapping("/rdm-rdm.vmdk")
        assert mapping.disk_id == DiskId(1, b"QM00015             QEMU H")
        assert mapping.size_bytes == 14615052288 * 512
        mapping.recheck()
        with pytest.raises(VmdkError, match="a raw device mapping in virtual mode"):
            open_disk(files, "rdm.vmdk")
        small = MemoryDevice(bytes(512), "a LUN")
        with pytest.raises(VmdkError, match="maps a LUN of 7482906771456 bytes, this one has 512"):
            open_disk(files, "rdm.vmdk", lambda path: small)


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualDisk]:
    """An SE-sparse delta that ESXi wrote, over a base that is not what lies in the delta."""
    folder = tmp_path_factory.mktemp("sesparse")
    sectors = 512 * MiB // 512
    top = descriptor("seSparse", [f'RW {sectors} SESPARSE "x-sesparse.vmdk"'], parent_cid="00000001", parent="b.vmdk")
    base = [f'RW {sectors - 8} FLAT "b-flat.vmdk" 0', "RW 8 ZERO"]
    (folder / "x.vmdk").write_bytes(top)
    (folder / "x-sesparse.vmdk").symlink_to(folder / "extent")
    shutil.copyfile(sesparse_delta(), folder / "extent")
    (folder / "b.vmdk").write_bytes(descriptor("monolithicFlat", base, cid="00000001"))
    with (folder / "b-flat.vmdk").open("wb") as flat:
        for offset in (0, 16 * MiB, 511 * MiB):
            flat.seek(offset)
            flat.write(b"base" * (64 * KiB))
        flat.truncate((sectors - 8) * 512)
    with open_image(folder / "x.vmdk") as disk:
        yield disk


def test_an_sesparse_delta_of_esxi(delta: VirtualDisk):
    """What it holds is its own; behind it the parent shows, though its 4096th table entry and on are never written."""
    assert read_over(delta, 0, 16 * MiB) == b"a" * (16 * MiB)
    assert read_over(delta, 16 * MiB, 512 * KiB) == b"base" * (64 * KiB) + bytes(256 * KiB)
    assert read(delta, 511 * MiB, 4) == b"base"
    assert not any(read_over(delta, 512 * MiB - 4096, 4096))
    delta.recheck()


def test_an_sesparse_delta_of_esxi_says_so_of_each_grain():
    """Every structure that the lab's writer leaves out is there in a real one: back map, free bitmap, journal."""
    raw = sesparse_delta().read_bytes()
    words = struct.unpack_from("<26Q", raw)
    regions = {name: raw[words[at] * 512 :][: words[at + 1] * 512] for name, at in (("tables", 18), ("back", 22))}
    entries = struct.unpack_from("<4096Q", regions["tables"])
    assert [entry >> 60 for entry in entries] == [3] * 4096
    back = struct.unpack_from("<4096Q", regions["back"])
    for grain, entry in enumerate(entries):
        place = (entry >> 48 & 0xFFF) | (entry & (1 << 48) - 1) << 12
        assert back[place] == 1 << 60 | (grain & 0xFFF) << 48 | grain >> 12
