"""The manager: reached, trusted, of a kind and an age that we know, and of the same time."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta

from jobs.preflight.result import Level, Result, broken, failed, ok, warning
from vcbproxy.clock import Clock
from vcbproxy.config import Manager
from vcbproxy.errors import Error, ManagerError
from vcbproxy.manager import certificate, overview
from vcbproxy.manager.certificate import Certificate
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import Session

CLOCK_SKEW_MAX_S = 300.0
CERTIFICATE_LEFT_MIN = timedelta(days=30)
OLDEST_TRIED = (6, 5)
NEWEST_TRIED = (8, 0)
_EXPIRED, _NOT_YET, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64  # OpenSSL's X509_V_ERR_...


def unreachable(settings: Manager, error: Error, clock: Clock) -> Iterator[Result]:
    """Why no session came about: the error, and where trust is what is missing, the certificate that was shown."""
    if not isinstance(error, ManagerError) or trouble_of(error) is not Trouble.TRUST:
        yield broken("manager", error)
        return
    where = f"{settings.host}:{settings.port}"
    try:
        shown = certificate.presented(settings.host, settings.port, settings.timeout_s)
    except Error as second:
        yield broken("manager", error)
        yield broken("certificate", second)
        return
    yield failed("manager", f"{where} answers, and is not trusted: nothing was said to it", "see the certificate")
    cause = error.__cause__
    code = cause.verify_code if isinstance(cause, ssl.SSLCertVerificationError) else None
    yield _distrusted(settings, shown, code, clock.now())


def _distrusted(settings: Manager, shown: Certificate, code: int | None, now: datetime) -> Result:
    described = _described(shown)
    match code:
        case None if settings.thumbprint is not None:
            remedy = "if it was renewed, compare it on the manager's console, then change thumbprint"
            return failed("certificate", f"it is not the one that thumbprint names: {described}", remedy)
        case value if value == _EXPIRED:
            remedy = "renew it at the manager; until then it can be pinned by thumbprint, once compared on its console"
            return failed("certificate", f"it expired {(now - shown.not_after).days} days ago: {described}", remedy)
        case value if value == _NOT_YET:
            remedy = "is this machine's clock right?"
            return failed("certificate", f"it is not valid before {shown.not_before:%Y-%m-%d}: {described}", remedy)
        case value if value in (_OTHER_HOST, _OTHER_ADDRESS):
            names = ", ".join(shown.names) or shown.subject
            remedy = f"name the manager by one of these as host: {names}"
            return failed("certificate", f"it is for {names}, not for {settings.host}: {described}", remedy)
        case _:
            whose = "the CA in ca_file" if settings.ca_file is not None else "a CA that this machine trusts"
            remedy = "compare the thumbprint on the manager's console, then set it as thumbprint, or its CA as ca_file"
            return failed("certificate", f"it was not issued by {whose}: {described}", remedy)


def _described(shown: Certificate) -> str:
    return (
        f"SHA-256 {shown.thumbprint}, of {shown.subject}, issued by {shown.issuer}, "
        f"valid until {shown.not_after:%Y-%m-%d}"
    )


def reached(settings: Manager, session: Session, clock: Clock) -> Iterator[Result]:
    """There is a session: with what kind of manager, how long its certificate lasts, whether the clocks agree."""
    about = session.about
    yield ok("manager", f"{about.full_name}, API {about.api_version}, at {session}")
    yield from version(about.api_version)
    yield _lasting(certificate.presented(settings.host, settings.port, settings.timeout_s), clock.now())
    if not about.is_vcenter:
        yield from _managed(session)
    yield clocks(session, clock)


def version(text: str) -> Iterator[Result]:
    """An API version that nobody has tried is no reason to stop, but one to try a restore first."""
    match = re.match(r"(\d+)\.(\d+)", text)
    told = (int(match[1]), int(match[2])) if match else (0, 0)
    low, high = (".".join(map(str, tried)) for tried in (OLDEST_TRIED, NEWEST_TRIED))
    if told < OLDEST_TRIED:
        yield warning("API version", f"{text} is older than any that was tried ({low})", "upgrade the manager")
    elif told > NEWEST_TRIED:
        remedy = "look for a newer vcbproxy; until then, restore one VM and compare before you rely on it"
        yield warning("API version", f"{text} is newer than any that was tried ({high})", remedy)


def _lasting(shown: Certificate, now: datetime) -> Result:
    left = shown.not_after - now
    if left < timedelta(0):
        return warning("certificate", f"it expired {-left.days} days ago: {_described(shown)}", "renew it")
    if left < CERTIFICATE_LEFT_MIN:
        remedy = "renew it; where it is pinned by thumbprint, change that on the same day"
        return warning("certificate", f"it expires in {left.days} days: {_described(shown)}", remedy)
    return ok("certificate", _described(shown))


def _managed(session: Session) -> Iterator[Result]:
    for address in overview.managing_vcenters(session):
        yield failed(
            "ESXi host",
            f"this host is managed by the vCenter at {address}: what is done to its VMs must be asked for there",
            f'host = "{address}" in [manager]',
        )


def clocks(session: Session, clock: Clock) -> Result:
    """Restore points bear the manager's time; a clock that is wrong makes retention wrong."""
    ahead_s = (overview.current_time(session) - clock.now()).total_seconds()
    detail = f"the manager's is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} ours"
    if abs(ahead_s) > CLOCK_SKEW_MAX_S:
        return Result("clocks", Level.WARNING, detail, "let both use NTP: restore points bear the manager's time")
    return ok("clocks", detail)
