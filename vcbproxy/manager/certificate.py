"""The certificate that somebody at an address shows, trusted or not: so that an operator can compare and then pin it.

Nothing is sent to whoever answers but the handshake itself.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from vcbproxy.errors import ManagerError
from vcbproxy.manager.faults import translated
from vcbproxy.manager.tls import format_thumbprint


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows of itself.

    Attributes:
        thumbprint: SHA-256, ``AA:BB:…``.
        names: the host names and addresses that it is for.
    """

    thumbprint: str
    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def presented(host: str, port: int, timeout_s: float) -> Certificate:
    """Shake hands, trusting anyone, and look at the certificate.

    Raises:
        ManagerError: nobody answers, or what is shown is no certificate.
    """
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            anyone.wrap_socket(plain, server_hostname=host) as connection,
        ):
            shown = connection.getpeercert(binary_form=True) or b""
    except OSError as error:
        raise translated(error, f"{host}:{port}", "handshake") from error
    return decode(shown, f"{host}:{port}")


def decode(der: bytes, where: str) -> Certificate:
    """Read a certificate in DER form.

    Raises:
        ManagerError: it is none.
    """
    try:
        read = x509.load_der_x509_certificate(der)
        names = _names(read)
        subject, issuer = _short(read.subject), _short(read.issuer)
    except (ValueError, x509.UnsupportedGeneralNameType) as error:
        raise ManagerError(f"{where} shows a certificate that cannot be read: {error}") from error
    return Certificate(
        thumbprint=format_thumbprint(hashlib.sha256(der).digest()),
        subject=subject,
        issuer=issuer,
        names=names,
        not_before=read.not_valid_before_utc,
        not_after=read.not_valid_after_utc,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = listed.get_values_for_type(x509.DNSName)
    return (*hosts, *(str(address) for address in listed.get_values_for_type(x509.IPAddress)))


def _short(name: x509.Name) -> str:
    """The common name, or all of it when there is none."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()
