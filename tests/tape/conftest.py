"""What the tests of tapes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tape.shim import compiled


@pytest.fixture(scope="session")
def sgshim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that gives programs SG_IO without a kernel for it."""
    return compiled(tmp_path_factory.mktemp("sgshim"))
