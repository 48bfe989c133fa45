"""Multipart uploads that nobody finished: their parts are paid for and listed nowhere.

A writer that fails aborts its own; one that is killed cannot. What is older than any writer can still be at is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from vcbproxy.errors import TargetError
from vcbproxy.repository.backend.base import FileKind
from vcbproxy.repository.backend.s3 import failures
from vcbproxy.repository.backend.s3.failures import wrapped
from vcbproxy.repository.backend.s3.place import Place
from vcbproxy.repository.ids import is_hex_id


class Uploads:
    """The unfinished uploads of one repository; those of others in the same bucket are left alone."""

    def __init__(self, place: Place, client: Any) -> None:
        self._place = place
        self._client = client

    def sweep(self, before: datetime) -> int:
        """Abort those begun before a moment; how many there were.

        Raises:
            TargetError: they could not be listed or aborted.
        """
        swept = 0
        for upload in [*self._unfinished()]:
            if upload["Initiated"] < before and self._is_ours(upload["Key"]):
                with wrapped(self._place, f"abort an unfinished upload of {upload['Key']}"):
                    self._abort(upload)
                swept += 1
        return swept

    def _abort(self, upload: Mapping[str, Any]) -> None:
        try:
            self._client.abort_multipart_upload(
                Bucket=self._place.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        except ClientError as error:
            if failures.status_of(error) != 404:  # finished or aborted meanwhile
                raise

    def _unfinished(self) -> Iterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        while True:
            with wrapped(self._place, "list unfinished uploads"):
                page = self._client.list_multipart_uploads(
                    Bucket=self._place.bucket, Prefix=self._place.key(""), **after
                )
            failures.require(page, self._place, "list unfinished uploads", "IsTruncated", "Bucket")
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            following = {"KeyMarker": page.get("NextKeyMarker"), "UploadIdMarker": page.get("NextUploadIdMarker")}
            if following == after or not following["KeyMarker"]:
                raise TargetError(
                    f"{self._place.location}: cannot list unfinished uploads: it does not say where to go on"
                )
            after = {name: value for name, value in following.items() if value}

    def _is_ours(self, key: str) -> bool:
        path = key.removeprefix(self._place.key(""))
        kind, _, name = path.partition("/")
        return kind in {kind.value for kind in FileKind} and is_hex_id(name.rpartition("/")[2])
