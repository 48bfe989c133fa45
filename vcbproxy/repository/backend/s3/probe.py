"""What a server really does. Some answer 200 to a condition, a checksum or a lock, and heed none of them.

Each promise is put to the test with a few small objects below ``<prefix>/locks/``, where keys that may remove nothing
else may remove, and where names like these are ignored. They are removed afterwards. What makes data unsafe is told
apart from what is only weaker:

    promise      without it
    whole        unsafe: what comes back is not what went in, or not yet
    listed       unsafe: prune and check act on what is listed, the index on what is not
    compared     weaker: damage on the way is found by us, by the MD5 that the server names; unsafe without that
    conditional  weaker: of two who create a repository at once in one place, both may believe that they did
    locked       unsafe, where locks are wanted: there are none
    clock        weaker: dates of locks come from this machine's clock
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from vcbproxy import config
from vcbproxy.clock import Clock
from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.s3 import client as clients
from vcbproxy.repository.backend.s3 import failures
from vcbproxy.repository.backend.s3.failures import wrapped
from vcbproxy.repository.backend.s3.place import Place

_RACERS = 8
_LOCKED_S = 4
_SKEW_MAX_S = 60


class Promise(Enum):
    """What a repository relies on."""

    WHOLE = "what is written is read back at once, whole and by ranges"
    LISTED = "what is written is listed at once, what is removed is listed no more"
    COMPARED = "what does not match its checksum is refused"
    CONDITIONAL = "what is to be created only where nothing is, is created once"
    LOCKED = "what is locked is not removed"
    CLOCK = "this machine's clock and the server's agree"


class Verdict(Enum):
    """What came of a test."""

    KEPT = "kept"
    WEAKER = "weaker"
    UNSAFE = "unsafe"


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise, whether it is kept, and what that means."""

    promise: Promise
    verdict: Verdict
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.promise.name.lower()}: {self.detail}"


class Unfit(TargetError):
    """The server breaks promises that data rest on."""

    template = "{location}: no place for backups: {reasons}"


def probe(location: str, settings: config.S3, clock: Clock) -> list[Finding]:
    """Test a bucket that exists.

    Args:
        location: the repository's.
        settings: how it is to be used.
        clock: to be compared with the server's, and to wait for the end of a lock.

    Raises:
        UsageError, ConfigError: location or settings cannot be used.
        CredentialsError: the keys may not write there.
        TargetError: it cannot be reached.
    """
    place = Place.parse(location)
    return Prober(place, clients.connect(place, settings), settings, clock).run()


def require_safe(location: str, findings: list[Finding]) -> None:
    """Raise when data would be unsafe.

    Raises:
        Unfit: names each broken promise.
    """
    broken = [str(finding) for finding in findings if finding.verdict is Verdict.UNSAFE]
    if broken:
        raise Unfit(location=location, reasons="; ".join(broken), broken=broken)


class Prober:
    """Tests one bucket."""

    def __init__(self, place: Place, client: Any, settings: config.S3, clock: Clock) -> None:
        self._place = place
        self._client = client
        self._settings = settings
        self._clock = clock
        self._folder = place.key(f"locks/probe-{secrets.token_hex(8)}")
        self._made: list[dict[str, Any]] = []

    def run(self) -> list[Finding]:
        """All tests, one after the other; what they wrote is removed."""
        tests: list[Callable[[], Finding]] = [
            self._clocks,
            self._whole,
            self._compared,
            self._conditional,
            self._listed,
        ]
        if self._settings.object_lock is not config.ObjectLock.OFF:
            tests.append(self._locked)
        try:
            with wrapped(self._place, "try out the server"):
                return [test() for test in tests]
        finally:
            self._tidy()

    # ------------------------------------------------------------------ one test each

    def _clocks(self) -> Finding:
        skew_s = abs((self._server_time() - self._clock.now()).total_seconds())
        if skew_s > _SKEW_MAX_S:
            detail = f"they differ by {skew_s:.0f} s; set both by NTP"
            return Finding(Promise.CLOCK, Verdict.WEAKER, detail)
        return Finding(Promise.CLOCK, Verdict.KEPT)

    def _whole(self) -> Finding:
        body = secrets.token_bytes(100_000)
        self._put("whole", body, ChecksumSHA256=_sha256(body))
        whole = self._get("whole")
        some = self._get("whole", Range="bytes=70001-70010")
        if whole != body:
            return Finding(Promise.WHOLE, Verdict.UNSAFE, "other bytes come back than were written")
        if some != body[70001:70011]:
            detail = f"asked for 10 bytes from the middle, it gives {len(some)} others"
            return Finding(Promise.WHOLE, Verdict.UNSAFE, detail)
        return Finding(Promise.WHOLE, Verdict.KEPT)

    def _compared(self) -> Finding:
        body = b"not what the checksum says"
        try:
            answer = self._put("compared", body, ChecksumSHA256=_sha256(b"what the checksum says"))
        except ClientError as refused:
            _require_refusal(refused)
            return Finding(Promise.COMPARED, Verdict.KEPT)
        if answer.get("ETag", "").strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest():
            detail = "it takes a file with a wrong SHA-256 for a good one; each file's MD5 is compared here instead"
            return Finding(Promise.COMPARED, Verdict.WEAKER, detail)
        detail = "it takes a file with a wrong SHA-256 for a good one, and names no MD5 either: damage would go unseen"
        return Finding(Promise.COMPARED, Verdict.UNSAFE, detail)

    def _conditional(self) -> Finding:
        def create(number: int) -> bool:
            try:
                self._put("conditional", b"%d" % number, IfNoneMatch="*")
            except ClientError as refused:
                _require_refusal(refused)
                return False
            return True

        create(0)
        with ThreadPoolExecutor(_RACERS, "racer") as pool:
            again = sum(pool.map(create, range(1, _RACERS)))
        if again or self._get("conditional") != b"0":
            detail = "it writes over what is there; do not initialise one repository from two machines at once"
            return Finding(Promise.CONDITIONAL, Verdict.WEAKER, detail)
        return Finding(Promise.CONDITIONAL, Verdict.KEPT)

    def _listed(self) -> Finding:
        names = [f"listed/{number}" for number in range(5)]
        for name in names:
            self._put(name, b"")
        if (found := sorted(self._list("listed/"))) != names:
            return Finding(Promise.LISTED, Verdict.UNSAFE, f"wrote {len(names)} files, it lists {len(found)}")
        for name in names[::2]:
            self._remove(name)
        if sorted(self._list("listed/")) != names[1::2]:
            return Finding(
                Promise.LISTED, Verdict.UNSAFE, "files that were removed are still listed, or others no more"
            )
        return Finding(Promise.LISTED, Verdict.KEPT)

    def _locked(self) -> Finding:
        """Lock an object for a few seconds, try to remove it, wait, and remove it."""
        until = self._server_time() + timedelta(seconds=_LOCKED_S)
        mode = self._settings.object_lock.value.upper()
        advice = 'make a new bucket with Object Lock (it cannot be added everywhere), or set object_lock = "off"'
        try:
            answer = self._put(
                "locked", b"", ChecksumSHA256=_sha256(b""), ObjectLockMode=mode, ObjectLockRetainUntilDate=until
            )
        except ClientError as refused:
            _require_refusal(refused)
            return Finding(Promise.LOCKED, Verdict.UNSAFE, f"it locks nothing in this bucket; {advice}")
        version = answer.get("VersionId")
        if not version:
            return Finding(Promise.LOCKED, Verdict.UNSAFE, f"it keeps no versions in this bucket; {advice}")
        try:
            self._client.delete_object(**self._where("locked"), VersionId=version)
        except ClientError as refused:
            _require_refusal(refused)
        else:
            return Finding(Promise.LOCKED, Verdict.UNSAFE, f"it says that a file is locked, and removes it; {advice}")
        self._clock.sleep(max(0.0, (until - self._server_time()).total_seconds()) + 1)
        return Finding(Promise.LOCKED, Verdict.KEPT)

    # ------------------------------------------------------------------ what they share

    def _where(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._place.bucket, "Key": f"{self._folder}/{name}"}

    def _put(self, name: str, body: bytes, **more: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self._client.put_object(**self._where(name), Body=body, **more)
        version = {"VersionId": answer["VersionId"]} if answer.get("VersionId") else {}
        self._made.append({**self._where(name), **version})
        return answer

    def _remove(self, name: str) -> None:
        answer = self._client.delete_object(**self._where(name))
        if answer.get("DeleteMarker") and answer.get("VersionId"):
            self._made.append({**self._where(name), "VersionId": answer["VersionId"]})

    def _get(self, name: str, **more: Any) -> bytes:
        with self._client.get_object(**self._where(name), **more)["Body"] as body:
            content: bytes = body.read()
        return content

    def _list(self, below: str) -> Iterator[str]:
        """Two a page, so that pages are tested as well."""
        token: dict[str, str] = {}
        while True:
            page = self._client.list_objects_v2(
                Bucket=self._place.bucket, Prefix=f"{self._folder}/{below}", MaxKeys=2, **token
            )
            yield from (entry["Key"].removeprefix(f"{self._folder}/") for entry in page.get("Contents", []))
            following = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not following:
                return
            token = {"ContinuationToken": following}

    def _server_time(self) -> datetime:
        answer = self._client.list_objects_v2(Bucket=self._place.bucket, Prefix=self._folder, MaxKeys=1)
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        try:
            return parsedate_to_datetime(said).astimezone(UTC) if said else self._clock.now()
        except ValueError:
            return self._clock.now()

    def _tidy(self) -> None:
        """Remove what was written; what resists is small, and nobody looks at it."""
        for made in self._made:
            with suppress(BotoCoreError, ClientError):
                self._client.delete_object(**made)


def _require_refusal(error: ClientError) -> None:
    """Go on only when the server refused by its own will; not when it was busy or the keys are wrong.

    Raises:
        ClientError: it was something else.
    """
    status, code = failures.status_of(error), failures.code_of(error)
    if status >= 500 and status != 501:
        raise error
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "NoSuchBucket", "SlowDown"):
        raise error


def _sha256(content: bytes) -> str:
    return b64encode(hashlib.sha256(content).digest()).decode("ascii")
