"""Pages read by ourselves are what pyVmomi reads from the same bytes; what is no page is refused, never empty."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import ParseError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.lab.vcenter import wire
from vcbproxy.lab.vcenter.schema import moid, soap, support, vim, vmodl
from vcbproxy.manager import answers

METHOD = "RetrievePropertiesEx"
_Collector = vmodl.query.PropertyCollector


def written(objects: list[Any], token: str | None = None) -> bytes:
    """A page as a manager sends it."""
    request = wire.Request(METHOD, _Collector("propertyCollector", None), {})
    return wire.answer(request, _Collector.RetrieveResult(objects=objects, token=token), wire.NEWEST.schema)


def content(values: dict[str, Any], moref: str = "vm-1", missing: list[Any] | None = None) -> Any:
    properties = [vmodl.DynamicProperty(name=name, val=value) for name, value in values.items()]
    return _Collector.ObjectContent(obj=vim.VirtualMachine(moref, None), propSet=properties, missingSet=missing or [])


def plain(value: Any) -> Any:
    """A value without the types of either reader."""
    match value:
        case support.ManagedObject():
            return (support.GetWsdlName(type(value)), moid(value))
        case list():
            return [plain(item) for item in value]
        case vim.vm.GuestInfo.NicInfo() | answers.Nic():
            return list(value.ipAddress)
        case bool() | int():
            return value
    return str(value)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
morefs = st.from_regex(r"[a-z]{1,8}-[0-9]{1,4}", fullmatch=True)
references = st.one_of(
    morefs.map(lambda moref: vim.Folder(moref, None)),
    morefs.map(lambda moref: vim.VirtualApp(moref, None)),
    morefs.map(lambda moref: vim.Datastore(moref, None)),
)
nics = st.lists(texts, max_size=3).map(
    lambda addresses: vim.vm.GuestInfo.NicInfo(
        ipAddress=addresses,
        connected=True,
        deviceConfigId=4000,
        ipConfig=vim.net.IpConfigInfo(
            ipAddress=[vim.net.IpConfigInfo.IpAddress(ipAddress="not.this", prefixLength=1, state="preferred")]
        ),
    )
)
values = st.one_of(
    texts,
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from(["poweredOn", "suspended"]).map(vim.VirtualMachine.PowerState),
    references,
    st.lists(references, max_size=3).map(support.ManagedObject.Array),
    st.lists(nics, max_size=2).map(vim.vm.GuestInfo.NicInfo.Array),
)
contents = st.builds(content, st.dictionaries(st.sampled_from("abcdef"), values), morefs)


@settings(max_examples=60, deadline=None)
@given(st.lists(contents, min_size=1, max_size=4), st.one_of(st.none(), morefs))
def test_a_page_is_what_pyvmomi_makes_of_it(objects: list[Any], token: str | None) -> None:
    body = written(objects, token)
    theirs = soap.SoapResponseDeserializer(None).Deserialize(body, _Collector.RetrieveResult)
    ours = answers.page(body, METHOD)
    assert ours is not None
    assert ours.token == theirs.token == token
    assert len(ours.objects) == len(theirs.objects)
    for mine, other in zip(ours.objects, theirs.objects, strict=True):
        assert plain(mine.subject) == plain(other.obj)
        assert {name: plain(value) for name, value in mine.values.items()} == {
            found.name: plain(found.val) for found in other.propSet
        }


def test_why_a_property_is_missing() -> None:
    fault = vim.fault.NoPermission(privilegeId="System.Read", msg="Permission was denied.")
    page = answers.page(
        written([content({}, missing=[_Collector.MissingProperty(path="config", fault=fault)])]), METHOD
    )
    assert page is not None
    assert page.objects[0].missing == {"config": "Permission was denied. (NoPermission)"}


def test_an_empty_list_is_none() -> None:
    body = wire.answer(wire.Request(METHOD, _Collector("propertyCollector", None), {}), None, wire.NEWEST.schema)
    assert answers.page(body, METHOD) is None


WHOLE = written([content({"name": "web01"})], "7").decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html><body>The service is being maintained</body></html>",
        WHOLE[: len(WHOLE) // 2],
        WHOLE.replace("RetrievePropertiesExResponse", "RetrievePropertiesResponse"),
        WHOLE.replace("<objects>", "<more/><objects>"),
        WHOLE.replace("<objects>", "<objects><more/>"),
        WHOLE.replace("<name>name</name>", ""),
        WHOLE.replace("<name>name</name>", "<name></name>"),
        WHOLE.replace("vm-1", ""),
        WHOLE.replace(' type="VirtualMachine"', ""),
        WHOLE.replace(' type="VirtualMachine"', ' type="NoSuchThing"'),
        WHOLE.replace("web01", "<part>web01</part>"),
    ],
)
def test_what_is_no_page_is_refused(body: str) -> None:
    assert body != WHOLE
    with pytest.raises((ValueError, LookupError, ParseError)):
        answers.page(body.encode(), METHOD)
