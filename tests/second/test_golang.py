"""Our sources in Go are in Go's one format."""

from __future__ import annotations

import subprocess

import pytest

from tests.second import golang


def test_sources_are_formatted() -> None:
    reason = golang.missing()
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run(["gofmt", "-l", *golang.sources()], capture_output=True, text=True, check=True)
    assert done.stdout == ""
