"""Small lab volumes for the reader's tests, and the ways to look at them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.vmfs.overlay import Overlay
from vcbproxy.device import FileDevice
from vcbproxy.lab.vmfs import LabVolume, VolumeSpec
from vcbproxy.units import MiB
from vcbproxy.vmfs.volume import Volume

SMALL = 256 * MiB


@contextlib.contextmanager
def lab(folder: Path, spec: VolumeSpec, devices: int = 1) -> Iterator[LabVolume]:
    """A fresh volume in a folder."""
    volume = LabVolume.create([folder / f"lun{number}.img" for number in range(devices)], spec)
    try:
        yield volume
    finally:
        volume.close()


@contextlib.contextmanager
def opened(volume: LabVolume) -> Iterator[Volume]:
    """The reader on a lab volume, its devices given in the wrong order."""
    with contextlib.ExitStack() as stack:
        yield Volume.open([stack.enter_context(FileDevice(path)) for path in reversed(volume.paths)])


@contextlib.contextmanager
def overlaid(volume: LabVolume) -> Iterator[tuple[Volume, Overlay]]:
    """The reader on a one-device lab volume, over an overlay that can damage it."""
    [path] = volume.paths
    with FileDevice(path) as device:
        overlay = Overlay(device)
        yield Volume.open([overlay]), overlay
