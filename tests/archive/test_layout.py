"""Names on cartridges, which any system has to bear that mounts them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.archive import layout


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("web01", "web01"),
        ("Müller & Söhne (alt)", "Müller & Söhne (alt)"),
        ("a/b:c*?", "a_b_c__"),
        ("ends with a dot.", "ends with a dot"),
        ("..", "_"),
        ("", "_"),
        ("\x07bell", "_bell"),
        ("con", "_con"),
        ("Nul.vmx", "_Nul.vmx"),
        ("COM1", "_COM1"),
        ("lpt9 .log", "_lpt9 .log"),
        ("console", "console"),
        ("com10", "com10"),
    ],
)
def test_what_other_systems_cannot_bear_is_replaced(name: str, becomes: str) -> None:
    assert layout.safe_name(name) == becomes


@given(st.text() | st.from_regex(r"(?i)(con|com1|\\.)[ .a]{150,300}", fullmatch=True))
def test_any_name_becomes_one_that_every_system_bears(name: str) -> None:
    safe = layout.safe_name(name)
    assert 0 < len(safe) <= 200
    assert not re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', safe)
    assert safe[-1] not in " ."
    assert layout.safe_name(safe) == safe, "a name that lies on a cartridge is taken as it is"


def test_a_restore_points_folder_has_no_colon() -> None:
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)
    assert layout.folder("aux", noon) == "/_aux/20261127T120000Z"
