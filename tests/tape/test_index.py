"""The index and the label: what is written is read back, what breaks a rule is refused, what is unknown is kept."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tape.errors import FormatError
from tape.ltfs import indexreading, indexwriting, label, names
from tape.ltfs.index import Directory, Extent, File, Index, Lock, Pointer, Times
from tape.ltfs.label import Label

GOLDEN = Path(__file__).parent / "data" / "ref-written-basic.tar.gz"
UUID = "eb9485ee-3862-4b56-92a9-b73fd13b2334"


def golden(name: str) -> bytes:
    """A record of the cartridge that the reference implementation wrote."""
    with tarfile.open(GOLDEN) as archive:
        member = archive.extractfile(f"tape/{name}")
        assert member is not None
        return member.read()


def decoded(data: bytes) -> Index:
    return indexreading.decode([data], "here")


def encoded(index: Index) -> bytes:
    return b"".join(indexwriting.encode(index))


# ---------------------------------------------------------------------- the reference's cartridge


def test_the_reference_implementations_index_is_read() -> None:
    index = decoded(golden("0_5_R"))
    assert (index.generation, index.location, index.previous) == (2, Pointer("a", 5), Pointer("b", 15))
    assert (index.volume_uuid, index.root.name, index.highest_uid, index.lock) == (UUID, "myvol", 7, Lock.UNLOCKED)
    paths = dict(index.root.walk())
    assert set(paths) == {"/dir1", "/dir1/hello.txt", "/big.bin", "/lnk", "/a:b<c>%25 é.txt", "/empty"}
    big, link = paths["/big.bin"], paths["/lnk"]
    assert isinstance(big, File)
    assert isinstance(link, File)
    assert big.extents == (Extent(0, Pointer("b", 8), 0, 3_000_000),)
    assert big.xattrs == {"bin": b"\xff\x00\xff\x01\x02"[1:], "md5": b"deadbeef"}
    assert (link.symlink, link.read_only) == ("dir1/hello.txt", True)


def test_the_reference_implementations_index_is_written_back_as_it_means() -> None:
    index = decoded(golden("1_15_R"))
    assert decoded(encoded(index)) == index


def test_the_reference_implementations_labels_are_read() -> None:
    one, two = (label.decode(golden(name), name) for name in ("0_2_R", "1_2_R"))
    assert (one.partition, two.partition, one.volume_uuid, one.block_bytes) == ("a", "b", UUID, 524288)
    assert one.same_volume(two)
    assert label.volume_id(golden("0_0_R"), "here") == label.volume_id(golden("1_0_R"), "here")


# ---------------------------------------------------------------------- properties

moments = st.integers(0, 4_102_444_800_000_000_000)
letters = st.sampled_from("aZ09 ._%:<>&\"'\\\t\r\n\x01\x7f\ufffeéÄ\u0301漢😀")
file_names = st.text(letters, min_size=1, max_size=30).map(
    lambda text: names.normal(text) if text not in (".", "..") else "dots"
)
values = st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))


@st.composite
def trees(draw: st.DrawFn) -> Index:
    """An index with a few files and directories, each with a uid of its own."""
    index = Index(UUID, draw(st.integers(1, 99)), draw(moments), Pointer("b", draw(st.integers(4, 10**12))), _root())
    index.previous = draw(st.none() | st.builds(Pointer, st.just("b"), st.integers(4, 10**9)))
    index.creator, index.comment = draw(_texts), draw(st.none() | _texts)
    index.lock = draw(st.none() | st.sampled_from(Lock))
    homes = [index.root]
    for name in draw(st.lists(file_names, max_size=8, unique=True)):
        home = draw(st.sampled_from(homes))
        times = Times(*draw(st.tuples(moments, moments, moments, moments, moments)))
        if draw(st.booleans()):
            made = Directory(name, index.new_uid(), times, xattrs=draw(_xattrs))
            homes.append(made)
            home.entries[name] = made
        else:
            home.entries[name] = draw(_files(name, index.new_uid(), times))
    return index


_texts = st.text(st.sampled_from('aZ0 <>&"\n漢😀'), max_size=30)
_xattrs = st.dictionaries(st.text(letters, min_size=1, max_size=10), values, max_size=3)


def _root() -> Directory:
    return Directory("", 1, Times.all(0))


@st.composite
def _files(draw: st.DrawFn, name: str, uid: int, times: Times) -> File:
    if draw(st.booleans()):
        return File(name, uid, times, symlink=draw(st.text(letters, max_size=20)), xattrs=draw(_xattrs))
    extents: list[Extent] = []
    at = 0
    for _ in range(draw(st.integers(0, 3))):
        at += draw(st.integers(0, 5000))
        start = Pointer("b", draw(st.integers(4, 10**10)))
        extents.append(Extent(at, start, draw(st.integers(0, 500)), draw(st.integers(1, 10**9))))
        at = extents[-1].file_end
    length = at + draw(st.integers(0, 9))
    return File(name, uid, times, length, tuple(extents), draw(st.booleans()), xattrs=draw(_xattrs))


@given(trees())
def test_what_is_written_is_read_back(index: Index) -> None:
    assert decoded(encoded(index)) == index


@given(st.text(letters, min_size=1, max_size=40))
def test_any_name_survives_its_encoding(text: str) -> None:
    written, percent = names.encoded(text)
    assert names.decoded(written, percent) == text


def test_a_thousand_levels_of_directories_are_written_and_refused_when_read() -> None:
    """Ours would never make such paths; who reads them is protected from running out of stack."""
    index = Index(UUID, 1, 0, Pointer("b", 5), _root())
    index.make_directory("/".join("d" * 600), 0)
    with pytest.raises(FormatError, match="deep"):
        decoded(encoded(index))


# ---------------------------------------------------------------------- what is refused

GOOD = golden("0_5_R").decode()
EXTENT = "<bytecount>3000000</bytecount>\n</extent>\n"
OVERLAP = EXTENT + "<extent><fileoffset>5</fileoffset><partition>b</partition><startblock>99</startblock>"
OVERLAP += "<byteoffset>0</byteoffset><bytecount>9</bytecount></extent>"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<ltfsindex ", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><ltfsindex ", "document type"),
        ('encoding="UTF-8"', 'encoding="ISO-8859-1"', "not in UTF-8"),
        ('version="2.4.0"', 'version="3.0.0"', "version"),
        ("<name>big.bin</name>", "<name>../etc</name>", "'../etc'"),
        ("<name>big.bin</name>", "<name>..</name>", "'..'"),
        ("<name>big.bin</name>", "<name>empty</name>", "twice"),
        ("<name>big.bin</name>", f"<name>{'x' * 256}</name>", "256 characters"),
        ("<name>big.bin</name>", "", "no <name>"),
        ("<name>big.bin</name>", "<name>big.bin</name><name>big.bin</name>", "twice"),
        ("<fileuid>4</fileuid>", "<fileuid>3</fileuid>", "twice"),
        ("<fileuid>4</fileuid>", "<fileuid>1</fileuid>", "root"),
        ("<fileuid>4</fileuid>", "<fileuid>0</fileuid>", "0"),
        ("<fileuid>4</fileuid>", "<fileuid>99</fileuid>", "99"),
        ("<length>3000000</length>", "<length>2999999</length>", "reach"),
        ("<length>3000000</length>", "<length>-1</length>", "'-1'"),
        ("<length>3000000</length>", "<length>٣</length>", "no number"),
        ("<startblock>8</startblock>", "<startblock>3</startblock>", "'3'"),
        ("<partition>b</partition>\n<startblock>8", "<partition>bb</partition>\n<startblock>8", "'bb'"),
        (EXTENT, OVERLAP, "overlap"),
        ("<symlink>dir1/hello.txt</symlink>", "<symlink>x</symlink><extentinfo></extentinfo>", "symbolic link"),
        ("AP8BAg==", "AP8BAg=", "base64"),
        ("%C3%A9", "%C3%G9", "percent-encoded"),
        ("%C3%A9", "%C3%C3", "UTF-8"),
        ("<generationnumber>2</generationnumber>", "<generationnumber>0</generationnumber>", "'0'"),
        ("2026-11-22T17:13:22.196581728Z", "2026-13-22T17:13:22.196581728Z", "no time"),
        (UUID, "eb9485ee", "UUID"),
        ("unlocked", "sealed", "sealed"),
        ("</ltfsindex>", "", "not XML"),
    ],
)
def test_what_breaks_a_rule_is_refused(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(FormatError) as caught:
        decoded(GOOD.replace(old, new, 1).encode())
    assert says in str(caught.value)


def test_entity_bombs_are_not_expanded() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "' + "a" * 1000 + '"><!ENTITY b "' + "&a;" * 1000 + '">]>'
    with pytest.raises(FormatError, match="document type"):
        decoded(GOOD.replace("<ltfsindex ", f"{bomb}<ltfsindex ", 1).replace("myvol", "&b;").encode())


def test_what_is_not_understood_is_kept() -> None:
    foreign = '<vendor:thing xmlns:vendor="urn:x" n="1 &amp; 2"><inner>a &lt; b</inner></vendor:thing>'
    text = GOOD.replace("<length>3000000</length>", f"<length>3000000</length>{foreign}", 1)
    index = decoded(text.encode())
    big = index.find("/big.bin")
    assert isinstance(big, File)
    assert big.unknown == (foreign,)
    assert foreign in encoded(index).decode()
    assert decoded(encoded(index)) == index


def test_an_index_that_was_damaged_anywhere_is_read_or_refused() -> None:
    """Bytes flipped, cut out and doubled: nothing but our own error comes of it."""
    seed = 5
    rng = random.Random(seed)
    refused = 0
    for _ in range(1500):
        data = bytearray(GOOD.encode())
        for _ in range(rng.randint(1, 3)):
            damage: Callable[[bytearray, int], None] = rng.choice([_flip, _cut, _double])
            damage(data, rng.randrange(len(data)))
        try:
            decoded(bytes(data))
        except FormatError:
            refused += 1
    print(f"seed {seed}: {refused} of 1500 damaged indexes were refused")
    assert refused > 300


def _flip(data: bytearray, at: int) -> None:
    data[at] ^= 1 << (at % 8)


def _cut(data: bytearray, at: int) -> None:
    del data[at : at + at % 37]


def _double(data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + at % 53]


# ---------------------------------------------------------------------- the label


def test_a_label_is_read_back_and_its_copies_agree() -> None:
    one = Label(UUID, 1_700_000_000_123_456_789, "a", creator="vcbproxy 1.0 - Linux & <others>")
    assert label.decode(one.encode(), "here") == one
    assert not one.same_volume(Label(UUID, 1_700_000_000_123_456_788, "b"))


@pytest.mark.parametrize(("barcode", "expected"), [("ABC123L8", "ABC123"), ("", ""), ("ab-1", "AB1")])
def test_vol1_holds_the_barcodes_first_six_characters(barcode: str, expected: str) -> None:
    record = label.vol1(barcode)
    assert len(record) == 80
    assert record[79:] == b"4"
    assert label.volume_id(record, "here") == expected


@pytest.mark.parametrize("record", [b"", b"VOL1" + bytes(76), b"HDR1" + b" " * 76, label.vol1("A")[:79]])
def test_what_is_no_ltfs_label_is_refused(record: bytes) -> None:
    with pytest.raises(FormatError, match="not an LTFS volume"):
        label.volume_id(record, "here")
