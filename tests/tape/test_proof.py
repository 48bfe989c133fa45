"""Files are proved to be whole, or it is said why not: in a time that goes by what the cartridge holds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tape.ltfs import proof
from tape.ltfs.index import DIGEST, File
from tape.ltfs.volume import LtfsVolume
from tests.tape.volumes import BLOCK, content, formatted, mounted, put

DATA = content(1, 5 * BLOCK + 100)


@pytest.fixture
def volume(tmp_path: Path) -> LtfsVolume:
    found = mounted(formatted(tmp_path / "TAP001L8"))
    put(found, "/a", DATA)
    return found


def file(volume: LtfsVolume, path: str = "/a") -> File:
    entry = volume.index.find(path)
    assert isinstance(entry, File)
    return entry


def bears(entry: File, data: bytes) -> None:
    entry.xattrs[DIGEST] = hashlib.sha256(data).hexdigest().encode()


def test_whole_files_are_no_finding(volume: LtfsVolume) -> None:
    put(volume, "/empty", b"")
    put(volume, "/b", DATA[::-1])
    del file(volume, "/b").xattrs[DIGEST]
    assert list(proof.findings(volume)) == []


def test_one_that_is_not_what_it_says_is(volume: LtfsVolume) -> None:
    bears(file(volume), b"something else")
    assert list(proof.findings(volume)) == [("/a", "its content does not match the digest that it bears")]


def test_holes_are_zeroes_to_a_digest(volume: LtfsVolume) -> None:
    """Before, between and behind the extents."""
    entry = file(volume)
    [extent] = entry.extents
    first = replace(extent, file_offset=3, byte_count=BLOCK)
    second = replace(extent, file_offset=3 * BLOCK, byte_count=2 * BLOCK)
    entry.extents, entry.length = (first, second), (3 << 20) + 5
    sparse = bytes(3) + DATA[:BLOCK] + bytes(2 * BLOCK - 3) + DATA[: 2 * BLOCK]
    bears(entry, sparse.ljust(entry.length, b"\0"))
    assert list(proof.findings(volume)) == []


@pytest.mark.timeout(30)
def test_a_file_of_nothing_but_exabytes_of_holes_is_told_at_once(volume: LtfsVolume) -> None:
    put(volume, "/b", DATA)
    entry = file(volume)
    entry.length = 1 << 62
    [(path, reason)] = proof.findings(volume)
    assert path == "/a"
    assert "bytes of holes" in reason
    del entry.xattrs[DIGEST]
    assert list(proof.findings(volume)) == [], "all of its data can be read, and nothing says what it should be"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("in_one_file", [True, False])
def test_the_same_blocks_again_and_again_are_not_read_for_ever(volume: LtfsVolume, *, in_one_file: bool) -> None:
    entry = file(volume)
    [extent] = entry.extents
    if in_one_file:
        entry.extents = tuple(replace(extent, file_offset=number * len(DATA)) for number in range(100_000))
        entry.length = 100_000 * len(DATA)
    else:
        for number in range(2_000):
            name = f"n{number}"
            volume.index.root.entries[name] = replace(entry, name=name, uid=number + 100)
    found = dict(proof.findings(volume))
    assert len(found) > (0 if in_one_file else 1_900)
    assert all("more than the volume has recorded" in reason for reason in found.values())
