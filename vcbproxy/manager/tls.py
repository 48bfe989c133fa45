"""TLS to the manager: verified against a CA, or pinned to one certificate. There is no third way.

pyVmomi can pin too, but only after ordinary verification failed, and it then switches verification off in the shared
context: the second connection of the pool is no longer checked at all. So the check lives here, in the connection
itself, before the first byte of a request is written.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import time
from http.client import HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any

from vcbproxy.errors import ConfigError, ManagerError
from vcbproxy.manager.faults import Trouble
from vcbproxy.units import KiB, MiB, human

RESPONSE_BYTES_MAX = 256 * MiB
RESPONSE_SECONDS_MAX = 600.0
_STEP_BYTES = 64 * KiB


def parse_thumbprint(text: str) -> bytes:
    """Read a SHA-256 thumbprint, ``AA:BB:…`` or bare hex.

    Raises:
        ConfigError: it is none; SHA-1 is refused, since certificates that share one can be made.
    """
    digits = re.sub(r"[:\s]", "", text)
    if re.fullmatch(r"[0-9A-Fa-f]{40}", digits):
        raise ConfigError("the thumbprint is SHA-1, which can be forged; give the SHA-256 one (32 bytes)")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", digits):
        raise ConfigError(f"not a SHA-256 thumbprint (32 bytes in hex): {text!r}")
    return bytes.fromhex(digits)


def format_thumbprint(digest: bytes) -> str:
    """Write a thumbprint as people compare it: ``AA:BB:…``."""
    return digest.hex(":").upper()


def context(ca_file: Path | None, *, pinned: bool) -> ssl.SSLContext:
    """Make the context for all connections to one manager.

    Args:
        ca_file: the CA (or the self-signed certificate) to trust in place of the system's.
        pinned: a thumbprint will be checked; chain and host name are then verified only if a CA is given as well.

    Raises:
        ConfigError: the CA file cannot be read or holds no certificate.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if pinned and ca_file is None:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE  # PinnedConnection verifies instead
        return tls
    try:
        if ca_file is None:
            tls.load_default_certs()
        else:
            tls.load_verify_locations(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise ConfigError(f"{ca_file} holds no certificate in PEM form") from error
    except OSError as error:
        raise ConfigError(f"cannot read the CA file {ca_file}: {error.strerror}") from error
    return tls


class BoundedResponse(HTTPResponse):
    """An HTTP answer that is read whole or not at all, and ends: neither its length nor its time is without limit.

    The socket's timeout is for each wait alone: an answer that drips, a byte a minute, would never be late.
    """

    bytes_max = RESPONSE_BYTES_MAX

    def __init__(self, *args: Any, seconds_max: float = RESPONSE_SECONDS_MAX, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until_s = time.monotonic() + seconds_max
        self._taken = 0

    def read(self, amt: int | None = None) -> bytes:
        """Read as HTTPResponse does, within the limits."""
        parts: list[bytes] = []
        left = self.bytes_max + 1 if amt is None else amt
        while left > 0 and (data := self._some(min(left, _STEP_BYTES))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _some(self, amt: int) -> bytes:
        """What is there, at least a byte; nothing at the end."""
        if time.monotonic() > self._until_s:
            raise TimeoutError
        data = super().read1(amt)
        if not data and self.length:  # http.client takes an answer that breaks off for one that ends
            raise IncompleteRead(b"", self.length)
        self._taken += len(data)
        if self._taken > self.bytes_max:
            raise ManagerError(f"the manager's answer is longer than {human(self.bytes_max)}; not read on")
        if self.length == 0:
            super().read(0)  # lets go of the connection, which read1 leaves to the next call
        return data


class PinnedConnection(HTTPSConnection):
    """An HTTPS connection that, given a thumbprint, talks to the owner of that certificate only."""

    response_class = BoundedResponse

    def __init__(self, *args: Any, thumbprint: bytes | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._thumbprint = thumbprint
        self.opened = False

    def connect(self) -> None:
        """Connect, shake hands, and compare the certificate. As long as it is not ``opened`` nothing was sent."""
        self.opened = False
        super().connect()
        if self._thumbprint is not None:
            self._compare(self._thumbprint)
        self.opened = True

    def _compare(self, thumbprint: bytes) -> None:
        certificate = self.sock.getpeercert(binary_form=True) or b""
        seen = hashlib.sha256(certificate).digest()
        if not hmac.compare_digest(seen, thumbprint):
            self.close()
            raise ManagerError(
                f"{self.host}:{self.port}: the certificate's SHA-256 thumbprint is {format_thumbprint(seen)}, not the "
                "configured one; if the certificate was renewed, compare on the manager's console, then change it",
                trouble=Trouble.TRUST,
            )
