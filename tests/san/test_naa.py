"""Every spelling of one identity meets in one key; different LUNs never do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcbproxy.san import naa

LONG = "600144f0000000000000000000000009"
SHORT = "5000c500a1b2c3d4"


@pytest.mark.parametrize("bare", [LONG, SHORT])
@pytest.mark.parametrize(
    "spelling", ["naa.{}", "0x{}", "3{}", "wwn-0x{}", "scsi-3{}", "dm-uuid-mpath-3{}", "mpath-3{}", " {} "]
)
def test_spellings_of_one_lun_meet(bare: str, spelling: str) -> None:
    assert naa.bare(spelling.format(bare)) == bare
    assert naa.bare(spelling.format(bare).upper()) == bare


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("eui.0025385b61500a2f", "eui.0025385b61500a2f"),
        ("20025385b61500a2f", "eui.0025385b61500a2f"),
        ("nvme-eui.0025385b61500a2f", "eui.0025385b61500a2f"),
        ("uuid.11112222-3333-4444-5555-666677778888", "uuid.11112222-3333-4444-5555-666677778888"),
        ("t10.ATA_____QEMU_HARDDISK_________QM00001_", "t10.ata_qemu_harddisk_qm00001"),
        ("t10.ATA     QEMU HARDDISK         QM00001 ", "t10.ata_qemu_harddisk_qm00001"),
        ("scsi-1ATA_QEMU_HARDDISK_QM00001", "t10.ata_qemu_harddisk_qm00001"),
        ("lab-lun-7", "lab-lun-7"),
        ("", ""),
    ],
)
def test_other_kinds_of_names_keep_their_kind(text: str, key: str) -> None:
    assert naa.bare(text) == key


def test_an_naa_name_of_type_3_keeps_its_first_digit() -> None:
    assert naa.bare("3000c500a1b2c3d4") == "3000c500a1b2c3d4"
    assert naa.bare("33000c500a1b2c3d4") == "3000c500a1b2c3d4"


def test_half_a_name_is_not_the_lun() -> None:
    assert naa.bare("0x600144f000000000") != naa.bare(f"0x{LONG}")


def test_canonical_is_what_the_manager_prints() -> None:
    assert naa.canonical(LONG) == f"naa.{LONG}"
    assert naa.canonical("eui.0025385b61500a2f") == "eui.0025385b61500a2f"
    assert naa.canonical("lab-lun-7") == "lab-lun-7"
    assert naa.canonical("") == ""


HEX = st.text("0123456789abcdef", min_size=15, max_size=15)
NAA = st.one_of(
    st.tuples(st.sampled_from("2356"), HEX).map("".join),
    st.tuples(st.just("6"), HEX, HEX, st.just("a")).map("".join),
)


@settings(max_examples=200, deadline=None)
@given(one=NAA, other=NAA, prefix=st.sampled_from(["naa.", "0x", "3", "wwn-0x", "scsi-3", ""]))
def test_keys_are_equal_just_when_names_are(one: str, other: str, prefix: str) -> None:
    assert (naa.bare(prefix + one) == naa.bare(f"naa.{other}")) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gets_a_key_whatever_its_case(text: str) -> None:
    assert naa.bare(text) == naa.bare(text.lower())
