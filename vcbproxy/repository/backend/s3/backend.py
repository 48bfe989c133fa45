"""A repository in a bucket.

Every file is created under the condition that it is not there (``If-None-Match: *``): nothing is ever written over, so
keys that may not overwrite are enough. A file named by its content that is there already, in full length, is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from vcbproxy import config
from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.base import (
    FileExists,
    FileKind,
    FileLocked,
    FileMissing,
    FileName,
    FileShort,
    Heat,
    Stored,
    Traits,
    Unavailable,
)
from vcbproxy.repository.backend.s3 import client as clients
from vcbproxy.repository.backend.s3 import failures, lock
from vcbproxy.repository.backend.s3.failures import wrapped
from vcbproxy.repository.backend.s3.lock import ObjectLock
from vcbproxy.repository.backend.s3.place import Place
from vcbproxy.repository.backend.s3.transfer import Transfer
from vcbproxy.repository.backend.s3.uploads import Uploads
from vcbproxy.repository.ids import Buffer, is_hex_id
from vcbproxy.units import MiB

_CONDITION_UNKNOWN = {"NotImplemented", "InvalidArgument", "InvalidRequest"}
_CONFLICTS_MAX = 5


class S3Backend:
    """Objects below one prefix of one bucket."""

    def __init__(self, place: Place, client: Any, settings: config.S3, clock: Clock | None = None) -> None:
        """Use ``S3Backend.at``."""
        self.place = place
        self.client = client
        self.settings = settings
        self._locks = ObjectLock.of(place, client, settings, clock or SystemClock())
        self._transfer = Transfer(client, place, settings.part_mib * MiB, settings.connections)
        self._uploads = Uploads(place, client)
        self._knows_conditions = True

    @classmethod
    def at(cls, location: str, settings: config.S3 | None = None) -> S3Backend:
        """A backend for a location; nothing is sent yet.

        Raises:
            UsageError: it is not a place.
            ConfigError: the settings cannot be used.
            CredentialsError: the profile is not there.
        """
        place, settings = Place.parse(location), settings or config.S3()
        return cls(place, clients.connect(place, settings), settings)

    @property
    def location(self) -> str:
        """As restic would write it."""
        return self.place.location

    @property
    def traits(self) -> Traits:
        """Far away, with as many connections as are configured."""
        return Traits(self.settings.connections, remote=True, retaining=self._locks, sweeping=self._uploads)

    def create(self) -> None:
        """Make the bucket unless it is there."""
        with wrapped(self.place, "look for the bucket"):
            if self._has_bucket():
                return
        with wrapped(self.place, f"create the bucket {self.place.bucket}"):
            self.client.create_bucket(Bucket=self.place.bucket, **self._bucket_options())

    def save(self, name: FileName, parts: Sequence[Buffer]) -> None:
        """Create the object, compared with its checksum by the server."""
        with wrapped(self.place, f"write {name.path}"):
            if name.kind.single and self._size_or_none(name) is not None:
                raise FileExists(location=self.location, path=name.path)  # some servers ignore conditions
            if self._create(name, parts):
                return
            if name.kind.single:
                raise FileExists(location=self.location, path=name.path)
            if self._size_or_none(name) != sum(memoryview(part).nbytes for part in parts):
                self._put(name, parts, {})  # a torn one of a server that keeps such

    def load(self, name: FileName, offset: int, buf: memoryview) -> None:
        """Read a range; what comes is held against what was asked for."""
        end = offset + len(buf)
        if not len(buf):
            if self.size(name) < offset:
                raise FileShort(location=self.location, path=name.path, end=end)
            return
        with wrapped(self.place, f"read {name.path}", name):
            try:
                answer = self.client.get_object(**self._where(name), Range=f"bytes={offset}-{end - 1}")
            except ClientError as error:
                if failures.status_of(error) == 416:
                    raise FileShort(location=self.location, path=name.path, end=end) from error
                raise
            with answer["Body"] as body:
                failures.require(answer, self.place, f"read {name.path}", "ETag")
                self._hold_range(name, answer, offset, end)
                done = 0
                while done < len(buf):
                    count = body.readinto(buf[done:])
                    if not count:
                        reason = f"the answer ended after {done} of {len(buf)} bytes"
                        raise Unavailable(location=self.location, action=f"read {name.path}", reason=reason)
                    done += count

    def size(self, name: FileName) -> int:
        """As HEAD says."""
        return int(self.head(name)["ContentLength"])

    def head(self, name: FileName) -> Mapping[str, Any]:
        """What the server says of an object, checksum included.

        Raises:
            FileMissing: no such object.
            BucketMissing: no such bucket.
            TargetError: it could not be asked.
        """
        with wrapped(self.place, f"look at {name.path}", name):
            try:
                found: Mapping[str, Any] = self.client.head_object(**self._where(name))
            except ClientError as error:
                if failures.status_of(error) == 404 and name.kind.single and not self._has_bucket():
                    raise failures.BucketMissing(location=self.location, bucket=self.place.bucket) from error
                if failures.status_of(error) in (401, 403):
                    self._hear_why(name)
                raise
        failures.require(found, self.place, f"look at {name.path}", "ETag")
        return found

    def list(self, kind: FileKind) -> Iterator[Stored]:
        """Page by page, to the page that says it is the last."""
        if kind.single:
            size_bytes = self._size_or_none(FileName(kind))
            if size_bytes is not None:
                yield Stored(FileName(kind), size_bytes)
            return
        prefix = self.place.key(f"{kind.value}/")
        for entry in self._entries(prefix):
            stem = entry["Key"].rpartition("/")[2]
            if is_hex_id(stem) and self.place.key(FileName(kind, stem).path) == entry["Key"]:
                yield Stored(FileName(kind, stem), int(entry["Size"]))

    def remove(self, name: FileName) -> None:
        """Delete the object; the server itself would not say that there was none.

        Where objects are locked their buckets keep versions, and a plain DELETE of a locked object seems to work: it
        only hides it. There the version itself is deleted, which frees the space, or is refused.
        """
        found = self.head(name)
        version = {"VersionId": found["VersionId"]} if self._locks is not None and found.get("VersionId") else {}
        with wrapped(self.place, f"remove {name.path}", name):
            try:
                self.client.delete_object(**self._where(name), **version)
            except ClientError:
                if (until := lock.kept_until(found)) is not None:
                    raise FileLocked(location=self.location, path=name.path, until=lock.shown(until)) from None
                raise

    # ------------------------------------------------------------------ parts of them

    def _where(self, name: FileName) -> dict[str, Any]:
        return {"Bucket": self.place.bucket, "Key": self.place.key(name.path)}

    def _create(self, name: FileName, parts: Sequence[Buffer]) -> bool:
        """Put it unless it is there; False when it is."""
        for _ in range(_CONFLICTS_MAX):
            conditional = self._knows_conditions
            try:
                self._put(name, parts, {"IfNoneMatch": "*"} if conditional else {})
            except ClientError as error:
                code, status = failures.code_of(error), failures.status_of(error)
                if status == 412:
                    return False
                if conditional and (status == 501 or code in _CONDITION_UNKNOWN):
                    self._knows_conditions = False
                elif status != 409:  # another one is creating it just now: who came first is known at the next try
                    raise
            else:
                return True
        reason = f"{_CONFLICTS_MAX} times another one was creating it at that moment"
        raise Unavailable(location=self.location, action=f"write {name.path}", reason=reason)

    def _put(self, name: FileName, parts: Sequence[Buffer], condition: Mapping[str, str]) -> None:
        sha256 = None if name.kind.single else bytes.fromhex(name.stem)
        extra = {**condition, **self._placing(name)}
        if self._locks is not None:
            extra |= self._locks.at_creation(name)
        self._transfer.put(self.place.key(name.path), parts, sha256, extra)

    def _placing(self, name: FileName) -> dict[str, Any]:
        """Where the server is to keep it."""
        if self.settings.storage_class is None or name.heat is Heat.HOT:
            return {}
        return {"StorageClass": self.settings.storage_class}

    def _hold_range(self, name: FileName, answer: Mapping[str, Any], offset: int, end: int) -> None:
        """See that the range is the one asked for, by its first byte and its length."""
        given = str(answer.get("ContentRange", ""))
        whole = not given and offset == 0  # a server that sends all without a word: right only from the beginning
        length = int(answer["ContentLength"])
        if not whole and not given.startswith(f"bytes {offset}-"):
            raise TargetError(f"{self.location}: {name.path}: asked for bytes {offset}-{end - 1}, got {given or 'all'}")
        if length < end - offset:
            raise FileShort(location=self.location, path=name.path, end=end)
        if length > end - offset and not whole:
            raise TargetError(f"{self.location}: {name.path}: asked for {end - offset} bytes, got {length}")

    def _hear_why(self, name: FileName) -> None:
        """An answer to HEAD has no room for a reason: ask by GET, which raises with one."""
        self.client.get_object(**self._where(name), Range="bytes=0-0")["Body"].close()

    def _size_or_none(self, name: FileName) -> int | None:
        try:
            return self.size(name)
        except FileMissing:
            return None

    def _has_bucket(self) -> bool:
        try:
            self.client.head_bucket(Bucket=self.place.bucket)
        except ClientError as error:
            if failures.status_of(error) == 404:
                return False
            raise
        return True

    def _entries(self, prefix: str) -> Iterator[Mapping[str, Any]]:
        """All objects below a prefix. A page that says there are more and not where is an error, never the end."""
        token: str | None = None
        while True:
            with wrapped(self.place, f"list {prefix}"):
                following = {"ContinuationToken": token} if token else {}
                page = self.client.list_objects_v2(Bucket=self.place.bucket, Prefix=prefix, **following)
            failures.require(page, self.place, f"list {prefix}", "IsTruncated", "Name")
            yield from page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            before, token = token, page.get("NextContinuationToken")
            if not token or token == before:
                raise TargetError(
                    f"{self.location}: cannot list {prefix}: the server says there is more, and not where"
                )

    def _bucket_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        region = self.client.meta.region_name
        if self.place.amazon and region != "us-east-1":
            options["CreateBucketConfiguration"] = {"LocationConstraint": region}
        if self.settings.object_lock is not config.ObjectLock.OFF:
            options["ObjectLockEnabledForBucket"] = True
        return options
