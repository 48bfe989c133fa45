"""Damaged volumes, thousands of them: right bytes or one of our errors; never a crash, a hang or a read out of bounds.

A mutation goes into metadata only (headers, descriptors, pointers, directories; found by walking the good volume),
through an overlay, so that nothing is copied or rebuilt. Whether a read that was not refused gave the true bytes is
counted, not demanded: a flipped bit that makes another *valid* map, or that lies in resident data, cannot be told from
what a host might have written. The last test demands it, bit by bit, where it can be told.

``VCBPROXY_FUZZ_CASES`` sets how many mutations each volume suffers (default 40).
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real import fetch
from tests.vmfs.labs import SMALL, lab, overlaid
from tests.vmfs.overlay import Overlay
from vcbproxy.device import FileDevice, read
from vcbproxy.errors import SourceError
from vcbproxy.extent import tiled
from vcbproxy.lab.vmfs import Allocation, LabVolume, Layout, VolumeSpec
from vcbproxy.units import KiB, MiB
from vcbproxy.vmfs import probe
from vcbproxy.vmfs.inode import FileType
from vcbproxy.vmfs.volume import Volume

CASES = int(os.environ.get("VCBPROXY_FUZZ_CASES", "40"))
SLOW_S = 20.0
READ_MAX = 256 * KiB

Mutation = Callable[[random.Random, Overlay, int, int], None]


def metadata(volume: Volume) -> list[tuple[int, int]]:
    """(place on the device, length) of everything the reader reads before it gets to data."""
    [device] = volume.devices
    start = device.size_bytes - volume.size_bytes if not volume.logical.members else volume.logical.members[0].start
    places = [(0, 4 * KiB), (start + MiB, 8 * KiB), (start + MiB + 0x80000, 12 * KiB)] if volume.logical.members else []
    base = volume.logical.runs().device_offset.tolist()[0]
    places.append((base + 0x200000, 512))
    tree = volume.tree()
    todo = [tree.root()]
    seen = set()
    while todo:
        inode = todo.pop()
        if inode.address in seen:
            continue
        seen.add(inode.address)
        places.append((base + inode.offset, volume.fs.fd_bytes))
        if inode.type is FileType.RDM:
            continue
        if inode.type in (FileType.SYSTEM, FileType.DIRECTORY):
            runs = volume.logical.place(tree.view.map_of(inode))
            places += [(run.device_offset, min(run.length, 72 * KiB)) for run in runs if not run.is_zero][:3]
        if inode.is_directory:
            entries = [entry for entry in tree.entries(inode) if entry.name not in (".", "..")]
            todo += [tree.inode_of(entry, entry.name) for entry in entries[:12]]
    return places


def flip_bit(chance: random.Random, overlay: Overlay, at: int, length: int) -> None:
    where = at + chance.randrange(length)
    overlay.patch(where, bytes([overlay.number(where, 1) ^ 1 << chance.randrange(8)]))


def set_number(chance: random.Random, overlay: Overlay, at: int, length: int) -> None:
    size = chance.choice([1, 2, 4, 8])
    top = (1 << 8 * size) - 1
    number = chance.choice(
        [0, 1, 2, 3, 5, 7, top, top >> 1, top - 7, chance.randrange(top), 1 << chance.randrange(8 * size)]
    )
    overlay.patch_number(at + chance.randrange(max(1, length - size)) // 4 * 4, number, size)


def copy_elsewhere(chance: random.Random, overlay: Overlay, at: int, length: int) -> None:
    """As a torn or misplaced write would."""
    size = min(length, chance.choice([4, 8, 64, 512, 4096]))
    source = at + chance.randrange(max(1, length - size))
    target = at + chance.randrange(max(1, length - size))
    overlay.patch(target, read(overlay, source, size))


def blank(chance: random.Random, overlay: Overlay, at: int, length: int) -> None:
    size = min(length, chance.choice([4, 64, 512, 4096]))
    overlay.patch(at + chance.randrange(max(1, length - size + 1)), bytes([chance.choice([0, 255])]) * size)


MUTATIONS: list[Mutation] = [flip_bit, set_number, copy_elsewhere, blank]


def one_line(error: SourceError) -> None:
    """Every error is one of ours, and fits a log line."""
    assert str(error)
    assert "\n" not in str(error)


def exercise(overlay: Overlay, paths: list[str]) -> Iterator[tuple[str, bytes | None]]:
    """Read what a backup would; yields each file's first bytes, or None where the reader refused."""
    try:
        probe.assemble([overlay])
        volume = Volume.open([overlay])
        tree = volume.tree()
    except SourceError as error:
        one_line(error)
        return
    for path in paths:
        try:
            file = volume.open_file(path)
            first = list(itertools.islice(file.extents(), 1000))
            assert len(first) == 1000 or list(tiled(first, file.size_bytes)) == first
            yield path, read(file, 0, min(file.size_bytes, READ_MAX))
            file.recheck()
        except SourceError as error:
            one_line(error)
            yield path, None
    try:
        for entry in tree.entries(tree.root()):
            tree.inode_of(entry, entry.name)
    except SourceError as error:
        one_line(error)


def fuzz(volume: Volume, overlay: Overlay, paths: list[str], seed: int, cases: int) -> tuple[int, int]:
    """How many reads were right, and how many refused."""
    places = metadata(volume)
    truth = {path: read(volume.open_file(path), 0, min(volume.stat(path).size_bytes, READ_MAX)) for path in paths}
    right = refused = 0
    for case in range(cases):
        chance = random.Random(f"{seed}-{case}")
        overlay.reset()
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            at, length = chance.choice(places)
            chance.choice(MUTATIONS)(chance, overlay, at, min(length, overlay.size_bytes - at))
        began = time.process_time()
        for path, found in exercise(overlay, paths):
            if found is None:
                refused += 1
            elif found == truth[path]:
                right += 1
        assert time.process_time() - began < SLOW_S, f"seed {seed}, case {case} is too slow"
    return right, refused


def fill(truth: LabVolume) -> list[str]:
    chance = random.Random(5)
    truth.mkdir("/vm")
    paths = []
    for layout in (Layout.SUB_BLOCK, Layout.BLOCKS, Layout.POINTERS):
        path = f"/vm/{layout.value}"
        truth.create_file(
            path, 5000 if layout is Layout.SUB_BLOCK else 6 * MiB, layout=layout, allocation=Allocation.THIN
        )
        truth.write(path, 1000, chance.randbytes(3000))
        paths.append(path)
    truth.create_file("/vm/thick", 3 * MiB, allocation=Allocation.ZEROEDTHICK)
    truth.symlink("/link", "vm/blocks")
    return [*paths, "/vm/thick", "/link"]


@pytest.mark.parametrize("version", [3, 5, 6])
def test_built_volumes(version: int, tmp_path: Path) -> None:
    with lab(tmp_path, VolumeSpec(version=version, size_bytes=SMALL)) as truth:
        paths = fill(truth)
        with overlaid(truth) as (volume, overlay):
            right, refused = fuzz(volume, overlay, paths, version, CASES)
    assert right > CASES, "most mutations miss most files"
    assert refused > CASES // 10, "mutations are noticed"


@pytest.mark.real
@pytest.mark.parametrize("label", ["vmfs5", "vmfs6"])
def test_real_volumes(label: str) -> None:
    paths = ["/small", "/big", "/directory/file42", "/normal-flat.vmdk", "/large-flat.vmdk", "/symlink"]
    with FileDevice(fetch.image(f"vmfs/{label}.bin")) as device:
        overlay = Overlay(device)
        right, refused = fuzz(Volume.open([overlay]), overlay, paths, 6, CASES)
    assert right > CASES
    assert refused > CASES // 10


def test_one_bit_of_a_file_descriptor_never_gives_wrong_bytes(tmp_path: Path) -> None:
    """Every bit of lock, metadata and used pointers of a file, one by one: refused, or the true bytes.

    What may pass are bits that do not say where bytes lie: times, owners, locks, flags, the unused parts.
    """
    with lab(tmp_path, VolumeSpec(version=5, size_bytes=SMALL)) as truth:
        truth.create_file(
            "/disk", 3 * MiB, data=b"true bytes " * 20_000, layout=Layout.BLOCKS, allocation=Allocation.EAGER
        )
        with overlaid(truth) as (volume, overlay):
            whole = read(volume.open_file("/disk"), 0, 3 * MiB)
            fd = volume.tree().find("/disk").offset + 0x1100000
            passed = set()
            for byte in [*range(64), *range(512, 512 + 0x90), *range(1024, 1024 + 16)]:
                overlay.reset()
                overlay.patch(fd + byte, bytes([overlay.number(fd + byte, 1) ^ 1 << (byte % 8)]))
                try:
                    file = volume.open_file("/disk")
                    found = read(file, 0, file.size_bytes)
                except SourceError:
                    continue
                passed.add(byte)
                # A shorter or longer length, or another free block, is a map as good as the true one to any reader.
                assert found == whole or byte in range(512 + 0x14, 512 + 0x1C) or byte in range(1024, 1036)
            assert not passed & set(range(12)), "magic and own offset"
            assert not passed & set(range(512, 520)), "own address and generation"
            assert not passed & set(range(512 + 0x1C, 512 + 0x2C)), "block size and number of blocks"
