"""A session with the manager: opened verified, closed on exit, reopened when it idled out or the manager restarted.

    call ──▶ answer
     │  └──▶ not authenticated ──▶ read the password anew, log in, call again (once)       idle for hours, restarted
     └─────▶ no connection ──▶ wait 0.5, 1, 2, ... 30 s, call again, for ``retry_s`` in all   restarting, LAN away

Nothing keeps the session alive meanwhile: a backup reads for hours off the SAN and asks the manager nothing, and a
login costs less than a call a minute. Reads may be repeated and are. Actions are repeated only when no connection came
about: else the manager may have heard the first one. Whoever starts an action over looks first what became of it.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import Error, ManagerError
from vcbproxy.manager import shield, tls
from vcbproxy.manager.faults import Trouble, trouble_of, unheard
from vcbproxy.manager.wire import Endpoint, Stub, Wire, negotiate

log = logging.getLogger(__name__)

T = TypeVar("T")

Password = str | Callable[[], str]

_PAUSE_S = 0.5
_PAUSE_MAX_S = 30.0
_PAUSE_TOLD_S = 4.0  # what is over by then is nobody's concern
_STEP_S = 1.0
# What the next call meets when the session ended between two: the view or collector is GONE; the token that stands for
# the next page is an invalid argument, which alone would be OTHER.
_OF_ENDED_SESSIONS = (Trouble.GONE, Trouble.OTHER)


@dataclass(frozen=True, slots=True)
class ManagerAddress:
    """Where the manager is, and how its certificate is checked.

    Attributes:
        ca_file: trust certificates of this CA only; None: the system's CAs.
        thumbprint_sha256: trust exactly this certificate (``AA:BB:…``); with a CA file both must hold.
        timeout_s: for connecting, and for each wait for bytes of an answer.
        retry_s: how long a call is repeated while the manager does not answer; a vCenter takes minutes to restart.
    """

    host: str
    port: int = 443
    path: str = "/sdk"
    ca_file: Path | None = None
    thumbprint_sha256: str | None = None
    timeout_s: float = 60.0
    retry_s: float = 900.0


@dataclass(frozen=True, slots=True)
class About:
    """What the manager says of itself."""

    name: str
    full_name: str
    version: str
    build: str
    api_type: str
    api_version: str
    instance_uuid: str | None

    @property
    def is_vcenter(self) -> bool:
        """A vCenter Server, as opposed to a single ESXi host."""
        return self.api_type == "VirtualCenter"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are at the manager; the password is in no message and no trace."""

    username: str
    secret: Password = field(repr=False)

    @property
    def password(self) -> str:
        """The password as it is now.

        Raises:
            CredentialsError: the place where it is kept cannot be read.
        """
        return self.secret if isinstance(self.secret, str) else self.secret()


class Session:
    """Logged in at one manager; several threads may use it at once. Made by ``connect``."""

    def __init__(
        self, wire: Wire, about: About, address: ManagerAddress, credentials: Credentials, clock: Clock
    ) -> None:
        self.about = about
        self.credentials = credentials
        self.address = address
        self._wire = wire
        self._clock = clock

    @property
    def instance_uuid(self) -> str | None:
        """The manager's own identity; an ESXi host has none."""
        return self.about.instance_uuid

    @property
    def endpoint(self) -> Endpoint:
        """Where the manager is and how it is verified: other APIs of it are spoken to under the same rules."""
        return self._wire.stub.endpoint

    def __str__(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out. A manager that is gone by now is no error: its session ends by itself."""
        stub = self._wire.stub
        stub.forget_login()
        try:
            manager = self._wire.content.sessionManager
            if manager is not None:
                manager.Logout()
        except Error as error:
            log.info("not logged out: %s", error)
        finally:
            stub.drop()

    def read(self, operation: Callable[[Wire], T]) -> T:
        """Do something that changes nothing; repeat it when the connection or the session broke under it.

        Views and property collectors die with the session they were made in, so a whole operation is repeated, never a
        single call inside it.
        """
        return self._repeated(operation, self._may_be_read_again)

    def act(self, operation: Callable[[Wire], T]) -> T:
        """Do something that changes the manager's state, by one call; heard by the manager at most once.

        A fresh connection is used: one that idled in the pool may be dead, and from its death one could not tell
        whether the request was heard.
        """
        self._wire.stub.drop()
        return self._repeated(operation, lambda error, _generation: unheard(error))

    def _repeated(self, operation: Callable[[Wire], T], again: Callable[[ManagerError, int], bool]) -> T:
        """Do it until it is done, until ``again`` says no of its error, or for ``retry_s``."""
        stub = self._wire.stub
        generation = stub.generation

        def attempt() -> T:
            nonlocal generation
            generation = stub.generation
            return operation(self._wire)

        def wanted(error: ManagerError) -> bool:
            if not again(error, generation):
                return False
            stub.drop()
            return True

        return _repeat(attempt, wanted, self.address.retry_s, self._clock)

    def _may_be_read_again(self, error: ManagerError, generation: int) -> bool:
        lost = trouble_of(error) in _OF_ENDED_SESSIONS and generation != self._wire.stub.generation
        return lost or trouble_of(error) is Trouble.CONNECTION


def _repeat(attempt: Callable[[], T], again: Callable[[ManagerError], bool], retry_s: float, clock: Clock) -> T:
    """Attempt it with growing pauses, for so long in all, as long as ``again`` says yes of its error."""
    begun = clock.monotonic()
    pause_s = _PAUSE_S
    while True:
        try:
            return attempt()
        except ManagerError as error:
            waited_s = clock.monotonic() - begun
            if waited_s >= retry_s or shield.given_up() or not again(error):
                raise
            told = log.warning if pause_s == _PAUSE_TOLD_S else log.info
            told("%s; trying again for up to %.0f s", error, retry_s - waited_s)
        _pause(clock, min(pause_s, retry_s - waited_s))
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)


def _pause(clock: Clock, pause_s: float) -> None:
    """Sleep in short steps: an operator who insists does not wait for a manager that is away."""
    until = clock.monotonic() + pause_s
    while not shield.given_up() and (left_s := until - clock.monotonic()) > 0:
        clock.sleep(min(left_s, _STEP_S))


def connect_when_up(
    address: ManagerAddress, username: str, password: Password, *, clock: Clock | None = None
) -> Session:
    """As ``connect``, for a job that nobody watches: a manager that is just restarting is waited for.

    A name that cannot be resolved, or something that speaks no TLS, is a mistake, and an error at once.

    Raises:
        Error: as ``connect``.
    """

    def away(error: ManagerError) -> bool:
        mistake = isinstance(error.__cause__, socket.gaierror | ssl.SSLError)
        return trouble_of(error) is Trouble.CONNECTION and not mistake

    used = clock or SystemClock()
    return _repeat(lambda: connect(address, username, password, clock=used), away, address.retry_s, used)


def connect(address: ManagerAddress, username: str, password: Password, *, clock: Clock | None = None) -> Session:
    """Connect, verify the manager's certificate, log in.

    Args:
        address: where.
        username: who we are there.
        password: itself, or what reads it; that is asked at each login, since it may be changed while a backup runs.
        clock: paces repetitions.

    Raises:
        CredentialsError: the login was refused.
        ConfigError: the CA file or the thumbprint is unusable.
        ManagerError: anything else, by its real cause: name, network, certificate, or no manager there.
    """
    text = address.thumbprint_sha256
    thumbprint = None if text is None else tls.parse_thumbprint(text)
    context = tls.context(address.ca_file, pinned=thumbprint is not None)
    endpoint = Endpoint(address.host, address.port, address.path, address.timeout_s, thumbprint, context)
    credentials = Credentials(username, password)
    stub = Stub(endpoint, negotiate(endpoint))
    try:
        wire = Wire(stub)
        manager = _present(wire.content.sessionManager, f"{endpoint}: offers no logins")
        stub.log_in_with(lambda: manager.Login(username, credentials.password, None))
    except BaseException:
        stub.drop()
        raise
    about = wire.content.about
    seen = About(
        name=about.name,
        full_name=about.fullName,
        version=about.version,
        build=about.build,
        api_type=about.apiType,
        api_version=about.apiVersion,
        instance_uuid=about.instanceUuid or None,
    )
    return Session(wire, seen, address, credentials, clock or SystemClock())


def _present(value: T | None, otherwise: str) -> T:
    if value is None:
        raise ManagerError(otherwise)
    return value
