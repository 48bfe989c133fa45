"""Which volume a device belongs to, told from headers; and volumes with parts missing or given twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vmfs.labs import SMALL, lab
from tests.vmfs.overlay import Overlay
from vcbproxy.device import Device, FileDevice, MemoryDevice
from vcbproxy.errors import DeviceError, LvmError
from vcbproxy.lab.vmfs import Partition, VolumeSpec
from vcbproxy.units import MiB
from vcbproxy.vmfs import probe, span
from vcbproxy.vmfs.volume import Volume


class Broken:
    name = "broken"
    size_bytes = 64 * MiB

    def read_into(self, offset: int, buf: memoryview) -> None:
        raise DeviceError(device=self.name, offset=offset, length=len(buf), reason="Input/output error")


@pytest.mark.parametrize("version", [3, 5, 6])
def test_few_reads_tell_a_member(version: int, tmp_path: Path) -> None:
    spec = VolumeSpec(version=version, size_bytes=SMALL, label="san1", partition=Partition.GPT)  # type: ignore[arg-type]
    with lab(tmp_path, spec, 2) as truth, contextlib.ExitStack() as stack:
        overlays = [Overlay(stack.enter_context(FileDevice(path))) for path in truth.paths]
        first, second = (probe.probe(overlay) for overlay in overlays)
        assert first is not None
        assert second is not None
        assert (first.label, first.uuid, first.is_first, first.devices) == ("san1", truth.uuid, True, 2)
        assert (second.label, second.uuid, second.is_first, second.first_byte) == ("", "", False, first.end_byte)
        assert first.lvm_uuid == second.lvm_uuid == truth.lvm_uuid
        assert first.version.startswith(str(version))
        assert first.partition_offset > 0
        assert all(overlay.bytes_read < 300 * 1024 and overlay.reads <= 12 for overlay in overlays)


def test_strangers() -> None:
    assert probe.probe(MemoryDevice(bytes(8 * MiB))) is None
    assert probe.probe(MemoryDevice(b"")) is None
    assert probe.assemble([MemoryDevice(bytes(8 * MiB)), Broken()]) == []
    with pytest.raises(DeviceError):
        probe.probe(Broken())


def test_volumes_are_sorted_out(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        devices: list[Device] = [Broken()]
        for label, count in (("a", 1), ("b", 3)):
            (tmp_path / label).mkdir()
            spec = VolumeSpec(version=5, size_bytes=SMALL, label=label, seed=ord(label))
            truth = stack.enter_context(lab(tmp_path / label, spec, count))
            devices += [stack.enter_context(FileDevice(path)) for path in truth.paths]
        sets = probe.assemble(devices[::-1])
        assert [(found.label, len(found.members), found.missing, found.duplicates) for found in sets] == [
            ("a", 1, 0, ()),
            ("b", 3, 0, ()),
        ]
        assert [found.missing_text for found in sets] == ["", ""]
        [_, found] = probe.assemble([*devices[:2], devices[2], devices[4]])
        assert (found.missing, found.missing_text) == (1, "device 2 of 3 is missing")


def test_the_same_part_twice(tmp_path: Path) -> None:
    """Two paths to one LUN, or an array's copy of it: never read as if they were two parts."""
    with lab(tmp_path, VolumeSpec(version=5, size_bytes=SMALL)) as truth:  # noqa: SIM117  # devices of the volume
        with FileDevice(truth.paths[0], "sda") as one, FileDevice(truth.paths[0], "sdb") as other:
            [found] = probe.assemble([one, other])
            assert [member.device.name for member in found.duplicates] == ["sdb"]
            with pytest.raises(LvmError, match=r"sdb: holds the same part of volume .* as sda"):
                Volume.open([one, other])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=7), st.data())
def test_missing_devices_are_counted_right(sizes: list[int], data: st.DataObject) -> None:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    present = data.draw(st.sets(st.sampled_from(range(len(sizes))), min_size=1))
    covered = [(starts[number], starts[number] + sizes[number]) for number in sorted(present)]
    missing = sorted(set(range(len(sizes))) - present)
    named = span.missing_positions(covered, len(sizes), sum(sizes))
    assert named in ([], [number + 1 for number in missing])
    text = span.missing_text(covered, len(sizes), sum(sizes))
    if len(missing) == 1:
        assert text == f"device {missing[0] + 1} of {len(sizes)} is missing"
    elif missing:
        assert text.endswith("are missing")
