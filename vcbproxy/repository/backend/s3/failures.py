"""The one place where botocore's exceptions become ours, each with what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import botocore.exceptions as boto
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from vcbproxy.errors import CredentialsError, Error, RepositoryMissing, TargetError
from vcbproxy.repository.backend.base import FileMissing, FileName, Unavailable
from vcbproxy.repository.backend.s3.place import Place

_NO_KEYS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.UnauthorizedSSOTokenError,
)
_WRONG_KEYS = {
    "InvalidAccessKeyId": "the server does not know this access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired; get a new one",
    "InvalidToken": "the session token is not valid",
    "InvalidClientTokenId": "the server does not know this access key",
    "AuthorizationHeaderMalformed": "the region is wrong; set repository.s3.region",
}
_REMEDIES = {
    "RequestTimeTooSkewed": "this machine's clock and the server's differ; set both by NTP",
    "SlowDown": "the server asks for fewer requests; lower repository.s3.connections or run at another time",
    "ServiceUnavailable": "the server is overloaded or restarts; try later",
    "InternalError": "the server failed within; see its log",
    "QuotaExceeded": "raise the quota or prune, then run again; no restore point is harmed",
    "XMinioStorageFull": "free space or prune, then run again; no restore point is harmed",
    "InvalidObjectState": "it lies in an archive class and must be restored to a readable one first",
    "PermanentRedirect": "the bucket is in another region; set repository.s3.region",
    "BadDigest": "it was damaged on the way; when this comes again, the network or a proxy on it is faulty",
    "XAmzContentChecksumMismatch": "it was damaged on the way; when this comes again, the network is faulty",
}


_PASSING = {"SlowDown", "RequestTimeout", "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


class BucketMissing(RepositoryMissing):
    """There is no such bucket."""

    template = "{location}: there is no bucket {bucket}; check the name, or create it with `vcbproxy repo init`"


@contextmanager
def wrapped(place: Place, action: str, name: FileName | None = None) -> Iterator[None]:
    """Let only our errors out.

    Args:
        place: for messages.
        action: what failed then, as in ``cannot {action}``.
        name: the file that a 404 is about.
    """
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError, ResponseParserError, urllib3.exceptions.HTTPError, OSError) as error:
        raise translated(error, place, action, name) from error


def require(answer: Mapping[str, Any], place: Place, action: str, *fields: str) -> None:
    """See that an answer has what every such answer has: 200 and a sign-in page, or nothing at all, is none.

    Sent by a proxy or a load balancer, it would else be read as an answer that says nothing: as a list of no files.

    Raises:
        Unavailable: none of these fields is in it.
    """
    if not any(field in answer for field in fields):
        reason = "what came is no answer of an S3 server; does a proxy or a load balancer answer in its place?"
        raise Unavailable(location=place.location, action=action, reason=reason)


def translated(error: Exception, place: Place, action: str, name: FileName | None = None) -> Error:
    """Our error for a foreign one."""
    match error:
        case boto.ClientError():
            return _refused(error, place, action, name)
        case _ if isinstance(error, _NO_KEYS):
            reason = f"no usable keys ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            return CredentialsError(f"{place.location}: {reason}")
        case boto.SSLError():
            reason = f"TLS: {error}; is the server's certificate signed by a known CA? else set repository.s3.ca_file"
            return TargetError(f"{place.location}: cannot {action}: {reason}")
        case boto.EndpointConnectionError() | boto.ConnectTimeoutError() | boto.ProxyConnectionError():
            reason = f"{place.endpoint} cannot be reached ({_cause(error)}); is the name right, the server up?"
        case boto.ParamValidationError() | boto.InvalidRegionError():
            return TargetError(f"{place.location}: cannot {action}: {_line(error)}")
        case _:
            reason = f"the connection broke off or the answer made no sense: {_line(error)}"
    return Unavailable(location=place.location, action=action, reason=reason)


def code_of(error: boto.ClientError) -> str:
    """The server's word for what is wrong; the HTTP status where it sent none, as with HEAD."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _refused(error: boto.ClientError, place: Place, action: str, name: FileName | None) -> Error:
    code, status = code_of(error), status_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")).strip().replace("\n", " ")
    if code == "NoSuchBucket":
        return BucketMissing(location=place.location, bucket=place.bucket)
    if name is not None and (code == "NoSuchKey" or status == 404):
        return FileMissing(location=place.location, path=name.path)
    if code in _WRONG_KEYS:
        return CredentialsError(f"{place.location}: cannot {action}: {_WRONG_KEYS[code]}")
    if code in _REMEDIES:
        reason = f"{code}; {_REMEDIES[code]}"
    elif status in (401, 403):
        reason = (
            f"refused ({said or status}); wrong keys, or they may not do this: see docs/operating.md for what they need"
        )
        return CredentialsError(f"{place.location}: cannot {action}: {reason}")
    else:
        reason = f"{code or status}: {said}" if said else str(code or status)
    if status == 429 or status >= 500 or code in _PASSING:
        return Unavailable(location=place.location, action=action, reason=reason)
    return TargetError(f"{place.location}: cannot {action}: {reason}")


def _cause(error: BaseException) -> str:
    """The innermost reason, as the operating system says it."""
    inner = error
    while (deeper := inner.__cause__ or inner.__context__ or getattr(inner, "reason", None)) is not None:
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return _line(inner)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
