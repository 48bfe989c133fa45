"""Real block devices: loop devices of both sector sizes, partitions, udev's names, and a LUN with real I/O errors."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.beside import until
from tests.san import faulty, loops
from tests.san.hands import hands, interrupted_once_waiting
from vcbproxy import device
from vcbproxy.errors import ConfigError, DeviceError, Stalled
from vcbproxy.san import lun
from vcbproxy.san.discover import ImageLun, LunKind, configured, describe, discover, find, whole
from vcbproxy.san.node import BlockNode
from vcbproxy.san.patience import Patience
from vcbproxy.units import KiB, MiB

pytestmark = pytest.mark.root

SIZE = 8 * MiB
CONTENT = random.Random(11).randbytes(SIZE)
NAA = "600144f0cafe00000000000000000042"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "lun.img"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_any_range_of_a_block_device(image: Path, sector_bytes: int) -> None:
    chance = random.Random(sector_bytes)
    with loops.attached(image, sector_bytes) as loop, lun.open_lun(loop) as opened:
        assert opened.is_block
        assert opened.direct
        assert (opened.sector_bytes, opened.size_bytes) == (sector_bytes, SIZE)
        for length in (1, 511, 512, 4096, 70_001, 2 * MiB):
            for _ in range(10):
                offset = chance.randrange(SIZE - length + 1)
                assert device.read(opened, offset, length) == CONTENT[offset : offset + length]
        buf = device.aligned_buffer(SIZE)
        opened.read_into(0, buf)
        assert buf == CONTENT
        opened.read_into(512, buf[512 : 512 + MiB])
        assert buf == CONTENT


def test_sees_what_another_host_wrote(image: Path) -> None:
    """Through the page cache, the second read would give the first one's bytes."""
    with loops.attached(image) as loop, lun.open_lun(loop) as opened:
        with loop.open("rb") as cached:
            assert cached.read(16) == CONTENT[:16]
        assert device.read(opened, 0, 16) == CONTENT[:16]
        with image.open("r+b") as other_host:
            other_host.write(b"written elsewhere")
            os.fsync(other_host.fileno())
        assert device.read(opened, 0, 17) == b"written elsewhere"


def test_a_partition(image: Path) -> None:
    with loops.attached(image) as loop, loops.partition(loop, 1, 2048, 4096) as node:
        with lun.open_lun(node) as opened:
            assert opened.size_bytes == 2 * MiB
            assert device.read(opened, 1000, 5000) == CONTENT[MiB + 1000 : MiB + 6000]
        disk, part = configured([ImageLun(loop, NAA)])
        assert (disk.path, disk.kind, disk.canonical_name) == (str(loop), LunKind.LOOP, f"naa.{NAA}")
        assert (part.path, part.partition_of, part.partition) == (str(node), str(loop), 1)
        assert (part.start_bytes, part.size_bytes) == (MiB, 2 * MiB)
        assert find([disk, part], f"naa.{NAA}:1") == part
        with pytest.raises(ConfigError, match=f"is a partition; name the whole device {loop.name}"):
            configured([ImageLun(node, NAA)])


def test_sysfs_alone_suffices(image: Path) -> None:
    with loops.attached(image, 4096) as loop:
        [info] = whole(configured([ImageLun(loop, NAA)]))
        assert (info.size_bytes, info.sector_bytes, info.read_only) == (SIZE, 4096, True)
        assert str(loop) not in [other.path for other in discover()], "an unnamed loop device is not a LUN"


@pytest.mark.parametrize(
    ("facts", "others", "reason"),
    [
        ({"size_bytes": 0}, [], "has nothing behind it"),
        ({"size_bytes": SIZE, "partition": 1, "parent": "sdb"}, [], "is a partition; name the whole device sdb"),
        (
            {"size_bytes": SIZE, "has_hardware": True},
            [BlockNode("dm-0", "/dev/dm-0", SIZE, dm_uuid=f"mpath-3{NAA}", slaves=("this",))],
            "is one path of a multipath map",
        ),
    ],
    ids=["empty", "partition", "path"],
)
def test_a_configured_device_that_is_no_lun_is_refused_by_name(
    image: Path, facts: dict[str, int], others: list[BlockNode], reason: str
) -> None:
    with loops.attached(image) as loop:
        node = BlockNode("this", str(loop), **facts)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{loop} {reason}"):
            describe([node, *others], [ImageLun(loop)])


@pytest.mark.xdist_group("udev")
def test_udev_tells_the_identity(image: Path) -> None:
    loops.identify(image, NAA, "LUN-42")
    with loops.udev_rules(loops.identity_rules(image.parent)), loops.attached(image) as loop:
        loops.trigger(loop)
        info = find(discover(), f"naa.{NAA}")
        assert (info.path, info.kind, info.serial) == (str(loop), LunKind.LOOP, "LUN-42")
        link = f"/dev/disk/by-id/wwn-0x{NAA}"
        assert link in info.links
        assert find(discover(), link) == info
        with lun.open_lun(link, name=info.canonical_name) as opened:
            assert device.read(opened, 0, 4096) == CONTENT[:4096]


def test_a_loop_device_whose_image_shrank_gives_an_error_and_not_zeroes(image: Path) -> None:
    with loops.attached(image) as loop, lun.open_lun(loop) as opened:
        os.truncate(image, 2 * MiB)
        assert device.read(opened, MiB, 4096) == CONTENT[MiB : MiB + 4096]
        for offset in (2 * MiB - 2048, 4 * MiB):
            with pytest.raises(DeviceError, match=f"at offset {offset}"):
                device.read(opened, offset, 8192)


def test_an_io_error_is_an_error_and_names_its_place(image: Path) -> None:
    with faulty.lun(image) as bad, lun.open_lun(bad.device, name=f"naa.{NAA}") as opened:
        assert device.read(opened, MiB, 4096) == CONTENT[MiB : MiB + 4096]
        bad.fail()
        for offset, length in ((3 * MiB, 64 * KiB), (4 * MiB + 1, 100)):
            with pytest.raises(DeviceError, match=rf"naa\.{NAA}: cannot read {length} bytes at offset {offset}: Input"):
                device.read(opened, offset, length)
        bad.heal()
        assert device.read(opened, 3 * MiB, 64 * KiB) == CONTENT[3 * MiB : 3 * MiB + 64 * KiB]


def test_a_lun_that_hangs_is_given_up_and_used_again_when_it_answers(image: Path) -> None:
    """The reader waits in the kernel, out of reach of every signal; whoever asked goes on."""
    with (
        faulty.lun(image) as bad,
        Patience(timeout_s=1) as patience,
        lun.open_lun(bad.device, name="lun7", patience=patience) as opened,
    ):
        assert device.read(opened, 0, 4096) == CONTENT[:4096]
        buf = device.aligned_buffer(64 * KiB)
        with bad.hanging():
            with pytest.raises(
                Stalled, match=rf"lun7: no answer for [1-9]\d* s to a read of 65536 bytes at offset {MiB}"
            ) as one:
                opened.read_into(MiB, buf)
            assert isinstance(one.value, DeviceError)
            asked = hands()
            with pytest.raises(Stalled, match="no answer"):
                device.read(opened, 2 * MiB, 512)
            assert hands() == asked, "while one read hangs, no other is tried"
        until(lambda: buf == CONTENT[MiB : MiB + 64 * KiB], "the late answer", timeout_s=10)
        assert device.read(opened, 2 * MiB, 512) == CONTENT[2 * MiB : 2 * MiB + 512]


def test_waiting_for_a_lun_that_hangs_can_be_ended(image: Path) -> None:
    with (
        faulty.lun(image) as bad,
        Patience(timeout_s=60) as patience,
        lun.open_lun(bad.device, patience=patience) as opened,
        bad.hanging(),
        interrupted_once_waiting(patience),
        pytest.raises(DeviceError, match="given up, since the job ends"),
    ):
        device.read(opened, MiB, 512)
