"""The built wheel: three packages, typed, and nothing of the tests or the lab's world beside them."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests.program import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_three_packages_and_its_licence(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if "." not in top} == {"vcbproxy", "jobs", "tape"}
    for package in ("vcbproxy", "jobs", "tape"):
        assert f"{package}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_no_stray_files_are_packed(names):
    assert [name for name in names if "__pycache__" in name or name.startswith("tests")] == []


def test_the_catalog_s_migrations_are_packed(names):
    steps = {path.name for path in (ROOT / "vcbproxy/catalog/migrations/versions").glob("v*.py")}
    assert steps
    assert {f"vcbproxy/catalog/migrations/versions/{name}" for name in steps} <= set(names)
    assert "vcbproxy/catalog/migrations/env.py" in names
