"""VMFS-6 directories: every name is found through the hash table, after any history of additions and removals."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tests.lab.vmfs.cases import case
from vcbproxy.lab.vmfs.directory import Entry
from vcbproxy.lab.vmfs.hashed import HashedDirectory
from vcbproxy.lab.vmfs.namehash import name_hash

SELF = Entry(".", 2, 0x400004, 1)


@pytest.mark.parametrize(
    ("name", "stored"),
    [("normal-flat.vmdk", 0x1F6494D2), ("normal.vmdk", 0xA54AE956), ("Kusjes van SRT 😘", 0x81A58B05)],
)
def test_hashes_are_those_on_directories_made_by_esxi(name: str, stored: int) -> None:
    assert name_hash(name) & 0xFFFFFFFF == stored


def test_dissect_finds_each_of_many_names(tmp_path: Path) -> None:
    with case(tmp_path, version=6, descriptors=1024) as made:
        made.volume.mkdir("/many")
        for number in range(200):
            made.create(f"/many/file {number} ü", 20, (0, 20))
        for number in range(0, 200, 3):
            made.delete(f"/many/file {number} ü")
        for number in range(0, 60, 3):
            made.create(f"/many/again {number}", 20, (0, 20))
        paths = made.volume.paths
        assert sorted(oracles.dissect_list(paths, "/many")) == made.volume.list("/many")
        windows = [(path, 0, 20) for path in made.files]
        for (path, _, _), data in zip(windows, oracles.dissect_reads(paths, windows), strict=True):
            assert data == made.files[path].read(0, 20)


class Reader:
    """Looks names up in the raw bytes, by the description alone."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def find(self, name: str) -> int | None:
        """The address behind a name."""
        value = name_hash(name)
        bucket, link_hash = value % 16001, value >> 16 & 0xFFFF
        (code,) = struct.unpack_from("<I", self.content, 0x5F8 + 4 * bucket)
        while code & 3 == 2:
            place = 0x10000 + (code >> 2 & 0x3FFFFF) * 4096 + 64 + (code >> 24) * 0x54
            assert struct.unpack_from("<H", self.content, place) == (bucket,)
            total, free, following = self.content[place + 2], self.content[place + 3], self.content[place + 4]
            assert total == 12
            assert following == total - free
            assert free < total, "an empty group stays in the chain"
            links = [struct.unpack_from("<IH", self.content, place + 6 + 6 * n) for n in range(total - free)]
            for location, stored in links:
                if stored == link_hash and self.entry(location)[0] == name:
                    return self.entry(location)[1]
            (code,) = struct.unpack_from("<I", self.content, place + 0x4E)
        if code and self.entry(code)[0] == name:
            return self.entry(code)[1]
        return None

    def entry(self, code: int) -> tuple[str, int]:
        """Name and address at a dirent's location."""
        assert code & 3 == 1
        block, slot = code >> 2 & 0x3FFFFF, code >> 24
        start = 0x10000 + block * 4096
        bitmap = int.from_bytes(self.content[start + 8 : start + 64], "little")
        assert not bitmap >> slot & 1, "the slot is free"
        place = start + 64 + slot * 0x120
        name = self.content[place + 0x18 : place + 0x118].rstrip(b"\0").decode()
        return name, struct.unpack_from("<I", self.content, place + 4)[0]


# "n2058" and so on all hash to table slot 77, the last four to slot 5: chains of several link groups come about
NUMBERS = (
    *(
        2058,
        18206,
        45326,
        83810,
        102661,
        111389,
        118159,
        123114,
        124514,
        124669,
        134716,
        138871,
        175542,
        180964,
        211911,
    ),
    *(236471, 244360, 247748, 251272, 252185, 256039, 266304, 313619, 314095, 329580, 332239, 337210, 349299, 359383),
    *(1895, 2734, 33725, 36484),
)
NAMES = [f"n{number}" for number in NUMBERS]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([True, True, False]), st.sampled_from(NAMES)), max_size=120))
def test_names_that_share_a_bucket_are_all_found(steps: list[tuple[bool, str]]) -> None:
    directory = HashedDirectory(SELF, SELF, root=False)
    content = bytearray()
    present: dict[str, int] = {}

    def apply(patches: list) -> None:
        for patch in patches:
            end = patch.offset + len(patch.data)
            content.extend(bytes(max(0, end - len(content))))
            content[patch.offset : end] = patch.data

    apply(directory.initial())
    for number, (adding, name) in enumerate(steps):
        if adding:
            apply(directory.add(Entry(name, 3, number + 1, number)))
            present[name] = number + 1
        elif name in present:
            apply(directory.remove(name))
            del present[name]
    assert len(content) == directory.length
    reader = Reader(bytes(content))
    assert {name_hash(name) % 16001 for name in NAMES} == {77, 5}
    assert {name: reader.find(name) for name in NAMES} == {name: present.get(name) for name in NAMES}
    assert struct.unpack_from("<I", content, 4) == (len(present) + 2,)
