"""What several of the reader's tests start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmfs.labs import SMALL, lab, overlaid
from tests.vmfs.patient import DATA, PATH, Patient
from vcbproxy.lab.vmfs import Allocation, Layout, VolumeSpec
from vcbproxy.units import MiB


@pytest.fixture(params=[3, 5, 6], ids=lambda version: f"vmfs{version}")
def patient(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Patient]:
    with lab(tmp_path, VolumeSpec(version=request.param, size_bytes=SMALL)) as truth:
        truth.mkdir("/vm")
        truth.create_file(PATH, 8 * MiB, layout=Layout.BLOCKS, allocation=Allocation.EAGER)
        with overlaid(truth) as (volume, overlay):
            inode = volume.tree().find(PATH)
            yield Patient(truth, volume, overlay, DATA + inode.offset)
