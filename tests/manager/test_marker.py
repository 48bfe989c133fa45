"""A snapshot is ours by its marker, and by nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcbproxy.errors import UsageError
from vcbproxy.manager.marker import Marker

WORDS = st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True)


@given(WORDS, WORDS)
def test_a_marker_is_read_from_the_description_it_was_written_to(job_run_id: str, host: str) -> None:
    marker = Marker(job_run_id, host)
    assert Marker.read(marker.description) == marker
    assert Marker.read(f"{marker}\nedited by an operator") == marker


@given(st.text(max_size=60))
def test_other_descriptions_are_somebody_elses(text: str) -> None:
    assert Marker.read(text) is None or text.startswith("vcbproxy:")


@pytest.mark.parametrize(
    "description",
    [
        None,
        "",
        "before upgrade",
        "vcbproxy",
        "vcbproxy:run1",
        "vcbproxy:@host",
        " vcbproxy:run1@host",
        "VCBPROXY:run1@host",
        "vcbproxy:run1@host/x",
    ],
)
def test_what_is_no_marker(description: str | None) -> None:
    assert Marker.read(description) is None


@pytest.mark.parametrize(("job_run_id", "host"), [("", "h"), ("r", ""), ("r@s", "h"), ("r", "h x"), ("r\n", "h")])
def test_what_could_not_be_read_back_is_refused(job_run_id: str, host: str) -> None:
    with pytest.raises(UsageError):
        Marker(job_run_id, host)
