"""References: inside the datastore, or not at all."""

import pytest

from vcbproxy.errors import VmdkError
from vcbproxy.vmdk.paths import resolve_inside

NAMES = ("4f1c2d3e-5a6b7c8d-9e0f-001122334455", "san1")


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("web01.vmdk", "web01/web01.vmdk"),
        ("./web01.vmdk", "web01/web01.vmdk"),
        ("../template/base.vmdk", "template/base.vmdk"),
        ("../web01/web01.vmdk", "web01/web01.vmdk"),
        ("/vmfs/volumes/san1/template/base.vmdk", "template/base.vmdk"),
        ("/vmfs/volumes/4f1c2d3e-5a6b7c8d-9e0f-001122334455/a/b.vmdk", "a/b.vmdk"),
        ("/vmfs/volumes/san1//a/../b.vmdk", "b.vmdk"),
        ("..vmdk", "web01/..vmdk"),
        ("[san1] x.vmdk", "web01/[san1] x.vmdk"),
    ],
)
def test_follows(reference, path):
    assert resolve_inside("web01/web01-000001.vmdk", reference, NAMES) == path


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("../../etc/shadow", "leaves the datastore"),
        ("../../san2/a/b.vmdk", "leaves the datastore"),
        ("/vmfs/volumes/san1/../san2/b.vmdk", "leaves the datastore"),
        ("/vmfs/volumes/san2/a/b.vmdk", "another datastore (san2)"),
        ("/vmfs/volumes/../volumes/san1/b.vmdk", "another datastore"),
        ("/etc/shadow", "not below /vmfs/volumes"),
        ("/vmfs/devices/disks/naa.6", "not below /vmfs/volumes"),
        ("/vmfs/volumes/san1", "not below /vmfs/volumes"),
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("a\nb", "not a path"),
        ("x" * 5000, "not a path"),
        ("..", "is a folder"),
        ("../", "is a folder"),
        ("sub/..", "is a folder"),
    ],
)
def test_refuses(reference, reason):
    with pytest.raises(VmdkError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        resolve_inside("web01/web01-000001.vmdk", reference, NAMES)
