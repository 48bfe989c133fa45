"""Guests are booted only where what they boot has been fetched."""

from __future__ import annotations

import shutil

import pytest

from tests.guest import machine


@pytest.fixture(autouse=True, scope="session")
def _fetched() -> None:
    if not (machine.CACHE / ".ready").exists() or shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no guest: run .ci/prepare guest")
