"""Ranges of barcodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.config.barcodes import BarcodeRange


@pytest.mark.parametrize(
    ("text", "members", "strangers"),
    [
        (
            "TAP001L8-TAP040L8",
            ["TAP001L8", "TAP040L8"],
            ["TAP000L8", "TAP041L8", "TAP001L9", "TAP01L8", "TAP0001L8", ""],
        ),
        ("TAP001L8", ["TAP001L8"], ["TAP002L8", "TAP001L9"]),
        ("A00001-A00009", ["A00005"], ["A00010", "B00005"]),
        ("X12YL9-X15YL9", ["X13YL9"], ["X13ZL9", "X16YL9"]),
        ("SPARE", ["SPARE"], ["SPAR", "SPARES"]),
        ("L8", ["L8"], ["L9"]),
    ],
)
def test_who_is_in_a_range(text, members, strangers):
    barcodes = BarcodeRange.parse(text)
    assert all(member in barcodes for member in members)
    assert not any(stranger in barcodes for stranger in strangers)
    assert str(barcodes) == text


@pytest.mark.parametrize(
    "text",
    ["", "TAP001L8-", "TAP040L8-TAP001L8", "TAP001L8-TAP040L9", "TAP1L8-TAP40L8", "tap001L8", "TAP001L8-XAP040L8",
     "A-B", "CLN001L1", "TAP001L8-TAP002L8-TAP003L8", "TAP0000001L8"],
)  # fmt: skip
def test_what_is_no_range(text):
    with pytest.raises(ValueError, match=r"range|alike|cleaning|end"):
        BarcodeRange.parse(text)


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_a_range_has_the_barcodes_that_it_lists_and_no_others(one, other, asked):
    first, last = sorted((one, other))
    barcodes = BarcodeRange.parse(f"TAP{first:03}L8-TAP{last:03}L8")
    assert (f"TAP{asked:03}L8" in barcodes) == (first <= asked <= last)
    assert len(list(barcodes)) == len(barcodes) == last - first + 1
    assert all(barcode in barcodes for barcode in barcodes)
