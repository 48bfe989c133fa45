"""Which bucket on which server, written as restic writes it, so that both programs take the same name.

    s3:https://host[:port]/bucket/prefix        s3:http://…     without TLS
    s3:host[:port]/bucket/prefix                s3://host/…     with TLS

The first part is always a host, Amazon's too: ``s3:s3.eu-central-1.amazonaws.com/bucket``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from vcbproxy.errors import UsageError

_AMAZON = re.compile(r"^s3[.-](?:dualstack\.)?(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.)?amazonaws\.com(?:\.cn)?$")
_HELP = "give s3:https://host/bucket or s3:https://host/bucket/prefix, as restic does"


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and what all keys in it begin with.

    Attributes:
        endpoint: URL of the server, without a path.
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
    """

    endpoint: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, location: str) -> Place:
        """Read what the operator wrote.

        Raises:
            UsageError: it names no host or no bucket, or holds a password.
        """
        rest = location.removeprefix("s3:")
        url = rest if rest.startswith(("http://", "https://")) else f"https://{rest.removeprefix('//')}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{location!r} is no S3 location: {error}; {_HELP}") from error
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                f"keys do not belong into a location: put them into AWS_ACCESS_KEY_ID or a profile; {_HELP}"
            )
        if parts.query or parts.fragment:
            raise UsageError(f"{location!r} has a '?' or '#'; {_HELP}")
        bucket, _, prefix = parts.path.removeprefix("/").partition("/")
        if not parts.hostname or not bucket:
            raise UsageError(f"{location!r} names no {'bucket' if parts.hostname else 'host'}; {_HELP}")
        names = [name for name in prefix.split("/") if name not in ("", ".")]
        if ".." in names:
            raise UsageError(f"{location!r} has '..' in its prefix; {_HELP}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        endpoint = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
        return cls(endpoint, bucket, "/".join(names))

    @property
    def location(self) -> str:
        """What messages call it, and restic too."""
        return "/".join(filter(None, (f"s3:{self.endpoint}", self.bucket, self.prefix)))

    @property
    def amazon(self) -> bool:
        """Whether it is Amazon's own."""
        return _AMAZON.match(self._host) is not None

    @property
    def region(self) -> str | None:
        """The region that is part of the host's name, if it is."""
        found = _AMAZON.match(self._host)
        return found["region"] if found else None

    @property
    def _host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""

    def key(self, path: str) -> str:
        """The object's key for a path below the repository's location."""
        return f"{self.prefix}/{path}" if self.prefix else path
