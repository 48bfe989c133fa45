"""Local copies of what a bucket holds: they save ways, and hide no damage from those who are to find it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program import Lab, served
from tests.repository.s3.kept import keep_in_bucket
from tests.seaweed import Seaweed
from vcbproxy.lab import spec as specification
from vcbproxy.repository.backend.s3.place import Place

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]


@pytest.fixture
def lab(tmp_path: Path, s3_location: str) -> Iterator[Lab]:
    with served(tmp_path / "lab", specification.tiny(6)) as made:
        kept = keep_in_bucket(made, s3_location)
        kept.vcbproxy.environment.pop("CACHE_DIRECTORY", None)
        kept.vcbproxy.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
        yield kept


def test_a_copy_hides_no_damage(
    lab: Lab, seaweed: Seaweed, s3_location: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab.vcbproxy("repo", "init")
    lab.vcbproxy("backup", "vm1")
    copies = {path.name: path for path in (tmp_path / "cache").rglob("*") if len(path.name) == 64 and path.is_file()}
    kinds = {path.parent.parent.name for path in copies.values()}
    assert kinds == {"index", "snapshots", "data"}, "and no packs of data: those are many and large"
    assert sum(path.stat().st_size for path in copies.values()) < 1 << 20

    client, place = seaweed.client(), Place.parse(s3_location)
    for name, path in copies.items():
        if path.parent.parent.name == "data":
            flipped = bytearray(path.read_bytes())
            flipped[20] ^= 1
            client.put_object(Bucket=place.bucket, Key=place.key(f"data/{name[:2]}/{name}"), Body=bytes(flipped))
    lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "back")  # what is whole here need not be fetched
    assert "damaged" in lab.vcbproxy("verify", code=4).err
    assert "damaged" in lab.vcbproxy("repo", "check", "--read-data", code=4).err
    lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "again", "--no-cache", code=4)
    for path in copies.values():
        path.write_bytes(b"damaged")
    lab.vcbproxy("points", "list")
    assert "a damaged copy of snapshots/" in caplog.text
    lab.vcbproxy("restore", "vm1@latest", "--to", tmp_path / "third", code=4)
