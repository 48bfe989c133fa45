"""The rules of discovery, on block devices as the guest's kernel and udev described them (docs/guest.md).

Recorded on Linux 6.1 with udev 252, multipath-tools 0.9.4, open-iscsi 2.1.8 and tgt 1.0.85: two LUNs, seen over two
cables each. The first carries a VMFS-6 in a GPT partition.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vcbproxy.san.discover import LunKind, describe, find, whole
from vcbproxy.san.node import BlockNode

RECORDED = Path(__file__).parent / "recorded"
NAA = "600144f02c5fb58028c795e54c510e95"
SCRATCH = "600144f0cafe0000000000000000beef"


def nodes(name: str) -> list[BlockNode]:
    return [BlockNode(**_with_tuples(row)) for row in json.loads((RECORDED / f"{name}.json").read_text())]


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


@pytest.mark.parametrize("when", ["multipath", "one-path-cut"])
def test_with_multipathd_the_maps_are_listed_and_no_path(when: str) -> None:
    luns = describe(nodes(when))
    assert [(lun.path, lun.kind, lun.canonical_name) for lun in luns] == [
        (f"/dev/mapper/3{NAA}", LunKind.MULTIPATH, f"naa.{NAA}"),
        (f"/dev/mapper/3{SCRATCH}", LunKind.MULTIPATH, f"naa.{SCRATCH}"),
    ]
    [lun, scratch] = luns
    assert lun.paths == ("/dev/sda", "/dev/sdb")
    assert (lun.model, lun.serial) == ("EXAMPLE ARRAY", NAA)
    assert lun.read_only, "by our udev rule"
    assert not scratch.read_only, "there is no VMFS on it"
    assert find(luns, "/dev/sdb") == find(luns, f"/dev/disk/by-id/wwn-0x{NAA}") == find(luns, f"naa.{NAA}") == lun


def test_a_map_stays_listed_while_a_partition_is_made_of_it() -> None:
    """Recorded in the guest, when the paths came back: the map's holder was there before the scan could see it."""
    racing = [replace(node, holders=("dm-2",)) if node.sys_name == "dm-0" else node for node in nodes("multipath")]
    assert describe(racing) == describe(nodes("multipath"))


def test_without_multipathd_two_paths_are_one_lun() -> None:
    luns = describe(nodes("without-multipathd"))
    assert [(lun.kind, lun.canonical_name) for lun in whole(luns)] == [
        (LunKind.DISK, f"naa.{NAA}"),
        (LunKind.DISK, f"naa.{SCRATCH}"),
    ]
    lun = whole(luns)[0]
    assert sorted(lun.paths) == ["/dev/sda", "/dev/sdb"]
    [partition] = [part for part in luns if part.partition_of == lun.path]
    assert (partition.content, partition.partition) == ("VMFS_volume_member", 1)
    assert find(luns, f"naa.{NAA}:1") == partition
    assert lun.read_only
