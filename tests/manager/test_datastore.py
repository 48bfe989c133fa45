"""Datastore paths: read, written, and not followed out of their datastore."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.errors import ManagerError
from vcbproxy.manager.datastore import DatastorePath

NAMES = st.text(st.characters(exclude_characters="[]\0/", exclude_categories=["Cs"]), min_size=1, max_size=20)
PARTS = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(NAMES, st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4))
def test_what_is_written_is_read_back(datastore: str, parts: list[str]) -> None:
    path = DatastorePath(datastore, "/".join(parts).lstrip(" ") or "x")
    assert DatastorePath.parse(str(path)) == path


@pytest.mark.parametrize(
    ("text", "datastore", "path"),
    [
        ("[san0] web01/web01.vmdk", "san0", "web01/web01.vmdk"),
        ("[san0]web01/web01.vmdk", "san0", "web01/web01.vmdk"),
        ("[my san (old)] a b/c d-000001.vmdk", "my san (old)", "a b/c d-000001.vmdk"),
        ("[san0] web01/", "san0", "web01"),
        ("[san0] ", "san0", ""),
        ("[san0] dir/[odd] name.vmdk", "san0", "dir/[odd] name.vmdk"),
    ],
)
def test_paths_as_managers_write_them(text: str, datastore: str, path: str) -> None:
    assert DatastorePath.parse(text) == DatastorePath(datastore, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web01/web01.vmdk",
        "[] /vmfs/volumes/x",
        "[san0",
        "[san0] ../../etc/shadow",
        "[san0] a/../../b",
        "[san0] /etc",
        "[a\0] b",
    ],
)
def test_what_is_no_path_or_leads_out_is_refused(text: str) -> None:
    with pytest.raises(ManagerError):
        DatastorePath.parse(text)


def test_neighbours() -> None:
    vmx = DatastorePath.parse("[san0] web01/web01.vmx")
    assert vmx.beside("web01.nvram") == DatastorePath("san0", "web01/web01.nvram")
    assert vmx.directory == DatastorePath("san0", "web01")
    assert vmx.name == "web01.vmx"
    for name in ("", ".", "..", "../x", "a/b"):
        with pytest.raises(ManagerError):
            vmx.beside(name)
