"""Guests write where they may, in a seeded order, and end when they are told to."""

from __future__ import annotations

import random
import threading
import time

import pytest

from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.guest import GuestWriter, burst
from vcbproxy.lab.spec import DatastoreSpec, DiskSpec, LabSpec, Truth, VmSpec
from vcbproxy.units import MiB

SPEC = LabSpec(
    (DatastoreSpec("nfs", 0),),
    (VmSpec("on", "nfs", (DiskSpec(4 * MiB),)), VmSpec("off", "nfs", (DiskSpec(4 * MiB),), powered_on=False)),
    truth=Truth.NONE,
)


@pytest.fixture
def datacenter(tmp_path):
    with Datacenter.create(tmp_path / "lab", SPEC) as datacenter:
        yield datacenter


def content(datacenter, vm):
    return datacenter.machine(vm).guest_read("scsi0-0", 0, 4 * MiB)


def test_only_running_guests_write(datacenter):
    before = {vm: content(datacenter, vm) for vm in ("on", "off")}
    with GuestWriter(datacenter.machines, writes_per_s=1000) as writer:
        end = time.monotonic() + 10
        while writer.writes < 20 and time.monotonic() < end:
            time.sleep(0.01)
    assert content(datacenter, "on") != before["on"]
    assert content(datacenter, "off") == before["off"]
    assert not [thread for thread in threading.enumerate() if "guest" in thread.name]


def test_one_seed_one_history(datacenter):
    burst(datacenter.machine("on"), random.Random(5), 20)
    first = content(datacenter, "on")
    burst(datacenter.machine("on"), random.Random(5), 20)
    assert content(datacenter, "on") == first
    burst(datacenter.machine("on"), random.Random(6), 20)
    assert content(datacenter, "on") != first


def test_trouble_of_a_guest_is_told(datacenter):
    """Its disk's file is gone: whoever stops the writer hears of it, but not instead of an error of his own."""
    machine = datacenter.machine("on")
    machine.chain("scsi0-0").store.delete("/on/on-flat.vmdk")

    def work(then):
        with GuestWriter([machine], writes_per_s=1000) as writer:
            while writer._thread.is_alive():
                time.sleep(0.01)
            then()

    with pytest.raises(FileNotFoundError):
        work(then=lambda: None)
    with pytest.raises(ZeroDivisionError) as caught:
        work(then=lambda: 1 / 0)
    assert "guest writer" in caught.value.__notes__[0]
