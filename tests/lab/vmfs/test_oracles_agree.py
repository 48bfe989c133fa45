"""Other people's readers find on a built volume what the test put there.

One volume is made for each variant and filled with every kind of file; dissect.vmfs judges VMFS-5 and -6, vmfs-tools
VMFS-3 and -5. The expected bytes are the test's own, never the builder's ``read``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import oracles
from tests.lab.vmfs.cases import Case, case, fill_plain, fill_rest
from vcbproxy.lab.vmfs import Allocation, Partition
from vcbproxy.lab.vmfs.lvm import PARTITION_START
from vcbproxy.units import GiB, KiB, MiB

VARIANTS = {
    "vmfs3": {"version": 3},
    "vmfs3-2m": {"version": 3, "block_size_bytes": 2 * MiB},
    "vmfs3-8m": {"version": 3, "block_size_bytes": 8 * MiB, "size_bytes": GiB},
    "vmfs3-spans": {"version": 3, "devices": 3, "scatter": True},
    "vmfs5": {"version": 5},
    "vmfs5-scattered": {"version": 5, "scatter": True},
    "vmfs5-runs": {"version": 5, "scatter": True, "scatter_run_blocks": 5},
    "vmfs5-spans": {"version": 5, "devices": 2, "scatter": True},
    "vmfs5-shuffled": {"version": 5, "size_bytes": GiB, "shuffle_extents": True, "devices": 2},
    "vmfs5-512k": {"version": 5, "block_size_bytes": 512 * KiB, "sub_block_bytes": 32 * KiB, "dense": False},
    "vmfs5-not-dense": {"version": 5, "dense": False},
    "vmfs5-upgraded": {
        "version": 5,
        "block_size_bytes": 4 * MiB,
        "sub_block_bytes": 64 * KiB,
        "dense": False,
        "size_bytes": GiB,
    },
    "vmfs5-mbr": {"version": 5, "partition": Partition.MBR},
    "vmfs5-indirect": {"version": 5, "indirect_system_files": True},
    "vmfs6": {"version": 6},
    "vmfs6-scattered": {"version": 6, "scatter": True},
    "vmfs6-spans": {"version": 6, "devices": 3, "scatter": True, "scatter_run_blocks": 9},
    "vmfs6-gpt": {"version": 6, "partition": Partition.GPT},
    "vmfs6-direct": {"version": 6, "indirect_system_files": False},
}

MISREAD = ("vmfs5-mbr", "vmfs5-shuffled", "vmfs5-indirect")
"""vmfs-tools take no partition's start, ignore the table of physical extents, and crash on an indirect .fdc.sf."""


def start_of(made: Case) -> int:
    return PARTITION_START[made.volume.store.spec.partition]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("vmfs3")])
def test_dissect_reads_what_was_written(variant: str, tmp_path: Path) -> None:
    with case(tmp_path, **VARIANTS[variant]) as made:
        fill_plain(made)
        fill_rest(made)
        windows = made.windows()
        found = oracles.dissect_reads(made.volume.paths, windows, start=start_of(made))
        for (path, offset, length), data in zip(windows, found, strict=True):
            assert data == made.files[path].read(offset, length), f"{path} at {offset}"


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name[4] in "35" and name not in MISREAD])
def test_vmfs_tools_read_what_was_written_and_find_no_fault(variant: str, tmp_path: Path) -> None:
    with case(tmp_path, **VARIANTS[variant]) as made:
        fill_plain(made)
        paths = made.volume.paths
        assert oracles.bitmap_errors(paths) == 0
        assert oracles.fsck_complaints(paths) == {}
        for path in ("/vm1/vm1.vmx", "/vm1/one-flat.vmdk", "/vm1/thin-flat.vmdk", "/vm1/reused-flat.vmdk", "/after"):
            expected = made.files[path]
            assert oracles.debugvmfs_read(paths, path) == expected.read(0, expected.size_bytes), path


@pytest.mark.parametrize("version", [3, 5, 6])
def test_the_builder_reads_what_was_written(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version, scatter=True, scatter_run_blocks=3) as made:
        fill_plain(made)
        fill_rest(made)
        for path, offset, length in made.windows():
            assert made.volume.read(path, offset, length) == made.files[path].read(offset, length), (
                f"{path} at {offset}"
            )


def test_large_blocks_read_as_their_slots(tmp_path: Path) -> None:
    with case(tmp_path, version=6, size_bytes=3 * GiB) as made:
        made.create("/lfb-flat.vmdk", GiB + 3 * MiB, allocation=Allocation.EAGER, use_lfb=True)
        made.create("/tbz-flat.vmdk", 512 * MiB, allocation=Allocation.ZEROEDTHICK, use_lfb=True)
        assert made.volume.node("/lfb-flat.vmdk").large == 2
        for offset in (0, 511 * MiB + 100, GiB - 5, GiB + MiB):
            made.write("/lfb-flat.vmdk", offset, 3000)
        made.write("/tbz-flat.vmdk", 300 * MiB + 17, 40)
        windows = made.windows()
        for (path, offset, length), data in zip(
            windows, oracles.dissect_reads(made.volume.paths, windows), strict=True
        ):
            assert data == made.files[path].read(offset, length), f"{path} at {offset}"


@pytest.mark.parametrize("version", [5, 6])
def test_dissect_lists_names_and_links(version: int, tmp_path: Path) -> None:
    with case(tmp_path, version=version) as made:
        fill_plain(made)
        made.volume.symlink("/link", "/vm1/vm1.vmx")
        made.volume.rdm("/vm1/raw-rdm.vmdk", "naa.600144f00000000000000000000000aa", 7 * GiB)
        paths = made.volume.paths
        assert sorted(oracles.dissect_list(paths, "/vm1/deep")) == made.volume.list("/vm1/deep")
        assert sorted(oracles.dissect_list(paths, "/")) == made.volume.list("/")
        assert oracles.dissect_link(paths, "/link") == "/vm1/vm1.vmx"
