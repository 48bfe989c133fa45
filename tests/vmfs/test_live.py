"""A host at work on the volume while the reader opens, maps and reads: right bytes, or one of our errors.

Every file is written so that its bytes tell what they are: each block of 4 KiB names its file, its number and the round
it was written in. A file whose ``recheck`` passes must, block by block, hold one of what was written there; what was
there when nobody wrote must be there exactly.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from tests.vmfs.labs import SMALL, lab
from vcbproxy.device import FileDevice, read
from vcbproxy.errors import Changed, VmfsError
from vcbproxy.extent import tiled
from vcbproxy.lab.vmfs import Allocation, LabVolume, VolumeSpec
from vcbproxy.units import KiB, MiB
from vcbproxy.vmfs.volume import Volume

SECONDS = float(os.environ.get("VCBPROXY_STRESS_S", "1"))
BLOCK = 4 * KiB


def block(name: str, number: int, turn: int) -> bytes:
    return f"{name}|{number}|{turn}|".encode().ljust(BLOCK, b".")


class Host:
    """Creates, writes, grows, renames and deletes files of its own; leaves the others alone."""

    def __init__(self, truth: LabVolume, seed: int) -> None:
        self._truth = truth
        self._chance = random.Random(seed)
        self._names: dict[str, str] = {}  # where a file is now, and what its blocks call it
        self._made = 0
        self.error: Exception | None = None
        self.steps = 0
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self._step()
                self.steps += 1
        except Exception as error:  # noqa: BLE001  # handed to the test
            self.error = error

    def _step(self) -> None:
        chance, truth = self._chance, self._truth
        if len(self._names) < 6:
            path = f"/vm/f{self._made}" if self._made % 3 else "/vm/again"
            self._made += 1
            if path not in self._names:
                truth.create_file(path, allocation=Allocation.THIN)
                self._names[path] = f"{path}#{self._made}"
            return
        path = chance.choice(list(self._names))
        match chance.choice(["write", "write", "write", "write", "rename", "delete", "shrink"]):
            case "write":
                number = chance.choice([0, 1, chance.randrange(30), chance.randrange(1200)])
                truth.write(path, number * BLOCK, block(self._names[path], number, self.steps))
            case "rename":
                new = f"/vm/g{self.steps % 4}"
                if new not in self._names:
                    truth.rename(path, new)
                    self._names[new] = self._names.pop(path)
            case "delete":
                truth.delete(path)
                del self._names[path]
            case _:
                truth.truncate(path, chance.randrange(truth.size(path) + 1) // BLOCK * BLOCK)


def check_blocks(content: bytes) -> None:
    """Each block is whole, in its place, of one and the same file, or was never written."""
    names = set()
    for number in range(len(content) // BLOCK):
        found = content[number * BLOCK : (number + 1) * BLOCK]
        if any(found):
            name, said, turn = found.split(b"|")[:3]
            assert found == block(name.decode(), int(said), int(turn))
            assert int(said) == number, "a block of another place"
            names.add(name)
    assert len(names) <= 1, f"blocks of several files: {names}"


@pytest.mark.parametrize("version", [3, 5, 6])
def test_reading_while_a_host_writes(version: int, tmp_path: Path) -> None:
    spec = VolumeSpec(version=version, size_bytes=SMALL, scatter=True)
    right = refused = 0
    with lab(tmp_path, spec) as truth:
        truth.mkdir("/vm")
        quiet = b"".join(block("/quiet", number, 0) for number in range(700))
        truth.create_file("/quiet", data=quiet)
        chance = random.Random(version)
        with Host(truth, version) as host, FileDevice(truth.paths[0]) as device:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or right < 10:
                assert host.error is None
                assert time.monotonic() < end + 30, f"{right} reads were right, {refused} refused"
                volume = Volume.open([device])
                still = volume.open_file("/quiet")
                assert read(still, 0, still.size_bytes) == quiet, "a file that nobody touches"
                still.recheck()
                try:
                    paths = [f"/vm/{entry.name}" for entry in volume.entries("/vm")]
                    path = chance.choice([*paths, "/vm/again"])
                    file = volume.open_file(path)
                    assert list(tiled(file.extents(), file.size_bytes)) is not None
                    content = read(file, 0, min(file.size_bytes, 6 * MiB))
                    file.recheck()
                except (VmfsError, Changed):
                    refused += 1
                    continue
                check_blocks(content)
                right += any(content)
        assert host.steps > 20
    print(f"{right} files were read right, {refused} refused, while the host did {host.steps} things")
