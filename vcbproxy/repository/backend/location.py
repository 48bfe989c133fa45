"""From a location as the operator writes it to the backend that keeps a repository there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcbproxy.errors import UsageError
from vcbproxy.repository.backend.base import Backend

if TYPE_CHECKING:
    from vcbproxy.config import S3


def open_backend(location: str, *, create: bool = False, s3: S3 | None = None) -> Backend:
    """The backend for a location as the operator writes it: a directory's path, or a bucket as restic names it.

    Args:
        location: a path, or ``s3:https://host/bucket/prefix``.
        create: make the directories or the bucket too; without it nothing is touched before the first ``save``.
        s3: how a bucket is used.

    Raises:
        UsageError: a scheme that is not known.
        TargetError: it could not be made.
    """
    scheme, colon, rest = location.partition(":")
    has_scheme = bool(colon) and "/" not in scheme
    backend: Backend
    if has_scheme and scheme == "s3":
        from vcbproxy.repository.backend.s3.backend import S3Backend  # and with it boto3, which takes its time

        backend = S3Backend.at(location, s3)
    elif has_scheme and scheme not in ("local", "file"):
        raise UsageError(f"no way to keep a repository in {location!r}: give a directory or s3:https://host/bucket")
    else:
        from vcbproxy.repository.backend.directory import DirectoryBackend

        backend = DirectoryBackend(rest.removeprefix("//") if has_scheme else location)
    if create:
        backend.create()
    return backend
