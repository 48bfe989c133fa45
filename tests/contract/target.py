"""What a target of backups promises, to be run by each: subclass ``TargetContract``, give it a fixture ``target``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.images import pattern
from vcbproxy.device import read
from vcbproxy.errors import DeviceError, IntegrityError, UsageError
from vcbproxy.repository.ids import BlobKind, digest
from vcbproxy.repository.target import RepositoryTarget
from vcbproxy.repository.writer import PointInfo, PointWriter

NOON = datetime(2026, 11, 22, 12, 0, 0, 987654, tzinfo=UTC)


def point(vm: str = "web01", minutes: int = 0) -> PointInfo:
    return PointInfo(vm, f"50-{vm}", NOON + timedelta(minutes=minutes), policy="daily")


def write_disk(writer: PointWriter, key: str, data: bytes, step: int = 5000) -> None:
    disk = writer.disk(key, len(data))
    packers = [disk.packer(), disk.packer()]
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    ids = [packers[number % 2].add(BlobKind.DATA, piece) for number, piece in enumerate(pieces)]
    lengths = np.array([len(piece) for piece in pieces], np.uint32)
    disk.finish(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32), lengths)


def write_and_fail(target: RepositoryTarget) -> None:
    with target.begin(point()) as writer:
        write_disk(writer, "scsi0-0", pattern(0, 10_000))
        raise ZeroDivisionError


class TargetContract:
    """The promises of a target, one a test."""

    def test_what_is_written_is_read(self, target: RepositoryTarget) -> None:
        disk = pattern(0, 100_000)
        with target.begin(point()) as writer:
            writer.file("web01.vmx", b"config")
            write_disk(writer, "scsi0-0", disk)
            write_disk(writer, "scsi0-1", b"")
            written = writer.commit({"method": "san", "nested": {"list": [1, 2.5, None, "ü<>&"]}})
        with target.open("web01@latest") as reader:
            assert reader.summary.id == written.id
            assert reader.manifest == {"method": "san", "nested": {"list": [1, 2.5, None, "ü<>&"]}}
            assert [(entry.key, entry.size_bytes) for entry in reader.disks] == [("scsi0-0", 100_000), ("scsi0-1", 0)]
            assert reader.file("web01.vmx") == b"config"
            device = reader.disk("scsi0-0")
            assert read(device, 0, device.size_bytes) == disk
            assert read(device, 4999, 5002) == disk[4999:10_001]
            assert reader.disk("scsi0-1").size_bytes == 0
            reader.verify()

    def test_nothing_is_listed_before_commit(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            write_disk(writer, "scsi0-0", pattern(0, 10_000))
            assert target.points() == []
            writer.commit({})
        assert [found.vm for found in target.points()] == ["web01"]

    def test_leaving_without_commit_leaves_nothing(self, target: RepositoryTarget) -> None:
        with pytest.raises(ZeroDivisionError):
            write_and_fail(target)
        with target.begin(point()) as writer:
            writer.abort()
        assert target.points() == []

    def test_a_point_can_be_written_after_one_that_failed(self, target: RepositoryTarget) -> None:
        disk = pattern(0, 50_000)
        with target.begin(point()) as writer:
            write_disk(writer, "scsi0-0", disk)
        with target.begin(point()) as writer:
            write_disk(writer, "scsi0-0", disk)
            writer.commit({})
        with target.open("web01@latest") as reader:
            assert read(reader.disk("scsi0-0"), 0, 50_000) == disk

    def test_points_are_listed_newest_last_with_whole_seconds(self, target: RepositoryTarget) -> None:
        for minutes in (5, 0, 9):
            with target.begin(point(minutes=minutes)) as writer:
                writer.commit({})
        found = target.points()
        assert [listed.time.minute for listed in found] == [0, 5, 9]
        assert {listed.time.microsecond for listed in found} == {0}
        assert found[0].name == "web01@2026-11-22T12:00:00Z"
        assert found[0].policy == "daily"

    def test_two_points_can_be_written_at_once(self, target: RepositoryTarget) -> None:
        shared, own = pattern(0, 50_000), pattern(0, 20_000, "own")
        with target.begin(point("web01")) as one, target.begin(point("web02")) as other:
            write_disk(one, "scsi0-0", shared)
            write_disk(other, "scsi0-0", shared + own)
            other.commit({})
            one.abort()
        with target.open("web02@latest") as reader:
            assert read(reader.disk("scsi0-0"), 0, 70_000) == shared + own
        assert [found.vm for found in target.points()] == ["web02"]

    def test_a_disk_must_be_finished(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            writer.disk("scsi0-0", 1000)
            with pytest.raises(UsageError, match="not finished"):
                writer.commit({})
        assert target.points() == []

    def test_an_abandoned_disk_takes_nothing_from_the_others(self, target: RepositoryTarget) -> None:
        shared = pattern(0, 50_000)
        with target.begin(point()) as writer:
            failing, whole = writer.disk("scsi0-0", 1 << 20), writer.disk("scsi0-1", 50_000)
            failing.packer().add(BlobKind.DATA, shared)
            ids = np.frombuffer(whole.packer().add(BlobKind.DATA, shared), np.uint8).reshape(1, 32)
            failing.abandon()
            whole.finish(ids, np.array([50_000], np.uint32))
            writer.commit({})
        with target.open("web01@latest") as reader:
            assert [entry.key for entry in reader.disks] == ["scsi0-1"]
            assert read(reader.disk("scsi0-1"), 0, 50_000) == shared

    def test_chunks_must_add_up_to_the_disk(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            disk = writer.disk("scsi0-0", 1000)
            made = disk.packer().add(BlobKind.DATA, bytes(999))
            with pytest.raises(IntegrityError, match="999"):
                disk.finish(np.frombuffer(made, np.uint8).reshape(1, 32), np.array([999], np.uint32))

    def test_chunks_must_have_been_stored(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            disk = writer.disk("scsi0-0", 1000)
            never = np.frombuffer(digest(b"never stored"), np.uint8).reshape(1, 32)
            with pytest.raises(IntegrityError, match="never stored"):
                disk.finish(never, np.array([1000], np.uint32))

    def test_chunks_must_have_their_lengths(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            disk = writer.disk("scsi0-0", 1000)
            packer = disk.packer()
            ids = packer.add(BlobKind.DATA, bytes(400)) + packer.add(BlobKind.DATA, b"x" * 600)
            with pytest.raises(IntegrityError, match="another length"):
                disk.finish(np.frombuffer(ids, np.uint8).reshape(2, 32), np.array([500, 500], np.uint32))

    def test_names_in_a_point_do_not_collide(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            writer.file("a:b", b"1")
            for taken in ("a?b", "vm.json"):
                with pytest.raises(UsageError, match="called"):
                    writer.file(taken, b"2")

    def test_strange_names_come_back_as_they_were(self, target: RepositoryTarget) -> None:
        name = "../ü \x7f<&>/web\u2028"
        with target.begin(PointInfo(name, "50-strange", NOON)) as writer:
            writer.file(name + ".vmx", b"1")
            writer.commit({})
        with target.open(target.points()[0]) as reader:
            assert reader.summary.vm == reader.contents.vm_name == name
            assert reader.file(name + ".vmx") == b"1"
            reader.verify()

    def test_reading_outside_a_disk_is_refused(self, target: RepositoryTarget) -> None:
        with target.begin(point()) as writer:
            write_disk(writer, "scsi0-0", bytes(1000))
            writer.commit({})
        with target.open("web01@latest") as reader:
            for offset, length in ((0, 1001), (1000, 1), (-1, 1)):
                with pytest.raises(DeviceError):
                    reader.disk("scsi0-0").read_into(offset, memoryview(bytearray(length)))

    def test_unknown_points_disks_and_files(self, target: RepositoryTarget) -> None:
        with pytest.raises(UsageError):
            target.open("web01@latest")
        with target.begin(point()) as writer:
            writer.commit({})
        with target.open("web01@latest") as reader:
            for attempt in (reader.disk, reader.disk_content, reader.file):
                with pytest.raises(UsageError, match="none"):
                    attempt("scsi0-0")
