"""A volume with one file of eight blocks, to be damaged in one place at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.vmfs.overlay import Overlay
from vcbproxy.errors import VmfsError
from vcbproxy.lab.vmfs import LabVolume
from vcbproxy.vmfs.volume import Volume

DATA = 0x1100000  # where the volume starts on its first device
META = {3: 512, 5: 512, 6: 4096}
POINTERS = {3: 1024, 5: 1024, 6: 0x1600}
WIDTH = {3: 4, 5: 4, 6: 8}
PATH = "/vm/disk"


@dataclass
class Patient:
    """A volume with one file of eight blocks, and where its file descriptor lies on the device."""

    truth: LabVolume
    volume: Volume
    overlay: Overlay
    fd: int

    @property
    def version(self) -> int:
        return self.volume.major

    def meta(self, offset: int, number: int, size: int = 4) -> None:
        self.overlay.patch_number(self.fd + META[self.version] + offset, number, size)

    def pointer(self, index: int) -> int:
        width = WIDTH[self.version]
        return self.overlay.number(self.fd + POINTERS[self.version] + width * index, width)

    def set_pointer(self, index: int, number: int) -> None:
        width = WIDTH[self.version]
        self.overlay.patch_number(self.fd + POINTERS[self.version] + width * index, number, width)

    def refused(self, match: str) -> None:
        with pytest.raises(VmfsError, match=match) as caught:
            self.volume.open_file(PATH)
        assert "\n" not in str(caught.value)
