"""A cartridge of which a drive complains is written no more, and the catalog says why."""

from __future__ import annotations

import pytest

from tape.devices import EmulatedDevices
from tape.library import Library
from tests.archive.pools import World
from vcbproxy.archive.condition import noting
from vcbproxy.catalog.medium import State


@pytest.fixture
def world(tmp_path):
    return World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8")


def complained(world: World, barcode: str, *flags: int) -> None:
    """Its drive complains while it is used."""
    devices = EmulatedDevices(world.root / "library")
    with (
        world.catalog() as catalog,
        Library(devices, heard=noting(catalog), sleep=lambda _: None) as library,
        library.loaded(barcode) as drive,
    ):
        number = [lun.serial for lun in devices.library.drives].index(drive.identity.serial)
        devices.library.drives[number].alerts |= set(flags)


@pytest.mark.parametrize(
    ("flag", "state", "errors", "says"),
    [
        (7, State.RETIRED, 0, "worn out"),
        (4, State.DAMAGED, 1, "faulty"),
        (52, State.DAMAGED, 1, "system area"),
        (6, State.APPENDABLE, 1, "try another"),
        (10, State.APPENDABLE, 0, ""),
        (21, State.APPENDABLE, 0, ""),
    ],
)
def test_what_a_complaint_makes_of_a_cartridge(world, flag, state, errors, says):
    world.archive("web01")
    complained(world, "TAP001L8", flag)
    with world.catalog() as catalog:
        medium = catalog.media.get("TAP001L8")
    assert (medium.state, medium.errors) == (state, errors)
    assert says in medium.reason


def test_a_retired_cartridge_is_read_and_written_no_more(world):
    point = world.archive("web01")
    complained(world, "TAP001L8", 19)
    assert world.archive("web02").barcodes == ("TAP002L8",)
    assert world.read(point)


def test_a_damaged_one_stays_so_and_strangers_stay_unknown(world):
    world.archive("web01")
    complained(world, "TAP001L8", 4)
    complained(world, "TAP001L8", 7)
    complained(world, "TAP002L8", 4)
    with world.catalog() as catalog:
        assert catalog.media.get("TAP001L8").state is State.DAMAGED
        assert catalog.media.get("TAP002L8") is None


def test_a_catalog_that_cannot_note_it_does_not_hide_what_went_wrong_first(world, caplog):
    devices = EmulatedDevices(world.root / "library")

    def fail(library):
        with library.loaded("TAP001L8"):
            world.break_catalog()
            for lun in devices.library.drives:
                lun.alerts |= {4}
            raise OSError("the source broke")

    with (
        world.catalog() as catalog,
        Library(devices, heard=noting(catalog), sleep=lambda _: None) as library,
        pytest.raises(OSError, match="the source broke"),
    ):
        fail(library)
    assert "could not be noted in the catalog" in caplog.text
