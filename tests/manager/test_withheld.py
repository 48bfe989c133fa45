"""Properties that a manager does not hand out: it lists the object, and says of each path why that is missing.

So it is for a user who may view an object and not read it, and for objects that are broken. Neither manager here does
that by itself; a server in between takes the properties out of its answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.manager.managers import BOTH, Manager, Post, diverted, forwarded, https
from vcbproxy.errors import ManagerError
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.datastore import DatastoreKind
from vcbproxy.manager.disk import refusal
from vcbproxy.manager.session import Session

MANAGERS = BOTH
WHY = (
    '<missingSet><path>{}</path><fault><fault xsi:type="NoPermission"><object type="Folder">group-d1</object>'
    "<privilegeId>System.Read</privilegeId></fault><localizedMessage>Permission was denied.</localizedMessage></fault>"
    "</missingSet>"
)


@contextmanager
def withheld(server: Manager, session: Session, *paths: str) -> Iterator[None]:
    """Let the manager not tell these."""
    taken: list[str] = []

    def answer(post: Post) -> tuple[int, bytes]:
        status, body = forwarded(server, post)
        text = body.decode()
        for path in paths:
            told = rf"<propSet><name>{re.escape(path)}</name>.*?</propSet>"
            text, count = re.subn(told, WHY.format(path), text, flags=re.DOTALL)
            taken.extend([path] * count)
        return status, text.encode()

    with https(server.ca_file.parent, answer) as port, diverted(session, port):
        yield
    assert set(taken) == set(paths), "the test took nothing away"


def test_a_datastore_that_is_not_told_of_is_no_hindrance(server: Manager, session: Session) -> None:
    disk = inventory.find(session, "vm1").disks[0]
    with withheld(server, session, "summary", "info"):
        (ds1,) = inventory.datastores(session)
    assert (ds1.name, ds1.kind, ds1.accessible, ds1.extents) == ("ds1", DatastoreKind.UNTOLD, False, ())
    assert "does not tell what it is" in str(refusal(disk, ds1))


def test_a_vm_whose_configuration_is_not_told(server: Manager, session: Session) -> None:
    moref = inventory.find(session, "vm1").moref
    with (
        withheld(server, session, "config"),
        pytest.raises(ManagerError, match=r"does not tell config: the privilege System\.Read is missing"),
    ):
        inventory.get(session, moref)


def test_a_vm_of_which_little_is_told_is_listed(server: Manager, session: Session) -> None:
    paths = ("config.uuid", "config.template", "runtime.powerState", "guest.ipAddress", "config.files.vmPathName")
    with withheld(server, session, *paths):
        (vm1,) = inventory.vms(session)
    assert vm1.name == "vm1"
    assert (vm1.uuid, vm1.power_state, vm1.vmx, vm1.template) == (None, None, None, False)


def test_a_vm_that_does_not_tell_its_name_goes_by_its_moref(server: Manager, session: Session) -> None:
    (known,) = inventory.vms(session)
    with withheld(server, session, "name"):
        (vm1,) = inventory.vms(session, frozenset())
    assert vm1.name == known.moref


def test_snapshots_that_are_not_told_of_are_not_taken_for_none(server: Manager, session: Session) -> None:
    with withheld(server, session, "snapshot"):
        (left,) = overview.leftovers(session)
    assert left.untold is not None
    assert "System.Read" in left.untold
