"""A cartridge's memory: attributes as they are stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.errors import FormatError
from tape.memory import Attribute, Form, Id, ascii_value, decode, text_value

attributes = st.builds(Attribute, st.integers(0, 0xFFFF), st.sampled_from(Form), st.binary(max_size=200), st.booleans())


@given(st.lists(attributes, max_size=6), st.integers(0, 40))
def test_what_is_stored_is_read_back_and_what_is_cut_off_left_out(stored: list[Attribute], missing: int) -> None:
    data = b"".join(attribute.encode() for attribute in stored)
    assert list(decode(data, "here")) == stored
    cut = data[: max(len(data) - missing, 0)]
    read = list(decode(cut, "here"))
    assert read == stored[: len(read)]
    assert all(sum(len(one.encode()) for one in stored[: n + 1]) > len(cut) for n in range(len(read), len(stored)))


def test_characters_are_padded_and_never_halved() -> None:
    assert ascii_value(Id.BARCODE, "ABC123L8", 12).value == b"ABC123L8    "
    assert ascii_value(Id.BARCODE, "ABC123L8", 12).text == "ABC123L8"
    assert text_value(Id.VOLUME_NAME, "Ä" * 3, 5).value == "ÄÄ".encode() + b"\0"
    assert text_value(Id.VOLUME_NAME, "Nacht", 8).text == "Nacht"


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(FormatError, match="0806"):
        list(decode(b"\x08\x06\x03\x00\x00", "here"))
