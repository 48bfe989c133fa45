"""Stock restic on what we write, and ours on what stock restic writes; every version at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.real.stock_restic import Restic, programs
from tests.repository.faulty import RecordingBackend
from tests.repository.repositories import (
    CHUNK,
    PASSWORD,
    START,
    Written,
    content,
    info,
    made,
    made_in,
    write_point,
)
from vcbproxy.clock import SystemClock
from vcbproxy.device import read
from vcbproxy.errors import Busy
from vcbproxy.repository import browse
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.directory import DirectoryBackend
from vcbproxy.repository.check import check
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.report import Subset
from vcbproxy.repository.repository import Repository
from vcbproxy.repository.session import WriteOptions
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo

pytestmark = pytest.mark.real
if not programs():
    pytest.skip("restic is not installed", allow_module_level=True)


@pytest.fixture
def ours(restic: Restic) -> Repository:
    return made_in(restic.repository)


@pytest.fixture
def written(ours: Repository) -> Written:
    """Two disks over several packs: holes, repeats, chunks that compress and that do not."""
    return write_point(ours, scsi0_0="AbC0defg" * 4 + "00hijklm", scsi0_1="zyx0A")


def opened(path: Path) -> Repository:
    repository = Repository.open(DirectoryBackend(path), PASSWORD)
    repository.indexing.load()
    return repository


def raw(written: Written, key: str) -> str:
    return f"{written.point.path}/{key}/{key}.raw"


# ---------------------------------------------------------------------- stock restic on ours


def test_restic_finds_no_fault(restic: Restic, written: Written) -> None:
    assert b"no errors were found" in restic("check", "--read-data")
    assert len(json.loads(restic("snapshots", "--json"))) == 1


def test_restic_gives_every_disk_back(restic: Restic, written: Written, tmp_path: Path) -> None:
    restic("restore", "latest", "--target", str(tmp_path / "out"))
    for key, disk in written.disks.items():
        assert (tmp_path / "out" / raw(written, key).lstrip("/")).read_bytes() == disk
        assert restic("dump", "latest", raw(written, key)) == disk
    lengths = restic("dump", "latest", f"{written.point.path}/scsi0-0/scsi0-0.lengths")
    assert np.array_equal(np.frombuffer(lengths, "<u4"), np.full(40, CHUNK))
    assert json.loads(restic("dump", "latest", f"{written.point.path}/vm.json"))["vm"]["name"] == "web01"


def test_restic_reads_a_list_that_was_written_by_bites(restic: Restic, ours: Repository) -> None:
    """300,000 chunks, of 4,000 different ones: 20 MB of JSON. Tiny chunks keep the disk small."""
    chunks = [digest(bytes([number & 255, number >> 8]))[: 17 + number % 16] for number in range(4000)]
    order = np.random.default_rng(1).integers(0, len(chunks), 300_000)
    whole = b"".join(chunks[number] for number in order)
    with RepositoryTarget(ours).begin(info()) as writer:
        disk = writer.disk("scsi0-0", len(whole))
        packer = disk.packer()
        ids = np.frombuffer(b"".join(packer.add(BlobKind.DATA, chunk) for chunk in chunks), np.uint8).reshape(-1, 32)
        disk.finish(ids[order], np.array([len(chunk) for chunk in chunks], np.uint32)[order])
        point = writer.commit({})
    assert b"no errors were found" in restic("check", "--read-data")
    assert restic("dump", "latest", f"{point.path}/scsi0-0/scsi0-0.raw") == whole
    with RepositoryTarget(opened(restic.repository)).open(point) as reader:
        assert np.array_equal(reader.disk_content("scsi0-0")[0], ids[order])


def test_restic_mounts_it(restic: Restic, written: Written, tmp_path: Path) -> None:
    if shutil.which("fusermount") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse or no fusermount here")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    command = [restic.program, "mount", "--no-lock", str(mountpoint)]
    with subprocess.Popen(
        command, env=restic.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as mount:
        try:
            file = mountpoint / "snapshots" / "latest" / raw(written, "scsi0-0").lstrip("/")
            deadline = time.monotonic() + 30
            while not file.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert file.read_bytes() == written.disks["scsi0-0"]
            with file.open("rb") as stream:
                stream.seek(CHUNK * 3 - 5)
                assert stream.read(10) == written.disks["scsi0-0"][CHUNK * 3 - 5 :][:10]
        finally:
            subprocess.run(["fusermount", "-u", str(mountpoint)], check=False, capture_output=True)
            mount.terminate()
            mount.wait(30)


def test_holes_restore_sparse(restic: Restic, ours: Repository, tmp_path: Path) -> None:
    """By the 512 KiB zero chunk that opens a hole, restic knows a sparse file."""
    if restic.version < (0, 15):
        pytest.skip("restic before 0.15 cannot restore sparse files")
    hole = [bytes(512 << 10), bytes((4 << 20) - (512 << 10)), bytes(4 << 20)]
    pieces = [content("AbCd"), *hole, content("x")]
    with RepositoryTarget(ours).begin(info()) as writer:
        disk = writer.disk("scsi0-0", sum(map(len, pieces)))
        packer = disk.packer()
        ids = b"".join(packer.add(BlobKind.DATA, piece) for piece in pieces)
        disk.finish(np.frombuffer(ids, np.uint8).reshape(-1, 32), np.array(list(map(len, pieces)), np.uint32))
        writer.commit({})
    restic("restore", "latest", "--target", str(tmp_path / "out"), "--sparse")
    restored = tmp_path / "out" / "web01" / "scsi0-0" / "scsi0-0.raw"
    assert restored.read_bytes() == b"".join(pieces)
    assert restored.stat().st_blocks * 512 < 1 << 20


def test_restic_forgets_and_prunes_and_ours_lives_on(restic: Restic, ours: Repository) -> None:
    points = [write_point(ours, info(hours=hour), scsi0_0="abcdefgh" + chr(ord("i") + hour)) for hour in range(3)]
    restic("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    again = opened(restic.repository)
    assert [point.time for point in RepositoryTarget(again).points()] == [points[2].point.time]
    assert check(again, Subset()).problems == []
    with RepositoryTarget(again).open("web01@latest") as reader:
        assert read(reader.disk("scsi0-0"), 0, 9 * CHUNK) == points[2].disks["scsi0-0"]
    # and one that was open all the while notices that its index is out of date
    late = write_point(ours, info(hours=9), scsi0_0="abcdefghi")
    with RepositoryTarget(opened(restic.repository)).open(late.point) as reader:
        assert read(reader.disk("scsi0-0"), 0, 9 * CHUNK) == late.disks["scsi0-0"]
    restic("check", "--read-data")


def test_tagging_keeps_the_restore_point(restic: Restic, written: Written) -> None:
    restic("tag", "--add", "keep", "latest")
    target = RepositoryTarget(opened(restic.repository))
    [point] = target.points()
    assert point.id != written.point.id
    assert target.find(written.point.short_id) == point
    assert "keep" in point.tags
    with target.open(point) as reader:
        reader.verify()


def test_restic_may_rewrite_our_trees(restic: Restic, written: Written) -> None:
    """It refuses trees that it could not have spelled itself."""
    if restic.version < (0, 15):
        pytest.skip("restic before 0.15 cannot rewrite")
    restic("rewrite", "--exclude", "*.vmx", "--forget", "latest")
    repository = opened(restic.repository)
    [point] = RepositoryTarget(repository).points()
    node = browse.find(repository, point.tree, raw(written, "scsi0-0"))
    stored = browse.open_file(repository, node, "disk")
    assert read(stored, 0, stored.size_bytes) == written.disks["scsi0-0"]


def test_restic_copies_a_restore_point(restic: Restic, written: Written, tmp_path: Path) -> None:
    if restic.version < (0, 15):
        pytest.skip("restic before 0.15 has other options for copy")
    other = Restic(restic.program, tmp_path / "other", PASSWORD, restic.scratch)
    other("init")
    other("copy", "--from-repo", str(restic.repository))
    target = RepositoryTarget(opened(other.repository))
    with target.open("web01@latest") as reader:
        reader.verify()
        assert read(reader.disk("scsi0-1"), 0, 5 * CHUNK) == written.disks["scsi0-1"]


def test_another_password_added_by_restic_opens_it(restic: Restic, written: Written, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.write_text("second password\n")
    restic("key", "add", "--new-password-file", str(second))
    repository = Repository.open(DirectoryBackend(restic.repository), "second password")
    assert len(RepositoryTarget(repository).points()) == 1


def test_restic_respects_our_locks_and_we_its(restic: Restic, ours: Repository, written: Written) -> None:
    live = Repository.open(DirectoryBackend(restic.repository), PASSWORD, clock=SystemClock())
    with live.locked(exclusive=True):
        refused = restic.run("backup", "/etc/hostname")
        assert refused.returncode == (11 if restic.version >= (0, 17) else 1)
        assert b"locked" in refused.stderr
    with live.locked():
        assert restic.run("backup", "/etc/hostname").returncode == 0
        assert restic.run("prune").returncode != 0
    restic("prune")
    with live.locked(exclusive=True), pytest.raises(Busy, match="exclusively by"):
        RepositoryTarget(ours).open(written.point)


def test_a_flipped_bit_is_seen_by_both(restic: Restic, written: Written) -> None:
    pack = max(
        (path for path in (restic.repository / "data").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    damaged = bytearray(pack.read_bytes())
    damaged[1000] ^= 4
    pack.chmod(0o600)
    pack.write_bytes(damaged)
    assert restic.run("check", "--read-data").returncode != 0
    report = check(opened(restic.repository), Subset())
    assert any(
        pack.name in problem.message and problem.points == ("web01@2026-11-22T01:00:00Z",)
        for problem in report.problems
    )


@pytest.mark.parametrize("options", [WriteOptions(pack_bytes=4 << 20), WriteOptions(pack_bytes=16 << 20, writers=1)])
def test_many_blobs_of_all_sizes(restic: Restic, ours: Repository, options: WriteOptions) -> None:
    random = np.random.default_rng(1)
    sizes = [1, 2, 31, 32, 33, 4095, 4096, (1 << 20) + 1, 5 << 20, *random.integers(1, 9000, 400).tolist()]
    pieces = [random.bytes(size) if number % 3 else bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with RepositoryTarget(ours, options).begin(info()) as writer:
        disk = writer.disk("scsi0-0", sum(sizes))
        packers = [disk.packer() for _ in range(3)]
        ids = b"".join(packers[number % 3].add(BlobKind.DATA, piece) for number, piece in enumerate(pieces))
        disk.finish(np.frombuffer(ids, np.uint8).reshape(-1, 32), np.array(sizes, np.uint32))
        writer.commit({})
    restic("check", "--read-data")
    assert digest(restic("dump", "latest", "/web01/scsi0-0/scsi0-0.raw")) == digest(b"".join(pieces))


def test_restic_is_content_after_a_crash_at_any_step(restic: Restic, tmp_path: Path) -> None:
    """What is durable after each step, as a directory of its own: sound, and what it lists restores."""
    backend = RecordingBackend()
    repository = made(backend, SystemClock())
    first = write_point(repository, info(hours=0), scsi0_0="abcdefgh")
    begun = len(backend.history)
    second = write_point(repository, info(hours=1), scsi0_0="abcdefghijklmnopqrstuv0")
    states = [
        {name: data for name, data in files.items() if name.kind is not FileKind.LOCK} for files in backend.history
    ]
    crashes = [after for before, after in pairwise(states[begun - 1 :]) if before != after]
    assert len(crashes) >= 6
    listed = []
    for number, files in enumerate(crashes):
        place = tmp_path / f"crash{number}"
        for name, data in files.items():
            (place / name.path).parent.mkdir(parents=True, exist_ok=True)
            (place / name.path).write_bytes(data)
        crashed = Restic(restic.program, place, PASSWORD, restic.scratch)
        crashed("check", "--read-data", "--no-cache")
        snapshots = json.loads(crashed("snapshots", "--json"))
        for snapshot, written in zip(snapshots, (first, second), strict=False):
            assert crashed("dump", "--no-cache", snapshot["id"], raw(written, "scsi0-0")) == written.disks["scsi0-0"]
        listed.append(len(snapshots))
    assert listed == [1] * (len(crashes) - 1) + [2]


# ---------------------------------------------------------------------- ours on stock restic's


@pytest.fixture(scope="module")
def made_by_restic(program: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A repository made by restic: two snapshots of a directory with awkward names and sizes."""
    place = tmp_path_factory.mktemp("foreign")
    source = place / "source"
    (source / "deep" / "er").mkdir(parents=True)
    random = np.random.default_rng(5)
    files = {
        "empty": b"",
        "small": b"small",
        "large": random.bytes(3 << 20) + bytes(3 << 20) + random.bytes(1 << 20),
        'deep/er/ü <&> " \\ \n name': b"odd",
        "deep/text": b"line\n" * 100_000,
    }
    for name, data in files.items():
        (source / name).write_bytes(data)
    (source / "link").symlink_to("small")
    os.mkfifo(source / "pipe")
    restic = Restic(program, place / "repository", PASSWORD, place)
    restic("init")
    restic("backup", str(source))
    files["new"] = b"new"
    (source / "new").write_bytes(b"new")
    restic("backup", str(source))
    return restic.repository, {str(source / name): data for name, data in files.items()}


@pytest.fixture
def foreign(restic: Restic, made_by_restic: tuple[Path, dict[str, bytes]]) -> dict[str, bytes]:
    """A copy of it to play with, and the files in it."""
    shutil.copytree(made_by_restic[0], restic.repository)
    return made_by_restic[1]


def test_ours_checks_and_reads_it(restic: Restic, foreign: dict[str, bytes]) -> None:
    repository = opened(restic.repository)
    report = check(repository, Subset())
    assert report.problems == []
    assert (report.snapshots, report.packs_read) == (2, report.packs)
    assert RepositoryTarget(repository).points() == []
    latest = repository.snapshots()[-1]
    for path, data in foreign.items():
        if "\n" in path:
            continue  # restic quotes such names once more inside the tree; a VM's disks never have them
        stored = browse.open_file(repository, browse.find(repository, latest.tree, path), path)
        assert read(stored, 0, stored.size_bytes) == data
    assert len(list(browse.walk(repository, latest.tree))) >= len(foreign)


def test_ours_writes_into_it(restic: Restic, foreign: dict[str, bytes]) -> None:
    repository = opened(restic.repository)
    assert repository.chunker.window == 64
    point = write_point(repository, PointInfo("web01", "50-web01", START), scsi0_0="abcdef")
    restic("check", "--read-data")
    assert restic("dump", "--host", "web01", "latest", raw(point, "scsi0-0")) == point.disks["scsi0-0"]
    assert len(json.loads(restic("snapshots", "--json"))) == 3


def test_uncompressed_repositories_are_read(restic: Restic, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    restic("init")
    restic("backup", "--compression", "off", str(tmp_path / "file"))
    repository = opened(restic.repository)
    assert check(repository, Subset()).problems == []


def test_the_first_format_is_refused_by_name(restic: Restic) -> None:
    from vcbproxy.errors import UsageError

    restic("init", "--repository-version", "1")
    with pytest.raises(UsageError, match="upgrade_repo_v2"):
        opened(restic.repository)
