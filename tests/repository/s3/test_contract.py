"""A bucket of a real server keeps every promise of a backend."""

from __future__ import annotations

import pytest

from tests.contract.backend import BackendContract
from vcbproxy.repository.backend.base import Backend
from vcbproxy.repository.backend.location import open_backend

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]


class TestBucket(BackendContract):
    @pytest.fixture
    def backend(self, s3_location: str) -> Backend:
        return open_backend(s3_location, create=True)
