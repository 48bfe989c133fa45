"""Where caches lie, and what makes a directory unfit for one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from vcbproxy.repository import cachedir

REPOSITORY = "ab" * 32


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/a:/var/cache/b", "XDG_CACHE_HOME": "/x"}, "/var/cache/a"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/vcbproxy"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/vcbproxy"),
        ({}, "/home/me/.cache/vcbproxy"),
    ],
)
def test_the_place_is_the_environments_or_the_users(environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    elses = tmp_path if os.geteuid() == 0 else Path("/")
    if os.geteuid() == 0:
        os.chown(elses, 65534, 65534)
    assert str(cachedir.default_root({"HOME": "/home/me"} | environ, elses)) == expected


def test_the_systems_place_is_for_whom_it_belongs_to(tmp_path: Path) -> None:
    assert cachedir.default_root({"HOME": "/home/me"}, tmp_path) == tmp_path
    missing = tmp_path / "missing"
    expected = missing if os.geteuid() == 0 else Path("/home/me/.cache/vcbproxy")
    assert cachedir.default_root({"HOME": "/home/me"}, missing) == expected


def test_it_is_private_and_tagged(tmp_path: Path) -> None:
    root = tmp_path / "below" / "vcbproxy"
    path = cachedir.opened(root, REPOSITORY, "index")
    assert path == root / REPOSITORY / "index"
    for directory in (root, root / REPOSITORY, path):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert (root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    assert cachedir.opened(root, REPOSITORY, "files") == root / REPOSITORY / "files"


def test_a_file_in_its_place_is_said_once_and_lived_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "vcbproxy").write_text("")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cachedir.opened(tmp_path / "vcbproxy", REPOSITORY, "index") is None
    [record] = caplog.records
    assert "no cache in" in record.message
    assert "File exists" in record.message


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o777)
    assert cachedir.opened(tmp_path, REPOSITORY, "index") is None
    assert "others may write" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_someone_else_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.chown(tmp_path, 65534, 65534)
    assert cachedir.opened(tmp_path, REPOSITORY, "index") is None
    assert "belongs to user 65534" in caplog.text
