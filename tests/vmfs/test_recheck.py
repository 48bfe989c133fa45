"""A file that changed between its map and the end of its copy: ``recheck`` says so, whatever it was that changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, opened, overlaid
from tests.vmfs.patient import META, PATH, Patient
from vcbproxy.device import FileDevice, read
from vcbproxy.errors import Changed, Relocked
from vcbproxy.lab.vmfs import Allocation, Layout, VolumeSpec
from vcbproxy.units import MiB
from vcbproxy.vmfs.volume import Volume


@dataclass
class Rerouted:
    """A device whose paths come to lead to another one."""

    device: FileDevice

    @property
    def name(self) -> str:
        return "mpathb"

    @property
    def size_bytes(self) -> int:
        return self.device.size_bytes

    def read_into(self, offset: int, buf: memoryview) -> None:
        self.device.read_into(offset, buf)


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize("other", ["of another volume", "blank"])
def test_the_second_device_is_another_one_now(version: int, other: str, tmp_path: Path) -> None:
    """The array, or a path that was not checked, puts another LUN in its place: all metadata lie on the first one."""
    (tmp_path / "other").mkdir()
    spec = VolumeSpec(version=version, size_bytes=SMALL)
    with (
        lab(tmp_path, spec, devices=2) as truth,
        lab(tmp_path / "other", replace(spec, seed=2), devices=2) as strangers,
        FileDevice(truth.paths[0]) as first,
        FileDevice(truth.paths[1]) as second,
        FileDevice(strangers.paths[1]) as stranger,
    ):
        truth.create_file("/disk", SMALL, allocation=Allocation.EAGER, materialise=False)
        truth.write("/disk", SMALL - MiB, b"on the second device")
        lun = Rerouted(second)
        file = Volume.open([first, lun]).open_file("/disk")
        assert {run.device for run in file.runs()} == {0, 1}
        file.recheck()
        if other == "blank":
            with (tmp_path / "blank").open("wb") as blank:
                blank.truncate(second.size_bytes)
            stranger = FileDevice(tmp_path / "blank")
        lun.device = stranger
        assert read(file, SMALL - MiB, 20) != b"on the second device"
        with pytest.raises(Changed, match="mpathb"):
            file.recheck()
        stranger.close()


def test_nothing_happened(patient: Patient) -> None:
    patient.volume.open_file(PATH).recheck()


def test_written_by_its_host(patient: Patient) -> None:
    patient.truth.create_file("/thin", 8 * MiB)
    file = patient.volume.open_file("/thin")
    patient.truth.write("/thin", 5 * MiB, b"new")
    with pytest.raises(Changed, match="changed while it was read"):
        file.recheck()


def test_grown(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    patient.truth.truncate(PATH, 9 * MiB)
    with pytest.raises(Changed):
        file.recheck()


def test_deleted(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    patient.truth.delete(PATH)
    with pytest.raises(Changed):
        file.recheck()


def test_replaced(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    patient.truth.rename(PATH, "/vm/old")
    patient.truth.create_file(PATH, 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
    with pytest.raises(Changed, match=r"another file bears its name|was .* and is"):
        file.recheck()


def test_the_time_of_the_last_write(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    at = patient.fd + META[patient.version] + 0x2C
    patient.overlay.patch_number(at, patient.overlay.number(at) + 1)
    with pytest.raises(Changed, match="its mtime was") as caught:
        file.recheck()
    assert type(caught.value) is Changed


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (0, 0, Relocked),
        (2, 2, Relocked),
        (2, 0, Relocked),
        (0, 2, Relocked),
        (2, 1, Changed),
        (1, 1, Changed),
        (2, 3, Changed),
    ],
)
def test_a_lock_that_changed_hands(patient: Patient, before: int, after: int, kind: type[Changed]) -> None:
    """A host that takes over a VM opens its frozen disks for reading (2); one that opens it for writing is a change."""
    token, mode = patient.fd + 0x1C, patient.fd + 0x24
    patient.overlay.patch_number(mode, before)
    file = patient.volume.open_file(PATH)
    file.recheck()
    patient.overlay.patch_number(token, patient.overlay.number(token) + 1)
    patient.overlay.patch_number(mode, after)
    with pytest.raises(Changed) as caught:
        file.recheck()
    assert type(caught.value) is kind


@pytest.mark.parametrize(("after", "kind"), [(1, Changed), (2, Relocked)])
def test_a_lock_whose_mode_alone_changed(patient: Patient, after: int, kind: type[Changed]) -> None:
    """Hosts raise the token with it; but a lock for writing is one, whatever the token says."""
    file = patient.volume.open_file(PATH)
    patient.overlay.patch_number(patient.fd + 0x24, after)
    with pytest.raises(Changed) as caught:
        file.recheck()
    assert type(caught.value) is kind


def test_a_lock_that_changed_hands_never_hides_a_change(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    token = patient.fd + 0x1C
    patient.overlay.patch_number(token, patient.overlay.number(token) + 1)
    first, last = patient.pointer(0), patient.pointer(7)
    patient.set_pointer(0, last)
    patient.set_pointer(7, first)
    with pytest.raises(Changed, match="its blocks moved"):
        file.recheck()


def test_moved_block(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    first, last = patient.pointer(0), patient.pointer(7)
    patient.set_pointer(0, last)
    patient.set_pointer(7, first)
    with pytest.raises(Changed, match="its blocks moved"):
        file.recheck()


@pytest.mark.parametrize(
    ("at", "number", "size", "match"),
    [
        (0x04, 77, 4, "can no longer be read: .*generation 77"),
        (0x14, 8 * MiB - 1, 8, "its length was 8388608 and is 8388607"),
        (0x24, 9, 8, "can no longer be read: .*8 blocks were found"),
        (0x08, 0, 4, "can no longer be read: .*it is deleted"),
        (0x0C, 4, 4, "can no longer be read: .*SYMLINK"),
    ],
)
def test_what_the_metadata_say(patient: Patient, at: int, number: int, size: int, match: str) -> None:
    file = patient.volume.open_file(PATH)
    patient.meta(at, number, size)
    with pytest.raises(Changed, match=match):
        file.recheck()


def test_a_block_lost_or_won_with_its_count(patient: Patient) -> None:
    """A consistent change of the map, by someone who left the token alone."""
    file = patient.volume.open_file(PATH)
    patient.set_pointer(3, 0)
    patient.meta(0x24, 7, 8)
    with pytest.raises(Changed, match="its blocks was 8 and is 7"):
        file.recheck()


def test_a_block_to_be_zeroed_that_was_written(patient: Patient) -> None:
    tbz = 1 << 5 if patient.version < 6 else 1 << 7
    pointer = patient.pointer(3)
    patient.set_pointer(3, pointer | tbz)
    patient.meta(0x48, 1)
    file = patient.volume.open_file(PATH)
    file.recheck()
    patient.set_pointer(3, pointer)
    patient.meta(0x48, 0)
    with pytest.raises(Changed, match="its blocks moved"):
        file.recheck()


@pytest.mark.parametrize("version", [5, 6])
def test_bytes_in_the_descriptor(version: int, tmp_path: Path) -> None:
    """They change where the map says they are; only a look at them tells, within one second and under one lock."""
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        truth.create_file("/file", data=b"before", layout=Layout.RESIDENT)
        with overlaid(truth) as (volume, overlay):
            file = volume.open_file("/file")
            file.recheck()
            run = next(iter(file.runs()))
            overlay.patch(run.device_offset, b"after!")
            with pytest.raises(Changed, match="its bytes, which lie in its file descriptor, were rewritten"):
                file.recheck()
            overlay.patch(run.device_offset, b"before")
            overlay.patch(run.device_offset + 6, b"behind the end")
            file.recheck()


def test_the_name_now_bears_another_file_that_looks_the_same(patient: Patient) -> None:
    """Same size, same layout, another descriptor: the directory's entry tells."""
    patient.truth.create_file("/vm/twin", 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
    file = patient.volume.open_file(PATH)
    twin = patient.volume.stat("/vm/twin")
    tree = patient.volume.tree()
    folder = tree.find("/vm")
    content = b"".join(
        read(patient.overlay, run.device_offset, run.length)
        for run in patient.volume.logical.place(tree.view.map_of(folder))
    )
    at = content.index(file.info.address.to_bytes(4, "little") + file.info.generation.to_bytes(4, "little"))
    first = next(iter(patient.volume.logical.place(tree.view.map_of(folder))))
    assert first.length == len(content)
    patient.overlay.patch_number(first.device_offset + at, twin.address)
    patient.overlay.patch_number(first.device_offset + at + 4, twin.generation)
    with pytest.raises(Changed, match="another file bears its name now"):
        file.recheck()


def test_the_descriptor_was_given_to_another_file_of_that_name(patient: Patient) -> None:
    """Deleted and made anew, so quickly and alike that nothing but the generation tells; the directory knows it too."""
    file = patient.volume.open_file(PATH)
    tree = patient.volume.tree()
    run = next(iter(patient.volume.logical.place(tree.view.map_of(tree.find("/vm")))))
    named = file.info.address.to_bytes(4, "little") + file.info.generation.to_bytes(4, "little")
    at = run.device_offset + read(patient.overlay, run.device_offset, run.length).index(named)
    patient.overlay.patch_number(at + 4, file.info.generation + 1)
    patient.meta(0x04, file.info.generation + 1)
    with pytest.raises(Changed, match=r"its generation was \d+ and is \d+"):
        file.recheck()


def test_its_directory_is_gone(patient: Patient) -> None:
    file = patient.volume.open_file(PATH)
    patient.truth.rename("/vm", "/moved")
    with pytest.raises(Changed, match=r"can no longer be read: .*no such file"):
        file.recheck()


def test_a_file_made_anew_in_the_same_descriptor(tmp_path: Path) -> None:
    """Deleted, and its descriptor given to the next file, of the same name and size."""
    with lab(tmp_path, VolumeSpec(version=5, size_bytes=SMALL)) as truth:
        truth.create_file("/disk", 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
        with opened(truth) as volume:
            file = volume.open_file("/disk")
            truth.delete("/disk")
            truth.create_file("/disk", 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
            with pytest.raises(Changed):
                file.recheck()
