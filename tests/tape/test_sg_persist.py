"""Stock sg_persist on drives that we have reserved: the recipe of docs/tape.md breaks what a dead host has left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.devices import at_portal
from tape.drive import TapeDrive
from tape.errors import Reserved
from tape.library import Library
from tape.locks import LockFolder
from tape.scsi import cdb
from tape.scsi.iscsi import IscsiTransport
from tape.scsi.reservationkey import holder, key_of
from tests.program import ROOT
from tests.tape.libraries import Served, served, small_library
from tests.tape.shim import Shim

pytestmark = pytest.mark.real

DRIVE = "/dev/vsg/1"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Served]:
    with served(small_library(tmp_path / "library")) as made:
        yield made


def recipe(key: bytes) -> list[list[str]]:
    """What the page tells people to do."""
    page = (ROOT / "docs" / "tape.md").read_text()
    lines = [line.removeprefix("# sg_persist ") for line in page.splitlines() if line.startswith("# sg_persist")]
    return [line.replace("/dev/sg3", DRIVE).replace("70726f7879ab12cd", key.hex()).split() for line in lines]


def test_a_dead_hosts_reservation_is_broken_as_the_page_says(bench: Served, sgshim: Path, tmp_path: Path) -> None:
    url = bench.target.url(0).rpartition("/")[0]
    tool = Shim(sgshim, url, nexus=1)
    key = key_of("proxy02")
    dead = TapeDrive(IscsiTransport(bench.target.url(1)))
    for action, now, then in ((6, bytes(8), key), (1, key, bytes(8))):  # register, reserve
        dead.unit.run(cdb.persistent_reserve_out(action, 3, 24), "reserve", data_out=now + then + bytes(8))
    dead.close()  # the host dies here
    told = tool("sg_persist", "--in", "--read-reservation", DRIVE).stdout
    assert f"Key=0x{key.hex()}" in told
    assert "Exclusive Access" in told
    library = Library(at_portal(url, LockFolder(tmp_path)))
    with pytest.raises(Reserved, match=key.hex()), library.drive("VLIB0001-D1"):
        pass
    commands = recipe(key)
    assert len(commands) == 3
    for command in commands:
        tool("sg_persist", *command)
    with library.drive("VLIB0001-D1") as ours:
        assert holder(ours.unit.transport) is None
    library.close()
