"""Disks that ESXi made, on volumes that ESXi made: descriptor, map and bytes, through our own VMFS reader."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.images import read_over
from tests.real.fetch import image
from vcbproxy.device import FileDevice
from vcbproxy.errors import VmdkError
from vcbproxy.extent import Extent, Kind
from vcbproxy.units import GiB, MiB
from vcbproxy.vmdk.chain import DatastoreFiles, open_disk
from vcbproxy.vmfs.volume import Volume

pytestmark = pytest.mark.real


@contextmanager
def datastore(name: str) -> Iterator[DatastoreFiles]:
    with ExitStack() as stack:
        volume = Volume.open([stack.enter_context(FileDevice(image(name)))])
        yield DatastoreFiles(volume.open_file, (volume.label, str(volume.uuid)))


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
def test_a_raw_device_mapping_is_refused_by_name(name):
    with datastore(name) as files, pytest.raises(VmdkError, match="vmfsRawDeviceMap: a raw device mapping in virtual"):
        open_disk(files, "rdm.vmdk")
