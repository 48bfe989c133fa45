"""What tests against stock restic share: every version at hand, and a repository in its hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.stock_restic import Restic, programs, version_of
from tests.repository.repositories import PASSWORD


def _named(program: str) -> str:
    return "restic-" + ".".join(map(str, version_of(program)))


@pytest.fixture(scope="module", params=programs(), ids=_named)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def restic(program: str, tmp_path: Path) -> Restic:
    scratch = tmp_path / "restic"
    scratch.mkdir()
    return Restic(program, tmp_path / "repository", PASSWORD, scratch)
