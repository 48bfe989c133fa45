"""A volume and what its files must hold, kept by the test and not by the volume's record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.images import pattern
from vcbproxy.clock import ManualClock
from vcbproxy.lab.vmfs import Allocation, LabVolume, Layout, VolumeSpec
from vcbproxy.units import GiB, MiB

FIRST_DAY = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)


@dataclass
class Expected:
    """The content a file must have: its size and what was written, the later over the earlier."""

    size_bytes: int
    written: list[tuple[int, bytes]] = field(default_factory=list)

    def read(self, offset: int, length: int) -> bytes:
        """What a right reader returns."""
        length = max(0, min(length, self.size_bytes - offset))
        out = bytearray(length)
        for start, data in self.written:
            low, high = max(start, offset), min(start + len(data), offset + length)
            if low < high:
                out[low - offset : high - offset] = data[low - start : high - start]
        return bytes(out)


@dataclass
class Case:
    """A volume under test, and its files by path."""

    volume: LabVolume
    files: dict[str, Expected] = field(default_factory=dict)

    def create(
        self,
        path: str,
        size_bytes: int,
        *writes: tuple[int, int],
        layout: Layout = Layout.AUTO,
        allocation: Allocation = Allocation.THIN,
        use_lfb: bool = False,
    ) -> None:
        """Make a file and write patterns at (offset, length)."""
        self.volume.create_file(path, size_bytes, layout=layout, allocation=allocation, use_lfb=use_lfb)
        self.files[path] = Expected(size_bytes)
        for offset, length in writes:
            self.write(path, offset, length)

    def write(self, path: str, offset: int, length: int) -> None:
        """Write a pattern that knows path, generation and address."""
        expected = self.files[path]
        data = pattern(offset, length, f"{path} {len(expected.written)}")
        self.volume.write(path, offset, data)
        expected.written.append((offset, data))
        expected.size_bytes = max(expected.size_bytes, offset + length)

    def delete(self, path: str) -> None:
        """Remove it on both sides."""
        self.volume.delete(path)
        del self.files[path]

    def windows(self) -> list[tuple[str, int, int]]:
        """(path, offset, length) worth reading: around every write, the start, and the end, inside the file."""
        found = []
        for path, expected in self.files.items():
            spans = [(0, 4096), (expected.size_bytes - 4096, expected.size_bytes)]
            spans += [(start - 5000, start + len(data) + 5000) for start, data in expected.written]
            for low, high in spans:
                low, high = max(0, low), min(high, expected.size_bytes)
                if low < high:
                    found.append((path, low, high - low))
        return found


@contextmanager
def case(tmp_path: Path, devices: int = 1, **options: object) -> Iterator[Case]:
    """A fresh volume of 256 MiB a device, unless told otherwise."""
    options.setdefault("size_bytes", 256 * MiB)
    spec = VolumeSpec(**options)  # type: ignore[arg-type]
    paths = [tmp_path / f"lun{number}.img" for number in range(devices)]
    with LabVolume.create(paths, spec, ManualClock(FIRST_DAY)) as volume:
        yield Case(volume)
    for path in paths:
        path.unlink()


def fill_plain(made: Case) -> None:
    """Directories, small and large files, holes, deletions: all that vmfs-tools judge rightly too."""
    volume = made.volume
    block = volume.store.geometry.block_bytes
    volume.mkdir("/vm1")
    volume.mkdir("/vm1/deep")
    made.create("/vm1/vm1.vmx", 300, (0, 300), layout=Layout.SUB_BLOCK)
    made.create("/vm1/one-flat.vmdk", 3 * block + 777, (0, 3 * block + 777), layout=Layout.BLOCKS)
    made.create("/vm1/thin-flat.vmdk", 20 * block, (block - 1000, 2000), (17 * block + 5, 100), layout=Layout.BLOCKS)
    made.create("/vm1/deep/pb-flat.vmdk", 300 * block, (290 * block, 5000), (0, 10), layout=Layout.POINTERS)
    made.create("/vm1/eager-flat.vmdk", 4 * block, (100, 5), allocation=Allocation.EAGER)
    for number in range(70):
        made.create(f"/vm1/deep/log-{number:03}.txt", 40, (0, 40), layout=Layout.SUB_BLOCK)
    for number in range(0, 70, 3):
        made.delete(f"/vm1/deep/log-{number:03}.txt")
    made.create("/vm1/reused-flat.vmdk", 6 * block, (2 * block, 100), layout=Layout.BLOCKS)
    made.create("/gone", 5 * block, (0, 5 * block))
    made.delete("/gone")
    made.create("/after", 3 * block, (block + 3, 9), layout=Layout.BLOCKS)


def fill_rest(made: Case) -> None:
    """What hosts write and vmfs-tools misread: resident files, blocks to be zeroed, double indirection."""
    volume = made.volume
    five_up = volume.store.geometry.version > 3
    volume.mkdir("/rest")
    made.create(
        "/rest/thick-flat.vmdk", 9 * MiB + 512, (3 * MiB - 3, 7), (8 * MiB, 600), allocation=Allocation.ZEROEDTHICK
    )
    made.create(
        "/rest/thick-pb-flat.vmdk", 12 * MiB, (MiB, 1), allocation=Allocation.ZEROEDTHICK, layout=Layout.POINTERS
    )
    if five_up:
        made.create("/rest/resident", 900, (10, 50), layout=Layout.RESIDENT)
        made.create("/rest/huge-flat.vmdk", 42 * 1024 * GiB, (117 * GiB + 5, 70000), (41 * 1024 * GiB, 9))
        made.create("/rest/double-flat.vmdk", 7 * MiB, (3 * MiB, 5), layout=Layout.DOUBLE)
    small = volume.store.geometry.sub_block_bytes
    made.create("/rest/subs", 3 * small - 7, (small - 5, 10), (2 * small, small - 7), layout=Layout.SUB_BLOCK)
    made.create("/rest/growing", 0)
    for offset in (10, 2000, 70_000, 3 * MiB, 400 * MiB):
        made.write("/rest/growing", offset, 500)
