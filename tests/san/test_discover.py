"""The rules by which nodes become LUNs, on nodes with the names and properties that real machines gave them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from vcbproxy.errors import ConfigError, UsageError
from vcbproxy.san import discover
from vcbproxy.san.discover import ImageLun, LunInfo, LunKind, describe, find, whole
from vcbproxy.san.node import BlockNode, in_use
from vcbproxy.units import GiB, MiB

ARRAY = "600144f000000000"
LUN_1 = f"{ARRAY}0000000000000001"
LUN_2 = f"{ARRAY}0000000000000002"


def scsi(name: str, naa: str, size_bytes: int = 64 * GiB, *, udev: bool = True, **more: object) -> BlockNode:
    """A SCSI disk as udev of Debian 12 describes an iSCSI LUN."""
    properties = {
        "DEVTYPE": "disk",
        "ID_BUS": "scsi",
        "ID_VENDOR": "IET",
        "ID_MODEL": "VIRTUAL-DISK",
        "ID_SERIAL": f"3{naa}",
        "ID_SERIAL_SHORT": naa,
        "ID_WWN": f"0x{naa[:16]}",
        "ID_WWN_WITH_EXTENSION": f"0x{naa}",
    }
    facts: dict[str, object] = {
        "sys_name": name,
        "path": f"/dev/{name}",
        "size_bytes": size_bytes,
        "has_hardware": True,
        "wwid": f"naa.{naa}",
        "state": "running",
        "properties": properties if udev else {"DEVTYPE": "disk"},
        "links": (f"/dev/disk/by-id/wwn-0x{naa}",) if udev else (),
    }
    return BlockNode(**(facts | more))  # type: ignore[arg-type]


def part(disk: BlockNode, number: int) -> BlockNode:
    return BlockNode(
        f"{disk.sys_name}{number}",
        f"{disk.path}{number}",
        disk.size_bytes - 2 * MiB,
        parent=disk.sys_name,
        partition=number,
        start_bytes=MiB,
        has_hardware=True,
        wwid=disk.wwid,
        properties={"ID_FS_TYPE": "VMFS_volume_member", "ID_PART_ENTRY_TYPE": "AA31E02A-400F-11DB-9590-000C2911D1B8"},
    )


def multipath(number: int, naa: str, slaves: tuple[str, ...], name: str = "mpatha") -> BlockNode:
    return BlockNode(
        f"dm-{number}",
        f"/dev/dm-{number}",
        64 * GiB,
        dm_name=name,
        dm_uuid=f"mpath-3{naa}",
        slaves=slaves,
        properties={"DM_WWN": f"0x{naa}", "DM_SERIAL": f"3{naa}", "MPATH_DEVICE_READY": "1"},
        links=(f"/dev/mapper/{name}", f"/dev/disk/by-id/dm-uuid-mpath-3{naa}"),
    )


def map_part(number: int, naa: str, slave: str, name: str = "mpatha-part1") -> BlockNode:
    return BlockNode(
        f"dm-{number}",
        f"/dev/dm-{number}",
        64 * GiB - 2 * MiB,
        dm_name=name,
        dm_uuid=f"part1-mpath-3{naa}",
        slaves=(slave,),
        properties={"ID_FS_TYPE": "VMFS_volume_member", "DM_PART": "1"},
        links=(f"/dev/mapper/{name}", f"/dev/disk/by-id/wwn-0x{naa}-part1"),
    )


def paths(luns: Iterable[LunInfo]) -> list[str]:
    return [info.path for info in luns]


def test_a_disk_and_its_partition() -> None:
    disk = scsi("sdb", LUN_1)
    lun, partition = describe([disk, part(disk, 1)])
    assert (lun.path, lun.name, lun.kind, lun.wwn) == ("/dev/sdb", "sdb", LunKind.DISK, LUN_1)
    assert lun.canonical_name == f"naa.{LUN_1}"
    assert (lun.model, lun.serial) == ("IET VIRTUAL-DISK", LUN_1)
    assert (partition.kind, partition.partition_of, partition.partition) == (LunKind.PARTITION, "/dev/sdb", 1)
    assert partition.wwn == LUN_1
    assert partition.partition_type == "aa31e02a-400f-11db-9590-000c2911d1b8"
    assert partition.content == "VMFS_volume_member"
    assert whole([lun, partition]) == [lun]


@pytest.mark.parametrize("udev", [True, False])
def test_a_map_stands_for_its_paths(udev: bool) -> None:
    disks = [scsi("sdb", LUN_1, udev=udev), scsi("sdc", LUN_1, udev=udev)]
    nodes = [*disks, part(disks[0], 1), multipath(0, LUN_1, ("sdb", "sdc")), map_part(1, LUN_1, "dm-0")]
    lun, partition = describe(nodes)
    assert (lun.path, lun.kind, lun.wwn) == ("/dev/mapper/mpatha", LunKind.MULTIPATH, LUN_1)
    assert lun.paths == ("/dev/sdb", "/dev/sdc")
    if udev:
        assert (lun.model, lun.serial) == ("IET VIRTUAL-DISK", LUN_1), "as told of its paths"
    assert (partition.path, partition.partition_of) == ("/dev/mapper/mpatha-part1", "/dev/mapper/mpatha")
    assert (partition.partition, partition.paths) == (1, ())


def test_a_path_that_its_map_does_not_hold_yet_is_not_a_second_lun() -> None:
    nodes = [scsi("sdb", LUN_1), scsi("sdc", LUN_1), multipath(0, LUN_1, ("sdb",))]
    [lun] = describe(nodes)
    assert lun.path == "/dev/mapper/mpatha"
    assert lun.paths == ("/dev/sdb", "/dev/sdc")


def test_a_map_without_a_node_of_its_name_is_opened_by_number() -> None:
    """Udev makes /dev/mapper; where it does not run, only the kernel's name leads to the map."""
    bare = BlockNode("dm-0", "/dev/dm-0", 64 * GiB, dm_name="mpatha", dm_uuid=f"mpath-3{LUN_1}", slaves=("sdb",))
    [lun] = describe([scsi("sdb", LUN_1, udev=False), bare])
    assert (lun.path, lun.name, lun.paths) == ("/dev/dm-0", "mpatha", ("/dev/sdb",))


def test_paths_without_multipathd_are_one_lun_read_by_a_path_in_service() -> None:
    [lun] = describe([scsi("sdb", LUN_1, state="offline"), scsi("sdc", LUN_1), scsi("sdd", LUN_1)])
    assert lun.path == "/dev/sdc"
    assert lun.paths == ("/dev/sdc", "/dev/sdd", "/dev/sdb")


def test_luns_of_one_array_are_kept_apart() -> None:
    """Udev's ID_WWN is the same for both: it has the first half of the name only."""
    found = describe([scsi("sdb", LUN_1, wwid=""), scsi("sdc", LUN_2, wwid="")])
    assert [info.wwn for info in found] == [LUN_1, LUN_2]


def test_two_sizes_under_one_name_are_not_taken_for_one_lun() -> None:
    """Seen with cloned virtual disks: the name lies, and reading one for the other would be silent corruption."""
    found = describe([scsi("sdb", LUN_1), scsi("sdc", LUN_1, 32 * GiB)])
    assert paths(found) == ["/dev/sdb", "/dev/sdc"]
    with pytest.raises(UsageError, match="names 2 LUNs"):
        find(found, f"naa.{LUN_1}")


@pytest.mark.parametrize(
    "facts",
    [
        {"ID_WWN_WITH_EXTENSION": f"0x{LUN_1}"},
        {"SCSI_IDENT_LUN_NAA_REGEXT": LUN_1},
        {"DM_WWN": f"0x{LUN_1}"},
        {"ID_SERIAL": f"3{LUN_1}"},
    ],
)
def test_any_full_identity_will_do(facts: dict[str, str]) -> None:
    [lun] = describe([scsi("sdb", LUN_1, wwid="", properties=facts)])
    assert lun.wwn == LUN_1


def test_half_an_identity_is_none() -> None:
    [lun] = describe([scsi("sdb", LUN_1, wwid="", properties={"ID_WWN": f"0x{ARRAY}", "ID_SERIAL": "QM00001"})])
    assert (lun.wwn, lun.serial) == ("", "QM00001")


@pytest.mark.parametrize(
    "node",
    [
        BlockNode("dm-3", "/dev/dm-3", GiB, dm_name="vg-root", dm_uuid="LVM-abcdef", slaves=("sda",)),
        BlockNode("md0", "/dev/md0", GiB),
        BlockNode("zram0", "/dev/zram0", GiB),
        BlockNode("ram0", "/dev/ram0", GiB),
        BlockNode("sr0", "/dev/sr0", GiB, has_hardware=True),
        BlockNode("loop0", "/dev/loop0", GiB, backing_file="/var/snap.img"),
        BlockNode("loop1", "/dev/loop1", 0),
        scsi("sdb", LUN_1, 0),
    ],
    ids=lambda node: node.sys_name,
)
def test_not_luns(node: BlockNode) -> None:
    assert describe([node]) == []


def test_disks_that_this_machine_lives_on_are_not_luns() -> None:
    """A root disk, a disk under LVM, a SAN disk it boots from: all mounted or held by something that is no map."""
    root = scsi("sda", LUN_1)
    mounted = replace(part(root, 1), mounted=True)
    lvm = scsi("sdb", LUN_2)
    pv = replace(part(lvm, 1), holders=("dm-9",))
    volume = BlockNode("dm-9", "/dev/dm-9", GiB, dm_uuid="LVM-abc", slaves=("sdb1",))
    assert describe([root, mounted, lvm, pv, volume]) == []
    boot = [
        scsi("sdc", LUN_1, holders=("dm-0",)),
        replace(multipath(0, LUN_1, ("sdc",)), holders=("dm-1",)),
        map_part(1, LUN_1, "dm-0"),
    ]
    assert paths(describe(boot)) == ["/dev/mapper/mpatha", "/dev/mapper/mpatha-part1"]
    boot[2] = replace(boot[2], mounted=True)
    assert describe(boot) == []


def test_a_loop_device_with_an_identity_is_a_lun() -> None:
    loop = BlockNode(
        "loop0",
        "/dev/loop0",
        GiB,
        sector_bytes=4096,
        read_only=True,
        backing_file="/lab/lun0.img",
        properties={"ID_WWN_WITH_EXTENSION": f"0x{LUN_1}"},
    )
    [lun] = describe([loop])
    assert (lun.kind, lun.wwn, lun.sector_bytes, lun.read_only) == (LunKind.LOOP, LUN_1, 4096, True)


class TestConfiguredImages:
    def test_a_file_is_a_lun_of_the_given_name(self, tmp_path: Path) -> None:
        image = tmp_path / "lun0.img"
        image.write_bytes(bytes(1000))
        image.chmod(0o444)
        [lun] = describe([], [ImageLun(image, f"naa.{LUN_1}")])
        assert lun == LunInfo(str(image), "lun0.img", LunKind.IMAGE, 1000, 512, wwn=LUN_1, read_only=True)

    def test_its_loop_device_is_not_a_second_lun(self, tmp_path: Path) -> None:
        image = tmp_path / "lun0.img"
        image.write_bytes(bytes(1000))
        loop = BlockNode("loop0", "/dev/loop0", 1000, backing_file=str(image), properties={"ID_SERIAL": f"3{LUN_1}"})
        assert paths(describe([loop], [ImageLun(image, LUN_1)])) == [str(image)]

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"gone\.img: No such file"):
            describe([], [ImageLun(tmp_path / "gone.img")])

    def test_a_circle_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "loop.img").symlink_to("loop.img")
        with pytest.raises(ConfigError, match="links lead nowhere"):
            describe([], [ImageLun(tmp_path / "loop.img")])

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="neither a file nor a block device"):
            describe([], [ImageLun(tmp_path)])

    def test_named_twice(self, tmp_path: Path) -> None:
        image = tmp_path / "lun0.img"
        image.touch()
        (tmp_path / "link.img").symlink_to(image)
        with pytest.raises(ConfigError, match="named twice"):
            describe([], [ImageLun(image), ImageLun(tmp_path / "link.img")])

    def test_configured_alone_sees_no_disks_of_this_machine(self, tmp_path: Path) -> None:
        image = tmp_path / "lun0.img"
        image.write_bytes(bytes(1000))
        assert paths(discover.configured([ImageLun(image)])) == [str(image)]


class TestFind:
    luns = describe(
        [
            scsi("sdb", LUN_2),
            part(scsi("sdb", LUN_2), 1),
            scsi("sdc", LUN_1),
            scsi("sdd", LUN_1),
            multipath(0, LUN_1, ("sdc", "sdd")),
            map_part(1, LUN_1, "dm-0"),
            scsi("sde", "", wwid="", properties={"ID_SERIAL": "QM00001"}),
        ]
    )

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("/dev/sdb", "/dev/sdb"),
            ("sdb", "/dev/sdb"),
            ("sdb1", "/dev/sdb1"),
            (f"naa.{LUN_2}", "/dev/sdb"),
            (f"0x{LUN_2.upper()}", "/dev/sdb"),
            (f"naa.{LUN_2}:1", "/dev/sdb1"),
            (f"wwn-0x{LUN_2}-part1", "/dev/sdb1"),
            (LUN_1, "/dev/mapper/mpatha"),
            (f"3{LUN_1}", "/dev/mapper/mpatha"),
            ("mpatha", "/dev/mapper/mpatha"),
            ("/dev/sdd", "/dev/mapper/mpatha"),
            (f"/dev/disk/by-id/dm-uuid-mpath-3{LUN_1}", "/dev/mapper/mpatha"),
            (f"/dev/disk/by-id/wwn-0x{LUN_1}-part1", "/dev/mapper/mpatha-part1"),
            (f"naa.{LUN_1}:1", "/dev/mapper/mpatha-part1"),
            ("QM00001", "/dev/sde"),
        ],
    )
    def test_by_any_of_its_names(self, text: str, path: str) -> None:
        assert find(self.luns, text).path == path

    @pytest.mark.parametrize("text", ["", "naa.", "sdz", ARRAY, f"naa.{LUN_2}:2", "/dev/null", "naa.6", "3", "/\0"])
    def test_nothing_of_that_name(self, text: str) -> None:
        with pytest.raises(UsageError, match=rf"no LUN .*there are: /dev/sdb \(naa.{LUN_2}\), "):
            find(self.luns, text)

    def test_where_there_is_nothing(self) -> None:
        with pytest.raises(UsageError, match="no LUN is seen"):
            find([], "sdb")

    def test_a_long_list_is_cut(self) -> None:
        many = describe([scsi(f"sd{number}", f"{number:032x}") for number in range(300)])
        with pytest.raises(UsageError, match="and 280 more"):
            find(many, "x")


def test_in_a_chroot_the_machines_own_disk_is_still_known(tmp_path: Path) -> None:
    """Its own table shows what is below its root alone; the first process sees what the machine lives on."""
    mounted = "27 1 {} / {} rw,relatime - ext4 /dev/root rw\n"
    for whose, text in (("self", mounted.format("0:40", "/proc")), ("1", mounted.format("254:1", "/"))):
        (tmp_path / whose).mkdir()
        (tmp_path / whose / "mountinfo").write_text(text)
    (tmp_path / "swaps").write_text("Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2\n")
    assert in_use(tmp_path) == {"0:40", "254:1", "/dev/vdb"}
    (tmp_path / "1" / "mountinfo").unlink()
    assert in_use(tmp_path) == {"0:40", "/dev/vdb"}
