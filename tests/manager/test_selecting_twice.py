"""Selectors on two managers: one expression, one meaning, whoever made the inventory and its REST API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.manager.managers import BOTH, Manager, serving
from vcbproxy.errors import UsageError
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.spec import DatastoreSpec, LabSpec, Truth, VmSpec
from vcbproxy.manager import inventory
from vcbproxy.manager.selector import Kind
from vcbproxy.manager.session import Session
from vcbproxy.manager.vm import Connection, Tag

MANAGERS = BOTH
SPEC = LabSpec(
    truth=Truth.NONE,
    datastores=(DatastoreSpec("share", 0), DatastoreSpec("spare", 0)),
    vms=(
        VmSpec("web01", "share", (), inventory_folder="prod/web", tags=("Backup/gold", "Owner/shop"), ip="192.0.2.1"),
        VmSpec("web02", "share", (), inventory_folder="prod/web", powered_on=False, tags=("Backup/none",)),
        VmSpec("db01", "spare", (), inventory_folder="prod", tags=("Backup/gold",)),
        VmSpec("away", "share", (), inventory_folder="prod", connection="disconnected"),
        VmSpec("golden", "share", (), powered_on=False, template=True),
        VmSpec("vCLS-1", "share", (), inventory_folder="vCLS", managed_by="com.vmware.vim.eam/cluster-agent"),
        VmSpec("vCLS-2", "share", (), inventory_folder="vCLS", managed_by="VirtualCenter/vcls-entity"),
        VmSpec("appliance", "share", (), managed_by="com.example.nas/appliance"),
        VmSpec("Zürich & <b>", "share", (), inventory_folder="Büro (alt)", tags=("Ort/Zürich",)),
    ),
)


@pytest.fixture(scope="module")
def running(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    folder = tmp_path_factory.mktemp("lab") / "dc"
    with Datacenter.create(folder, SPEC) as datacenter, serving(which, datacenter) as manager:
        yield manager


def names(session: Session, *texts: str) -> list[str]:
    return [vm.name for vm in inventory.chosen(session, texts)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ["Zürich & <b>", "appliance", "away", "db01", "web01", "web02"]),
        (["any:"], ["Zürich & <b>", "appliance", "away", "db01", "web01", "web02"]),
        (["name:*", "not:name:v*"], ["Zürich & <b>", "appliance", "away", "db01", "golden", "web01", "web02"]),
        (["name:*", "not:any:"], ["golden", "vCLS-1", "vCLS-2"]),
        (["name:web*", "not:name:*2"], ["web01"]),
        (["name:Z*"], ["Zürich & <b>"]),
        (["folder:/DC0/prod"], ["away", "db01"]),
        (["folder:/DC0/prod/**"], ["away", "db01", "web01", "web02"]),
        (["folder:/DC0/Büro*"], ["Zürich & <b>"]),
        (["datastore:spare"], ["db01"]),
        (["powerstate:off and not:name:golden"], ["web02"]),
        (["ipaddr:192.0.2.1"], ["web01"]),
        (["tag:gold"], ["db01", "web01"]),
        (["tag:Backup/*", "not:tag:none"], ["db01", "web01"]),
        (["tag:Ort/Zürich"], ["Zürich & <b>"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_what_selectors_mean(session: Session, texts: list[str], expected: list[str]) -> None:
    assert names(session, *texts) == expected


@pytest.mark.parametrize("fact", ["moref", "uuid", "instance_uuid"])
def test_an_identity_means_one_vm(session: Session, fact: str) -> None:
    for vm in inventory.vms(session):
        assert names(session, str(getattr(vm, fact))) == [vm.name]


def test_what_is_listed(session: Session) -> None:
    by_name = {vm.name: vm for vm in inventory.vms(session, frozenset(Kind))}
    assert by_name["away"].connection is Connection.DISCONNECTED
    assert by_name["golden"].template
    assert by_name["web01"].folder == ("DC0", "prod", "web")
    assert by_name["web01"].tags == {Tag("Backup", "gold"), Tag("Owner", "shop")}
    assert by_name["Zürich & <b>"].datastores == ("share",)


def test_a_tag_that_is_nowhere_is_an_error(session: Session) -> None:
    with pytest.raises(UsageError):
        names(session, "tag:silver")
