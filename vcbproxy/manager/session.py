"""A session with the manager: opened verified, closed on exit, reopened when it idled out.

Reads may be repeated and are, after a dropped connection; actions are never blindly repeated, since the manager may
have heard the first one. Whoever starts an action over looks first what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import Error, ManagerError
from vcbproxy.manager import tls
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.wire import Endpoint, Stub, Wire, negotiate

log = logging.getLogger(__name__)

T = TypeVar("T")

_READ_PAUSES_S = (0.5, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class ManagerAddress:
    """Where the manager is, and how its certificate is checked.

    Attributes:
        ca_file: trust certificates of this CA only; None: the system's CAs.
        thumbprint_sha256: trust exactly this certificate (``AA:BB:…``); with a CA file both must hold.
        timeout_s: for connecting, and for each wait for bytes of an answer.
    """

    host: str
    port: int = 443
    path: str = "/sdk"
    ca_file: Path | None = None
    thumbprint_sha256: str | None = None
    timeout_s: float = 60.0


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
    password: str = field(repr=False)


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
        for pause_s in (*_READ_PAUSES_S, None):
            generation = self._wire.stub.generation
            try:
                return operation(self._wire)
            except ManagerError as error:
                lost = trouble_of(error) is Trouble.GONE and generation != self._wire.stub.generation
                if pause_s is None or not (lost or trouble_of(error) is Trouble.CONNECTION):
                    raise
                log.info("repeating after %s", error)
                self._wire.stub.drop()
            self._clock.sleep(pause_s)
        raise AssertionError("unreachable")

    def act(self, operation: Callable[[Wire], T]) -> T:
        """Do something that changes the manager's state; sent at most once.

        A fresh connection is used: one that idled in the pool may be dead, and from its death one could not tell
        whether the request was heard.
        """
        self._wire.stub.drop()
        return operation(self._wire)


def connect(address: ManagerAddress, username: str, password: str, *, clock: Clock | None = None) -> Session:
    """Connect, verify the manager's certificate, log in.

    Raises:
        CredentialsError: the login was refused.
        ConfigError: the CA file or the thumbprint is unusable.
        ManagerError: anything else, by its real cause: name, network, certificate, or no manager there.
    """
    text = address.thumbprint_sha256
    thumbprint = None if text is None else tls.parse_thumbprint(text)
    context = tls.context(address.ca_file, pinned=thumbprint is not None)
    endpoint = Endpoint(address.host, address.port, address.path, address.timeout_s, thumbprint, context)
    stub = Stub(endpoint, negotiate(endpoint))
    try:
        wire = Wire(stub)
        manager = _present(wire.content.sessionManager, f"{endpoint}: offers no logins")
        stub.log_in_with(lambda: manager.Login(username, password, None))
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
    return Session(wire, seen, address, Credentials(username, password), clock or SystemClock())


def _present(value: T | None, otherwise: str) -> T:
    if value is None:
        raise ManagerError(otherwise)
    return value
