"""A VM's small files while its host rewrites them: as they were at one moment, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from vcbproxy.clock import ManualClock
from vcbproxy.device import FileDevice, MappedDevice, MemoryDevice
from vcbproxy.errors import Changed, SourceError
from vcbproxy.lab.vmfs import LabVolume, Layout, VolumeSpec
from vcbproxy.manager.datastore import DatastorePath
from vcbproxy.source.configfiles import SIZE_MAX_BYTES, read_config_file
from vcbproxy.units import KiB
from vcbproxy.vmfs.volume import Volume

VMX = DatastorePath("ds1", "vm1.vmx")
OLD, NEW, OTHER = b'memSize = "2048"\n' * 90, b'memSize = "4096"\n' * 90, b"another file's bytes" * 90


@dataclass
class Meddled:
    """A LUN on which something happens when a file's first bytes are about to be read, and each time again."""

    device: FileDevice
    place: int = -1
    happenings: list[Callable[[], object]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.device.name

    @property
    def size_bytes(self) -> int:
        return self.device.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        if offset == self.place and self.happenings:
            self.happenings.pop(0)()
        self.device.read_into(offset, buf)


@dataclass
class Site:
    """A volume with a .vmx on it, as its host has it and as we see it."""

    truth: LabVolume
    lun: Meddled

    def open(self, path: str) -> MappedDevice:
        file = Volume.open([self.lun]).open_file(DatastorePath.parse(path).path)
        [self.lun.place] = [run.device_offset for run in file.runs()]
        return file

    def replaced(self, content: bytes) -> None:
        """A new file under the old name; what the old one lay in goes to another."""
        self.truth.create_file("/vm1.vmx~", data=content, layout=Layout.SUB_BLOCK)
        self.truth.rename("/vm1.vmx~", "/vm1.vmx")
        self.truth.create_file("/other", data=OTHER, layout=Layout.SUB_BLOCK)

    def rewritten(self, content: bytes) -> None:
        """In place: same length, same blocks, and, in the same second, the same time."""
        self.truth.write("/vm1.vmx", 0, content)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with LabVolume.create([tmp_path / "lun0.img"], VolumeSpec(5, "ds1"), ManualClock()) as truth:
        truth.create_file("/vm1.vmx", data=OLD, layout=Layout.SUB_BLOCK)
        with FileDevice(tmp_path / "lun0.img") as device:
            yield Site(truth, Meddled(device))


def test_a_file_that_nobody_touches(site: Site) -> None:
    assert read_config_file(site, VMX) == OLD


def test_a_file_that_is_replaced_as_it_is_read(site: Site) -> None:
    """Its place is another file's by then: that one's bytes must not be taken for it."""
    site.lun.happenings.append(lambda: site.replaced(NEW))
    assert read_config_file(site, VMX) == NEW


def test_a_file_of_which_half_was_rewritten(site: Site) -> None:
    """The host is between two of its writes: no stamp of the volume tells, a second reading does."""
    torn = NEW[: len(NEW) // 2] + OLD[len(OLD) // 2 :]
    site.lun.happenings += [lambda: site.rewritten(torn), lambda: site.rewritten(NEW)]
    assert read_config_file(site, VMX) == NEW


def test_a_file_that_never_stands_still(site: Site) -> None:
    site.lun.happenings += [partial(site.rewritten, bytes([number]) * KiB) for number in range(1, 99)]
    with pytest.raises(Changed, match=r"vm1\.vmx"):
        read_config_file(site, VMX)


@dataclass
class OneFile:
    """Files that are all the same one."""

    file: MemoryDevice

    def open(self, path: str) -> MappedDevice:
        return self.file


def test_a_file_that_cannot_be_looked_at_again_is_not_believed() -> None:
    with pytest.raises(Changed, match="it cannot be looked at again, so nobody knows"):
        read_config_file(OneFile(MemoryDevice(OLD)), VMX)


def test_a_disk_under_the_name_of_a_configuration_file_is_not_read_into_memory() -> None:
    class Huge(MemoryDevice):
        size_bytes = SIZE_MAX_BYTES + 1

        def read_into(self, offset: int, buf: memoryview) -> None:
            raise AssertionError("it was read")

    with pytest.raises(SourceError, match=r"vm1\.vmx has 16777217 bytes: too large for a configuration file"):
        read_config_file(OneFile(Huge(b"")), VMX)
