"""Everything that is written as JSON or bytes comes back as it was; everything else is a typed error."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.repository.repositories import START
from vcbproxy.errors import Error, IntegrityError, UsageError
from vcbproxy.repository import codec, compression, config, idlist, indexfile, manifest, pack, snapshot, times, tree
from vcbproxy.repository.config import ChunkerSettings, RepositoryConfig
from vcbproxy.repository.ids import BlobKind
from vcbproxy.repository.pack import Blob
from vcbproxy.repository.tree import Node, NodeKind

IDS = st.binary(min_size=32, max_size=32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


# ---------------------------------------------------------------------- JSON


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3) | st.lists(JSON, max_size=3))
@settings(max_examples=100, deadline=None)
def test_json_survives_the_envelope(value: object) -> None:
    assert codec.decode(codec.encode(value), "it") == value
    assert codec.decode(codec.dump(value), "it") == value


def test_json_is_spelled_as_go_spells_it() -> None:
    text = codec.dump({"b": '<a>&\u2028"\\\n\x01\b\f', "a": ["ü", 1, None, True]})
    assert text.decode() == (
        '{"b":"\\u003ca\\u003e\\u0026\\u2028\\"\\\\\\n\\u0001\\u0008\\u000c","a":["ü",1,null,true]}'
    )


@pytest.mark.parametrize("text", ["\\b", "a\\\\b", "\\\b\\f\f\\", '\\"\b"\\'])
def test_escaped_backslashes_are_not_taken_for_controls(text: str) -> None:
    assert json.loads(codec.dump([text])) == [text]


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\x01{}",
        b"\x02",
        b"\x02junk",
        b"{",
        b"[" * 100_000,
        b'{"a":NaN}',
        b"[1e",
        b'["\xff"]',
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_what_is_no_json_is_damage(plain: bytes) -> None:
    with pytest.raises(IntegrityError):
        codec.decode(plain, "it")


def test_plain_json_is_read_too() -> None:
    assert codec.decode(b'{"a":1}', "it") == {"a": 1}


def test_fields_hold_json_to_its_types() -> None:
    fields = codec.Fields({"text": 1, "number": -1, "flag": 0, "items": {}, "id": "AB" * 32, "texts": [1]}, "it")
    for read in (fields.text, fields.number, fields.flag, fields.items, fields.id, fields.texts, fields.fields):
        with pytest.raises(IntegrityError, match="it"):
            read(read.__name__)
    with pytest.raises(IntegrityError, match="not a JSON object"):
        codec.Fields([], "it")


# ---------------------------------------------------------------------- zstd


@given(st.binary(max_size=2000), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_any_number_of_frames_is_read(plain: bytes, frames: int) -> None:
    step = len(plain) // frames + 1
    pieces = [plain[start : start + step] for start in range(0, max(1, len(plain)), step)]
    stored = b"".join(zstandard.compress(piece) for piece in pieces)
    assert compression.Decompressor().decompress(stored, len(plain)) == plain
    assert compression.Decompressor().decompress_at_most(stored, len(plain)) == plain


def test_frames_without_a_size_are_read() -> None:
    made = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1000)
    assert compression.Decompressor().decompress(made, 1000) == b"x" * 1000


@pytest.mark.parametrize("claimed", [0, 1, 999, 1001, 1 << 20])
def test_another_length_is_damage(claimed: int) -> None:
    with pytest.raises(IntegrityError):
        compression.Decompressor().decompress(zstandard.compress(b"x" * 1000), claimed)


def test_a_bomb_is_stopped_at_the_expected_size() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(200 << 20))
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        compression.Decompressor().decompress(bomb, 1000)
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        compression.Decompressor().decompress_at_most(bomb, 1000)


@given(st.binary(min_size=1, max_size=200), st.data())
@settings(max_examples=100, deadline=None)
def test_damaged_frames_are_errors_or_wrong_lengths(plain: bytes, data: st.DataObject) -> None:
    frame = bytearray(zstandard.compress(plain))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    with contextlib.suppress(IntegrityError):
        assert len(compression.Decompressor().decompress(cut, len(plain))) == len(plain)


# ---------------------------------------------------------------------- packs and indexes

BLOBS = st.lists(
    st.tuples(st.sampled_from(list(BlobKind)), IDS, st.integers(32, 5000), st.integers(0, 9000)), max_size=20
)


def laid_out(rows: list[tuple[BlobKind, bytes, int, int]]) -> list[Blob]:
    offset, blobs = 0, []
    for kind, blob_id, stored, zstd in rows:
        blobs.append(Blob(kind, blob_id, offset, stored, zstd))
        offset += stored
    return blobs


@given(BLOBS)
@settings(max_examples=50, deadline=None)
def test_pack_headers_survive(rows: list[tuple[BlobKind, bytes, int, int]]) -> None:
    blobs = laid_out(rows)
    assert pack.decode_header(pack.encode_header(blobs), "pack") == blobs


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_pack_header_is_read_or_refused(plain: bytes) -> None:
    try:
        blobs = pack.decode_header(plain, "pack")
    except IntegrityError:
        return
    assert pack.encode_header(blobs) == plain


@given(st.lists(st.tuples(IDS, BLOBS), max_size=4, unique_by=lambda row: row[0]))
@settings(max_examples=50, deadline=None)
def test_index_files_survive(rows: list[tuple[bytes, list[tuple[BlobKind, bytes, int, int]]]]) -> None:
    packs = [indexfile.PackBlobs(pack_id, laid_out(blobs)) for pack_id, blobs in rows]
    decoded = indexfile.decode(indexfile.encode(packs), "index")
    assert [pack_id for pack_id, _ in decoded] == [pack_id for pack_id, _ in rows]
    for made, (_, columns) in zip(packs, decoded, strict=True):
        assert [blob.blob_id for blob in made.blobs] == [row.tobytes() for row in columns.ids]
        assert [blob.offset for blob in made.blobs] == columns.offset.tolist()
        assert [blob.stored_bytes for blob in made.blobs] == columns.stored.tolist()
        assert [blob.zstd_bytes for blob in made.blobs] == columns.zstd.tolist()
        assert [blob.kind is BlobKind.TREE for blob in made.blobs] == columns.tree.tolist()


def index_of(**changes: object) -> bytes:
    blob = {"id": "ab" * 32, "type": "data", "offset": 0, "length": 100} | changes
    return json.dumps({"packs": [{"id": "cd" * 32, "blobs": [blob]}]}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "ab"},
        {"id": None},
        {"id": "AB" * 32},
        {"type": "link"},
        {"type": []},
        {"offset": -1},
        {"offset": "0"},
        {"offset": 1.5},
        {"offset": True},
        {"offset": 2**32},
        {"offset": 2**32 - 50},
        {"length": 31},
        {"uncompressed_length": None},
    ],
)
def test_malformed_index_entries_are_damage(changes: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        indexfile.decode(index_of(**changes), "index")


@pytest.mark.parametrize(
    "document",
    [[], {"packs": {}}, {"packs": [1]}, {"packs": [{"id": "x"}]}, {"packs": [{"id": "cd" * 32, "blobs": [[]]}]}],
)
def test_malformed_index_files_are_damage(document: object) -> None:
    with pytest.raises(IntegrityError):
        indexfile.decode(json.dumps(document).encode(), "index")


# ---------------------------------------------------------------------- trees


def ids_of(count: int, seed: int = 0) -> idlist.Ids:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 100, (1 << 15) + 1])
def test_id_lists_survive(count: int) -> None:
    ids = ids_of(count)
    text = idlist.to_json(ids)
    assert json.loads(b"[" + text + b"]") == [row.tobytes().hex() for row in ids]
    read = idlist.from_json(text)
    assert read is not None
    assert np.array_equal(read, ids)


@given(st.integers(1, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_misspelled_id_lists_are_left_to_the_parser(count: int, data: st.DataObject) -> None:
    text = bytearray(idlist.to_json(ids_of(count)))
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[position]))
    digit = position % 67 not in (0, 65, 66)
    text[position] = other
    read = idlist.from_json(text)
    assert (read is None) == (not digit or chr(other) not in "0123456789abcdef")


@pytest.mark.parametrize("count", [0, 1, 5, 16, 40, 1000])
def test_trees_survive(count: int) -> None:
    nodes = [
        Node("b dir", NodeKind.DIRECTORY, subtree=bytes(range(32))),
        Node("a.raw", NodeKind.FILE, count * 7, ids_of(count)),
        Node("a.lengths", NodeKind.FILE, 4, ids_of(1, 1)),
    ]
    blob = b"".join(tree.encode(nodes, START))
    document = json.loads(blob)
    assert blob.endswith(b"]}\n")
    assert [node["name"] for node in document["nodes"]] == ["a.lengths", "a.raw", "b dir"]
    read = {node.name: node for node in tree.decode([blob], "tree")}
    assert read["b dir"].subtree == bytes(range(32))
    assert read["a.raw"].size_bytes == count * 7
    assert read["a.raw"].content is not None
    assert np.array_equal(read["a.raw"].content, ids_of(count))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(0, 2**32), st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_trees_by_bites_are_the_same_as_at_once(counts: list[int], seed: int, step: int) -> None:
    """Against the plain encoder, and read back in pieces of any size; lists over the bite's length are tried too."""
    nodes = [Node(f"f{n}", NodeKind.FILE, count, ids_of(count, seed + n)) for n, count in enumerate(counts)]
    text = tree.encode(nodes, START)
    blob = b"".join(text)
    listed = [[bytes(row).hex() for row in node.content] for node in nodes if node.content is not None]
    document = json.loads(blob)
    assert [node["content"] for node in document["nodes"]] == listed
    assert blob == codec.dump(document) + b"\n"
    assert text.size_bytes == len(blob)
    pieces = [blob[start : start + step] for start in range(0, len(blob), step)]
    for read, node in zip(tree.decode(pieces, "tree"), nodes, strict=True):
        assert read.content is not None
        assert np.array_equal(read.content, node.content)


@given(st.integers(1, 60), st.data())
@settings(max_examples=300, deadline=None)
def test_any_text_by_bites_reads_as_a_json_parser_reads_it(count: int, data: st.DataObject) -> None:
    """Change a byte anywhere: either both refuse, or both read the same ids."""
    nodes = [Node("a", NodeKind.FILE, 7, ids_of(count)), Node("b", NodeKind.FILE, 7, ids_of(20, 3))]
    blob = bytearray(b"".join(tree.encode(nodes, START)))
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.sampled_from([*b'"],[\\{0aAg \x00\xff:']))
    step = data.draw(st.integers(1, 200))
    pieces = [bytes(blob[start : start + step]) for start in range(0, len(blob), step)]
    try:
        read = tree.decode(pieces, "tree")
    except IntegrityError:
        return
    document = json.loads(bytes(blob))
    wanted = [node.get("content") for node in document.get("nodes", []) if node["type"] == "file"]
    found = [[bytes(row).hex() for row in node.content] for node in read if node.content is not None]
    assert found == wanted


def test_lists_longer_than_a_bite() -> None:
    ids = ids_of(3 * idlist.ROWS + 5)
    text = tree.encode([Node("f", NodeKind.FILE, 1, ids)], START)
    assert sum(map(len, text)) == text.size_bytes
    [read] = tree.decode(text, "tree")
    assert np.array_equal(read.content, ids)


def test_nodes_are_spelled_as_restic_spells_them() -> None:
    text = tree.encode(
        [Node("f", NodeKind.FILE, 3, ids_of(1)), Node("d", NodeKind.DIRECTORY, subtree=bytes(32))], START
    )
    time = '"mtime":"2026-11-22T01:00:00Z","atime":"2026-11-22T01:00:00Z","ctime":"2026-11-22T01:00:00Z"'
    assert b"".join(text).decode() == (
        f'{{"nodes":[{{"name":"d","type":"dir","mode":2147484096,{time},"uid":0,"gid":0,"content":null,'
        f'"subtree":"{"00" * 32}"}},'
        f'{{"name":"f","type":"file","mode":384,{time},"uid":0,"gid":0,"size":3,"links":1,'
        f'"content":["{ids_of(1)[0].tobytes().hex()}"]}}]}}\n'
    )


def test_a_name_that_looks_like_a_content_list_does_not_mislead() -> None:
    hexes = idlist.to_json(ids_of(30)).decode()
    trap = f'x\\","content":[{hexes}]'
    node = {"name": 'q"content":[' + hexes, "type": "file", "size": 0, "content": [], "note": trap}
    [read] = tree.decode([json.dumps({"nodes": [node]}).encode()], "tree")
    assert read.name == node["name"]
    assert read.content is not None
    assert len(read.content) == 0


def test_a_number_is_never_taken_for_a_content_list() -> None:
    for number in (0, 1, -1, True):
        with pytest.raises(IntegrityError):
            tree.decode([json.dumps({"nodes": [{"name": "f", "type": "file", "content": [number]}]}).encode()], "tree")


@pytest.mark.parametrize(
    "node",
    [
        {"name": "f", "type": "file"},
        {"name": "f", "type": "file", "content": None},
        {"name": "f", "type": "file", "content": ["xyz"]},
        {"name": "f", "type": "file", "content": [], "size": -1},
        {"name": "d", "type": "dir"},
        {"name": "d", "type": "dir", "subtree": "12"},
        {"type": "dir"},
        [],
    ],
)
def test_malformed_nodes_are_damage(node: object) -> None:
    with pytest.raises(IntegrityError):
        tree.decode([json.dumps({"nodes": [node]}).encode()], "tree")


def test_nodes_of_one_name_are_damage() -> None:
    node = {"name": "f", "type": "symlink"}
    with pytest.raises(IntegrityError, match="same name"):
        tree.decode([json.dumps({"nodes": [node, node]}).encode()], "tree")


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_safe_names_are_safe(text: str) -> None:
    name = tree.safe_name(text)
    assert tree.is_safe_name(name)
    assert name not in ("", ".", "..")
    assert "/" not in name


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_tree_is_read_or_refused(junk: bytes) -> None:
    for blob in (junk, b'{"nodes":[' + junk + b"]}\n"):
        with contextlib.suppress(IntegrityError):
            tree.decode([blob], "tree")


# ---------------------------------------------------------------------- snapshots, manifests, times, config


def test_snapshot_records_survive() -> None:
    record = snapshot.Snapshot(
        "", START, bytes(32), ("/web01",), "web01 <ü>", "me", ("vcbproxy", "vm:1"), "", "vcbproxy 1"
    )
    read = snapshot.decode("ab" * 32, snapshot.encode(record, None), "snapshot")
    assert read == snapshot.Snapshot(
        "ab" * 32, START, bytes(32), ("/web01",), "web01 <ü>", "me", ("vcbproxy", "vm:1"), "", "vcbproxy 1"
    )


@pytest.mark.parametrize(
    "change", [{"time": "now"}, {"time": None}, {"tree": "x"}, {"tags": [1]}, {"hostname": 5}, {"summary": []}]
)
def test_malformed_snapshots_are_damage(change: dict[str, object]) -> None:
    fields = {"time": "2026-11-22T01:00:00Z", "tree": "ab" * 32, "paths": ["/"]} | change
    with pytest.raises(IntegrityError):
        snapshot.decode("cd" * 32, json.dumps(fields).encode(), "snapshot")


def test_manifests_survive() -> None:
    contents = manifest.Contents(
        "wéb",
        "50-1",
        "2026-11-22T01:00:00Z",
        ChunkerSettings(32),
        (manifest.DiskEntry("scsi0:0", "scsi0_0", 10, 1),),
        (manifest.FileEntry("a", "a", 2),),
        {"any": [1, None]},
    )
    assert manifest.decode(manifest.encode(contents), "vm.json") == contents


@pytest.mark.parametrize(
    "change",
    [{"format": "vcbproxy.point/2"}, {"vm": None}, {"disks": [{"key": "a", "name": "../x"}]}, {"manifest": []}],
)
def test_malformed_manifests_are_damage(change: dict[str, object]) -> None:
    good = {
        "format": "vcbproxy.point/1",
        "vm": {"name": "a", "instance_uuid": "b"},
        "time": "",
        "chunker": {"window": 64},
        "disks": [],
        "files": [],
        "manifest": {},
    }
    with pytest.raises(IntegrityError):
        manifest.decode(json.dumps(good | change).encode(), "vm.json")


@given(st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC)), st.integers(-1439, 1439))  # noqa: DTZ001
@settings(max_examples=100, deadline=None)
def test_times_survive(moment: datetime, minutes: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert times.parse(times.precise(elsewhere)) == moment
    assert times.parse(times.canonical(elsewhere)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "micro"), [("2026-11-22T01:00:00.123456789Z", 123456), ("2026-11-22T02:30:00.5+01:30", 500000)]
)
def test_restics_own_times_are_read(text: str, micro: int) -> None:
    assert times.parse(text) == START.replace(microsecond=micro)


def test_fractions_have_no_trailing_zeroes() -> None:
    assert times.precise(START.replace(microsecond=120000)) == "2026-11-22T01:00:00.12Z"
    assert times.precise(START) == times.canonical(START) == "2026-11-22T01:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+99:00",
        "0001-01-01T00:00:00+10:00",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month|offset|year"):
        times.parse(text)


def test_known_polynomials() -> None:
    """The one of restic's design document; products of polynomials; the smallest ones."""
    assert config.irreducible(0x25B468838DCB75)
    assert [number for number in range(2, 32) if config.irreducible(number)] == [2, 3, 7, 11, 13, 19, 25, 31]
    assert not config.irreducible(config._multiply_mod(0b111, 0b1011, 1 << 60))


def test_drawn_polynomials_have_degree_53() -> None:
    import random

    drawn = config.new_polynomial(random.Random(7).getrandbits)
    assert drawn.bit_length() == 54
    assert config.irreducible(drawn)


def test_configs_survive() -> None:
    made = RepositoryConfig("ab" * 32, 0x25B468838DCB75)
    assert RepositoryConfig.decode(made.encode(), "config") == made
    assert ChunkerSettings.decode(ChunkerSettings(32).encode(), "parameters") == ChunkerSettings(32)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 1}, UsageError),
        ({"version": 3}, UsageError),
        ({"id": "x"}, IntegrityError),
        ({"chunker_polynomial": "30"}, IntegrityError),
        ({"chunker_polynomial": "0x7"}, IntegrityError),
    ],
)
def test_configs_that_are_not_ours_are_refused(change: dict[str, object], error: type[Error]) -> None:
    good = {"version": 2, "id": "ab" * 32, "chunker_polynomial": "25b468838dcb75"}
    with pytest.raises(error):
        RepositoryConfig.decode(json.dumps(good | change).encode(), "config")
