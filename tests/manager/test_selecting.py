"""Selecting on the wire: what is asked of the manager, what it costs, and what becomes of VMs it cannot tell of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests.manager.managers import address
from vcbproxy.clock import ManualClock
from vcbproxy.errors import CredentialsError, ManagerError, UsageError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import CrowdSpec, DatastoreSpec, LabSpec, Truth, VmSpec
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.lab.vcenter.faults import Trouble, What, Where
from vcbproxy.lab.vcenter.persona import Persona
from vcbproxy.lab.vcenter.release import RELEASES
from vcbproxy.lab.vcenter.rest import LEGACY, MODERN
from vcbproxy.lab.vcenter.schema import vim, vmodl
from vcbproxy.manager import inventory, overview
from vcbproxy.manager.session import Session, connect
from vcbproxy.manager.vm import Connection, Tag

CROWD = 501  # one more than a page
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("share", 0), DatastoreSpec("spare", 0)),
    vms=(
        VmSpec("web01", "share", (), inventory_folder="prod/web", tags=("Backup/gold", "Owner/shop")),
        VmSpec("web02", "share", (), inventory_folder="prod/web", powered_on=False, tags=("Backup/none",)),
        VmSpec("db01", "spare", (), inventory_folder="prod", tags=("Backup/gold",)),
        VmSpec("shop", "share", (), inventory_folder="prod", vapp="stack"),
        VmSpec("web01", "share", (), datacenter="DC1"),
        VmSpec("gone", "share", (), inventory_folder="prod", connection="orphaned", tags=("Backup/gold",)),
        VmSpec("away", "share", (), inventory_folder="prod", connection="disconnected"),
        VmSpec("golden", "share", (), inventory_folder="prod", template=True),
        VmSpec("half%2fhalf", "share", (), inventory_folder="odd%2ffolder"),
    ),
    crowds=(CrowdSpec(CROWD, "spare", tags=("Crowd/all",)),),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    with Datacenter.create(tmp_path_factory.mktemp("lab") / "dc", SPEC) as datacenter, LabServer(datacenter) as server:
        yield server


@pytest.fixture
def server(running: LabServer) -> Iterator[LabServer]:
    running.faults.clear()
    running.calls.clear()
    running.centre.rest.dialects = {MODERN, LEGACY}
    yield running
    assert running.centre.rest.sessions == 0, "a session of the REST API was left open"


@pytest.fixture
def session(server: LabServer, clock: ManualClock) -> Iterator[Session]:
    with connect(address(server), server.username, server.password, clock=clock) as opened:
        yield opened


def names(session: Session, *texts: str) -> list[str]:
    return [vm.name for vm in inventory.chosen(session, texts)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["folder:/DC0/prod"], ["away", "db01", "golden", "gone"]),
        (["folder:/DC0/prod/** and any:"], ["away", "db01", "gone", "shop", "web01", "web02"]),
        (["folder:/DC0/prod/stack"], ["shop"]),
        (["folder:/DC1"], ["web01"]),
        (["name:web01"], ["web01", "web01"]),
        (["folder:/DC0/** and name:web*"], ["web01", "web02"]),
        ([r"folder:/DC0/odd\/folder"], ["half/half"]),
        (["half/half"], ["half/half"]),
        (["tag:gold"], ["db01", "gone", "web01"]),
        (["tag:Backup/*", "not:tag:none"], ["db01", "gone", "web01"]),
        (["datastore:spare and name:d*"], ["db01"]),
        (["powerstate:off and folder:prod/**"], ["web02"]),
        (["name:go*"], ["golden", "gone"]),
        (["ipaddr:10.0.0.7"], ["crowd-00007"]),
        (["fe80::7"], ["crowd-00007"]),
        (["folder:/DC0/crowd/019 and name:*9"], [f"crowd-{n:05}" for n in range(19, CROWD, 20)]),
    ],
)
def test_what_selectors_mean(session: Session, texts: list[str], expected: list[str]) -> None:
    assert names(session, *texts) == expected


def test_all_but_the_templates(session: Session) -> None:
    everything = {vm.moref for vm in inventory.vms(session)}
    assert len(everything) == CROWD + len(SPEC.vms)
    [golden] = inventory.chosen(session, ["name:*", "not:any:"])
    assert golden.template
    for texts in ([], ["any:"]):
        assert {vm.moref for vm in inventory.chosen(session, texts)} == everything - {golden.moref}


def test_a_lost_vm_is_listed_and_told_why_it_cannot_be_backed_up(session: Session) -> None:
    [gone] = inventory.chosen(session, ["gone"], inventory.LISTED)
    assert gone.connection is Connection.ORPHANED
    assert (gone.uuid, gone.vmx, gone.host_name, gone.template) == (None, None, None, False)
    assert gone.folder == ("DC0", "prod")
    with pytest.raises(
        ManagerError, match=r"gone \(vm-25\) cannot be backed up: it is orphaned; no host has it any more"
    ):
        inventory.get(session, gone.moref)


def test_a_folder_that_is_not_shown_is_doubt_and_no_reason_to_list_nobody(server: LabServer, session: Session) -> None:
    """With rights on the VMs alone: all are listed, and a folder's selector is refused with what to do."""
    web = inventory.find(session, "name:web01 and folder:web").moref
    home = server.centre.tree.home("DC0", "prod").moref
    server.centre.permissions.take("System.View", home)
    try:
        listed = {vm.moref: vm for vm in inventory.vms(session)}
        assert len(listed) == CROWD + len(SPEC.vms)
        assert listed[web].folder is None
        assert "web01" in names(session, "folder:/DC0/crowd/**"), "better one too many"
        with pytest.raises(
            UsageError, match=r"no virtual machine 'folder:/DC0/prod'.* has this user the role Read-only"
        ):
            names(session, "folder:/DC0/prod")
    finally:
        server.centre.permissions.restore()


@pytest.mark.parametrize("text", ["name:*", "web01", "any: and powerstate:on", "folder:/DC0/** and datastore:*"])
def test_the_calls_grow_with_pages_not_with_vms(server: LabServer, session: Session, text: str) -> None:
    with pytest.raises(UsageError, match="stands for") if text == "web01" else nullcontext():
        inventory.chosen(session, [text])
    calls = {call: count for call, count in server.calls.items() if call not in ("RetrieveServiceContent", "Login")}
    assert calls == {
        "CreateContainerView": 1,
        "RetrievePropertiesEx": 1,
        "ContinueRetrievePropertiesEx": CROWD // 500,
        "DestroyView": 1,
    }, "no call a VM, none of the REST API"


@pytest.mark.parametrize("page_max", [1, 7, 100])
def test_pages_of_any_size_lose_nobody(running: LabServer, session: Session, page_max: int) -> None:
    before, running.centre.collectors.page_max = running.centre.collectors.page_max, page_max
    try:
        assert len(inventory.vms(session)) == CROWD + len(SPEC.vms)
    finally:
        running.centre.collectors.page_max = before


@pytest.mark.parametrize("after", [0, 3])
def test_a_session_that_ends_between_two_pages_loses_nobody(
    running: LabServer, server: LabServer, session: Session, after: int
) -> None:
    """The token of the next page dies with the session: the whole list is read anew."""
    before, running.centre.collectors.page_max = running.centre.collectors.page_max, 100
    server.faults.order(Trouble("ContinueRetrievePropertiesEx", What.EXPIRE, after=after))
    try:
        assert len(inventory.vms(session)) == CROWD + len(SPEC.vms)
        assert server.calls["RetrievePropertiesEx"] == 2
    finally:
        running.centre.collectors.page_max = before


@pytest.mark.parametrize("call", ["RetrievePropertiesEx", "ContinueRetrievePropertiesEx"])
def test_a_vm_that_goes_while_all_are_listed_costs_nobody_else(server: LabServer, session: Session, call: str) -> None:
    gone = vmodl.fault.ManagedObjectNotFound(
        obj=vim.VirtualMachine("vm-1", None), msg="The object has already been deleted"
    )
    server.faults.order(Trouble(call, What.FAULT, fault=lambda: gone, times=2))
    assert len(inventory.vms(session)) == CROWD + len(SPEC.vms)


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("listed", [inventory.vms, overview.leftovers])
def test_an_answer_that_is_none_is_not_the_end_of_the_list(
    server: LabServer, session: Session, listed: Callable[[Session], object], page: int
) -> None:
    """A page of a proxy's, well-formed and with status 200, is not "no more VMs"."""
    call = "RetrievePropertiesEx" if page == 1 else "ContinueRetrievePropertiesEx"
    server.instead[call] = b"<html><body>Back in five minutes.</body></html>"
    try:
        with pytest.raises(ManagerError, match="makes no sense"):
            listed(session)
    finally:
        server.instead.clear()


@pytest.mark.parametrize("listed", [inventory.vms, overview.leftovers])
def test_a_page_that_was_announced_and_is_empty_is_not_the_end(
    server: LabServer, session: Session, listed: Callable[[Session], object]
) -> None:
    empty = b'<ContinueRetrievePropertiesExResponse xmlns="urn:vim25"/>'
    envelope = b'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>%s</e:Body></e:Envelope>'
    server.instead["ContinueRetrievePropertiesEx"] = envelope % empty
    try:
        with pytest.raises(ManagerError, match="breaks off"):
            listed(session)
    finally:
        server.instead.clear()


@pytest.mark.parametrize("dialects", [{MODERN, LEGACY}, {LEGACY}, {MODERN}])
def test_tags_are_told_in_either_dialect(server: LabServer, session: Session, dialects: set[str]) -> None:
    server.centre.rest.dialects = dialects
    [web01] = inventory.chosen(session, ["tag:shop"])
    assert web01.tags == {Tag("Backup", "gold"), Tag("Owner", "shop")}
    tags = len(server.centre.rest.tags)
    assert server.calls["GET tagging/tag"] == 1 + tags
    assert server.calls["POST tagging/tag-association"] == 1
    assert server.calls["DELETE session"] == 1


def test_a_manager_without_that_api_says_so(server: LabServer, session: Session) -> None:
    server.centre.rest.dialects = set()
    with pytest.raises(ManagerError, match=r"no vSphere Automation API there.*select by name: or folder: instead"):
        names(session, "tag:gold")


@pytest.mark.parametrize(
    ("persona", "dialects"),
    [(Persona(release=RELEASES["6.5"]), {LEGACY}), (Persona(release=RELEASES["7.0"]), {MODERN, LEGACY})],
)
def test_tags_of_older_vcenters(tmp_path: Path, persona: Persona, dialects: set[str]) -> None:
    with served_as(persona, tmp_path) as (server, session):
        assert server.centre.rest.dialects == dialects
        assert names(session, "tag:Backup/gold and folder:/DC0/prod") == ["db01"]


def test_a_host_has_no_tags_and_folders_all_the_same(tmp_path: Path) -> None:
    with served_as(Persona(esxi=True), tmp_path) as (server, session):
        with pytest.raises(UsageError, match=r"is an ESXi host, and tags are vCenter's: select by name: or datastore:"):
            names(session, "tag:gold")
        assert server.calls["POST session"] == 0
        assert names(session, "folder:/DC0/** and datastore:spare") == ["db01"]


@contextmanager
def served_as(persona: Persona, folder: Path) -> Iterator[tuple[LabServer, Session]]:
    spec = replace(SPEC, vms=SPEC.vms[:3], crowds=())
    with (
        Datacenter.create(folder / "dc", spec) as datacenter,
        LabServer(datacenter, persona=persona) as server,
        connect(address(server), server.username, server.password) as session,
    ):
        yield server, session


def test_a_tag_that_is_nowhere_is_an_error(session: Session) -> None:
    with pytest.raises(UsageError, match=r"no virtual machine 'tag:Backup/glod'; there is Backup/gold"):
        names(session, "tag:Backup/glod")


@pytest.mark.parametrize("what", [What.DROP, What.UNAVAILABLE])
@pytest.mark.parametrize("call", ["POST session", "GET tagging/tag", "POST tagging/tag-association"])
def test_a_broken_connection_is_taken_up_again(server: LabServer, session: Session, call: str, what: What) -> None:
    server.faults.order(Trouble(call, what, times=2))
    assert names(session, "tag:gold") == ["db01", "gone", "web01"]
    server.centre.rest.forget()  # whose connection breaks cannot log out


def test_an_answer_that_breaks_off_is_no_shorter_answer(server: LabServer, session: Session) -> None:
    server.faults.order(Trouble("POST tagging/tag-association", What.BREAK, Where.ANSWER, times=2))
    assert names(session, "tag:gold") == ["db01", "gone", "web01"]
    server.centre.rest.forget()


def test_a_session_that_ends_again_and_again_is_an_error_in_the_end(server: LabServer, session: Session) -> None:
    server.centre.rest.calls_max = 3
    try:
        with pytest.raises(ManagerError, match="the session ended"):
            names(session, "tag:gold")
        assert server.calls["POST session"] > 3
    finally:
        server.centre.rest.calls_max = 0


def test_a_tag_that_is_deleted_meanwhile_is_passed_over(server: LabServer, session: Session) -> None:
    server.centre.rest.listed_too.append("urn:vmomi:InventoryServiceTag:gone:GLOBAL")
    try:
        assert names(session, "tag:gold") == ["db01", "gone", "web01"]
    finally:
        server.centre.rest.listed_too.clear()


def test_another_password_there_is_the_operators_to_mend(server: LabServer) -> None:
    with connect(address(server), server.username, server.password) as session:
        server.centre.rest.refuse_logins = True
        try:
            with pytest.raises(CredentialsError, match="refused the login: Unable to authenticate user"):
                names(session, "tag:gold")
        finally:
            server.centre.rest.refuse_logins = False


@pytest.mark.parametrize(
    "answer",
    [b"", b"[", b"{}", b'{"value": 3}', b'"tag"', b'[{"tag_id": "x", "object_ids": []}]', b'[{"object_ids": 1}]'],
)
def test_an_answer_without_sense_is_an_error(server: LabServer, session: Session, answer: bytes) -> None:
    server.centre.rest.instead["POST tagging/tag-association"] = answer
    try:
        with pytest.raises(ManagerError, match="makes no sense"):
            names(session, "tag:gold")
    finally:
        server.centre.rest.instead.clear()
        server.centre.rest.forget()
