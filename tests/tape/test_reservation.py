"""Two hosts at one drive: the second is kept out, and told by whom."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import pytest

from tape.devices import EmulatedDevices
from tape.drive import TapeDrive
from tape.elements import ElementKind
from tape.emulator.library import VirtualLibrary
from tape.errors import Reserved, UnitAttention
from tape.library import Library
from tape.scsi import cdb
from tape.scsi.reservation import reserved
from tape.scsi.reservationkey import holder, key_of, told

ONE = "VLIB0001-D1"


@pytest.fixture
def devices(tmp_path: Path) -> EmulatedDevices:
    VirtualLibrary.create(tmp_path / "library", barcodes=("TAP001L8",))
    return EmulatedDevices(tmp_path / "library")


def other_host(devices: EmulatedDevices) -> TapeDrive:
    """Its session begins before the drive is reserved: later it would be refused at once."""
    return TapeDrive(devices.library.drive_transport(0), sleep=lambda _: None)


def test_the_second_host_is_kept_out_and_told_by_whom(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library:
        with library.loaded("TAP001L8") as drive:
            drive.write(b"mine")
            with pytest.raises(Reserved, match=r"by another host, key 70726f7879\w{6} \(proxy.*\); release it"):
                theirs.unit.attend()
            with pytest.raises(Reserved):
                other_host(devices)
            drive.write(b"still mine")
        theirs.unit.attend()
        theirs.rewind()  # it is let go with the lease


def test_a_host_that_has_it_keeps_us_out_and_nothing_is_moved(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library:
        with reserved(theirs.unit, key_of("proxy02")):
            with pytest.raises(Reserved, match="by another host"), library.loaded("TAP001L8", among=[ONE]):
                pass
            assert library.inventory().where("TAP001L8").kind is ElementKind.SLOT
        with library.loaded("TAP001L8", among=[ONE]):
            pass


def test_another_drive_is_taken_where_another_host_has_one(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with (
        Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library,
        reserved(theirs.unit, key_of("proxy02")),
        library.loaded("TAP001L8") as drive,
    ):
        assert drive.identity.serial == "VLIB0001-D2"


def test_it_is_let_go_when_the_work_fails(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    library = Library(devices, reserve_as="proxy01", sleep=lambda _: None)
    with suppress(RuntimeError), library.loaded("TAP001L8"):
        raise RuntimeError("the work")
    assert holder(theirs.unit.transport) is None
    library.close()


def test_a_host_that_died_holding_it_is_known_by_its_key(devices: EmulatedDevices) -> None:
    dead = other_host(devices)
    with closing(devices), suppress(RuntimeError), reserved(dead.unit, key_of("proxy02")):
        devices.library.drives[0].leave(dead.unit.transport._session)  # type: ignore[attr-defined]
        assert holder(devices.library.drive_transport(0)) == key_of("proxy02")


def test_what_a_power_cut_has_cost_is_taken_again(devices: EmulatedDevices) -> None:
    """The drive forgets whose it is; whoever comes first has it then."""
    theirs = other_host(devices)
    with Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library:
        with library.loaded("TAP001L8", among=[ONE]) as drive:
            drive.rewind()
            devices.library.drives[0].power_cut()
            assert holder(theirs.unit.transport) is None
            drive.write(b"goes on")
            assert holder(theirs.unit.transport) == key_of("proxy01")
            with pytest.raises(Reserved):
                theirs.rewind()
        theirs.rewind()


def test_a_drive_that_another_host_took_after_a_power_cut_is_not_written_to(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library:
        with library.loaded("TAP001L8", among=[ONE]) as drive:
            drive.rewind()
            devices.library.drives[0].power_cut()
            with reserved(theirs.unit, key_of("proxy02")), pytest.raises(Reserved, match=r"\(proxy.*\); release it"):
                drive.write(b"not there")
        assert devices.library.drives[0].cartridge is not None
        assert devices.library.drives[0].cartridge.tracks[0].end == 0


def test_a_power_cut_after_the_last_command_is_no_trouble(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library:
        with library.drive(ONE):
            devices.library.drives[0].power_cut()
        assert holder(theirs.unit.transport) is None


def test_a_host_whose_reservation_was_broken_writes_no_more(devices: EmulatedDevices) -> None:
    """By somebody who took it for dead."""
    theirs = other_host(devices)
    with (
        Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library,
        library.loaded("TAP001L8", among=[ONE]) as drive,
    ):
        drive.rewind()
        broken_by(theirs)
        with pytest.raises(Reserved, match="by another host"):
            drive.write(b"not there")
        assert holder(theirs.unit.transport) == key_of("proxy02")
        reserve_out(theirs, 2, key_of("proxy02"))


def broken_by(theirs: TapeDrive) -> None:
    """As docs/tape.md says how: register, preempt."""
    reserve_out(theirs, 6, bytes(8), key_of("proxy02"))
    reserve_out(theirs, 4, key_of("proxy02"), key_of("proxy01"))


def reserve_out(theirs: TapeDrive, action: int, key: bytes, other: bytes = bytes(8)) -> None:
    command = cdb.persistent_reserve_out(action, 3, 24)
    for _ in range(3):  # what has happened to the drive is told first
        with suppress(UnitAttention):
            theirs.unit.run(command, "break", data_out=key + other + bytes(8))
            return


def test_a_reservation_that_was_broken_and_given_back_is_taken_again(devices: EmulatedDevices) -> None:
    theirs = other_host(devices)
    with (
        Library(devices, reserve_as="proxy01", sleep=lambda _: None) as library,
        library.loaded("TAP001L8", among=[ONE]) as drive,
    ):
        drive.rewind()
        broken_by(theirs)
        reserve_out(theirs, 2, key_of("proxy02"))
        drive.write(b"goes on")
        assert holder(theirs.unit.transport) == key_of("proxy01")


@pytest.mark.parametrize(
    ("key", "words"),
    [(b"proxy\x00\x01\x02", "key 70726f7879000102 (proxy)"), (bytes(8), "key 0000000000000000")],
)
def test_a_key_in_words(key: bytes, words: str) -> None:
    assert told(key) == words


def test_hosts_have_keys_of_their_own() -> None:
    keys = {key_of(name) for name in ("proxy01", "proxy02", "p", "backup.example.com", "bäckup")}
    assert len(keys) == 5
    assert {len(key) for key in keys} == {8}
