"""How bytes get into an object, and how we know that they did.

A small file is one PUT, a large one a multipart upload whose parts go side by side. Each request carries the SHA-256 of
what it sends: the server compares before it keeps anything. The digest of a file named by its content is its name, so
what is compared reaches from the packer's memory to the server's disk.

Servers that know nothing of such checksums (old Ceph, gateways) answer without one. Then the ETag, the MD5 of what
arrived, is compared here; when it differs, or says nothing, the file does not count as stored.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.base import Unavailable
from vcbproxy.repository.backend.s3 import failures
from vcbproxy.repository.backend.s3.place import Place
from vcbproxy.repository.ids import Buffer
from vcbproxy.units import MiB

_SINGLE_PARTS = 4
"""A file of up to so many parts is one PUT: it can be digested, and tried again, as one."""
_PARTS_MAX = 10_000
_MD5_ETAG = re.compile(r'^"?([0-9a-f]{32})"?$')


@dataclass(frozen=True, slots=True)
class Transfer:
    """Sends files to one bucket."""

    client: Any
    place: Place
    part_bytes: int = 16 * MiB
    connections: int = 5

    def put(self, key: str, parts: Sequence[Buffer], sha256: bytes | None, extra: Mapping[str, Any]) -> None:
        """Store one object; it is whole and compared when this returns.

        Args:
            key: the object's.
            parts: its bytes.
            sha256: their digest, where it is known.
            extra: further parameters of the request: conditions, storage class, retention.

        Raises:
            BotoCoreError, ClientError: as boto3 raises them; the caller's boundary wraps them.
            Unavailable: something else arrived than was sent.
            TargetError: the server says nothing by which one could know.
        """
        size_bytes = sum(memoryview(part).nbytes for part in parts)
        if size_bytes > _SINGLE_PARTS * self.part_bytes:
            self._put_parts(key, parts, size_bytes, extra)
            return
        body = _joined(parts)
        sha256 = sha256 or hashlib.sha256(body).digest()
        answer = self.client.put_object(
            Bucket=self.place.bucket, Key=key, Body=body, ChecksumSHA256=_base64(sha256), **extra
        )
        self._compare(key, body, sha256, answer)

    def _put_parts(self, key: str, parts: Sequence[Buffer], size_bytes: int, extra: Mapping[str, Any]) -> None:
        condition = {name: value for name, value in extra.items() if name.startswith("If")}
        rest = {name: value for name, value in extra.items() if name not in condition}
        part_bytes = max(self.part_bytes, -(-size_bytes // _PARTS_MAX))
        where = {"Bucket": self.place.bucket, "Key": key}
        upload = self.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256", **rest)
        failures.require(upload, self.place, f"write {key}", "UploadId")
        where["UploadId"] = upload["UploadId"]
        try:
            done = self._send_parts(where, _cut(parts, part_bytes), -(-size_bytes // part_bytes))
            self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": done}, **condition)
            self._hold_length(key, size_bytes)
        except BaseException:
            with suppress(BotoCoreError, ClientError):  # the first error is the one to be seen; age removes it else
                self.client.abort_multipart_upload(**where)
            raise

    def _hold_length(self, key: str, size_bytes: int) -> None:
        """Each part was compared; whether all of them were put together is seen by the length."""
        found = self.client.head_object(Bucket=self.place.bucket, Key=key)
        failures.require(found, self.place, f"look at {key}", "ETag")
        stored = int(found["ContentLength"])
        if stored != size_bytes:
            reason = f"the server made {stored} bytes of parts that come to {size_bytes}"
            raise Unavailable(location=self.place.location, action=f"write {key}", reason=reason)

    def _send_parts(self, where: Mapping[str, Any], bodies: Iterator[bytes], count: int) -> list[dict[str, Any]]:
        """Send all parts, as many at once as there are connections; a body is copied only when its turn comes."""
        done: list[dict[str, Any]] = []
        with ThreadPoolExecutor(min(self.connections, count), "part-sender") as pool:
            waiting = []
            for number, body in enumerate(bodies, 1):
                waiting.append(pool.submit(self._send_part, where, number, body))
                if len(waiting) > self.connections:
                    done.append(waiting.pop(0).result())
            done += [future.result() for future in waiting]
        return done

    def _send_part(self, where: Mapping[str, Any], number: int, body: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(body).digest()
        answer = self.client.upload_part(**where, PartNumber=number, Body=body, ChecksumSHA256=_base64(sha256))
        self._compare(f"part {number} of {where['Key']}", body, sha256, answer)
        failures.require(answer, self.place, f"write part {number} of {where['Key']}", "ETag")
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumSHA256" in answer:
            part["ChecksumSHA256"] = answer["ChecksumSHA256"]
        return part

    def _compare(self, what: str, body: bytes, sha256: bytes, answer: Mapping[str, Any]) -> None:
        failures.require(answer, self.place, f"write {what}", "ETag", "ChecksumSHA256")
        confirmed = answer.get("ChecksumSHA256")
        etag = _MD5_ETAG.match(answer.get("ETag", ""))
        if confirmed is not None:
            same = confirmed == _base64(sha256)
        elif etag is not None:
            same = etag[1] == hashlib.md5(body, usedforsecurity=False).hexdigest()
        else:
            raise TargetError(
                f"{self.place.location}: {what}: the server confirms neither SHA-256 nor MD5 of what arrived"
            )
        if not same:
            reason = "the server has other bytes than were sent"
            raise Unavailable(location=self.place.location, action=f"write {what}", reason=reason)


def _joined(parts: Sequence[Buffer]) -> bytes:
    """One piece. It is a copy, of one pack: botocore can send nothing else a second time but bytes or an open file."""
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    return b"".join(parts)


def _cut(parts: Sequence[Buffer], part_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces of one size, the last one shorter."""
    held = bytearray()
    for part in parts:
        rest = memoryview(part).cast("B")
        while rest.nbytes:
            taken = rest[: part_bytes - len(held)]
            held += taken
            rest = rest[taken.nbytes :]
            if len(held) == part_bytes:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
