"""Connecting: verified or pinned, and each failure by its real cause."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.manager.managers import BOTH, Manager, Need, Post, address, diverted, forwarded, https, plain_text, silence
from vcbproxy.clock import ManualClock
from vcbproxy.errors import ConfigError, CredentialsError, Error, ManagerError
from vcbproxy.lab import certificate
from vcbproxy.lab.vcenter import LabServer, wire
from vcbproxy.manager import inventory, tls
from vcbproxy.manager.faults import Trouble, trouble_of
from vcbproxy.manager.session import ManagerAddress, Session, connect

MANAGERS = BOTH


@pytest.fixture(scope="module")
def other_tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of somebody else."""
    folder = tmp_path_factory.mktemp("tls")
    certificate.write(folder, datetime.now(UTC))
    return folder


def refused(where: ManagerAddress, username: str = "lab", password: str = "x") -> Error:
    with pytest.raises(Error) as caught:
        connect(where, username, password)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_session_is_opened_and_closed(server: Manager) -> None:
    with connect(address(server), server.username, server.password) as session:
        assert session.about.is_vcenter
        assert session.about.api_version == (wire.API_VERSION if isinstance(server, LabServer) else "6.5")
        assert session.instance_uuid == server.datacenter.state.instance_uuid
    assert (server.calls["Login"], server.calls["Logout"]) == (1, 1)


@pytest.mark.needs(Need.INSIDE)
def test_a_closed_session_is_gone(server: Manager) -> None:
    assert isinstance(server, LabServer)
    with connect(address(server), server.username, server.password):
        assert len(server.centre.sessions) == 1
    assert len(server.centre.sessions) == 0


def test_a_thumbprint_takes_the_place_of_a_ca(server: Manager) -> None:
    where = address(server, ca_file=None, thumbprint_sha256=server.thumbprint)
    with connect(where, server.username, server.password) as session:
        assert inventory.vms(session)


def test_without_ca_or_thumbprint_the_systems_cas_are_asked(server: Manager) -> None:
    error = refused(address(server, ca_file=None), server.username, server.password)
    assert trouble_of(error) is Trouble.TRUST
    assert "not trusted" in str(error)
    assert server.calls["Login"] == 0


def test_a_wrong_ca_is_not_trusted(server: Manager, other_tls: Path) -> None:
    error = refused(address(server, ca_file=other_tls / "ca.pem"), server.username, server.password)
    assert trouble_of(error) is Trouble.TRUST
    assert server.calls["Login"] == 0


def test_a_wrong_thumbprint_is_not_trusted_though_the_ca_is(server: Manager, other_tls: Path) -> None:
    where = address(server, thumbprint_sha256=certificate.thumbprint(other_tls))
    error = refused(where, server.username, server.password)
    assert trouble_of(error) is Trouble.TRUST
    assert server.thumbprint in str(error)
    assert server.calls["Login"] == 0


def test_a_host_name_that_is_not_in_the_certificate_is_not_trusted(server: Manager) -> None:
    where = ManagerAddress("127.0.0.2", server.port, ca_file=server.ca_file, timeout_s=5)
    error = refused(where, server.username, server.password)
    assert isinstance(error, ManagerError)
    assert server.calls["Login"] == 0


def test_every_connection_is_verified_not_the_first_alone(server: Manager, other_tls: Path) -> None:
    """Somebody else answers at the address later on: nothing is sent to him, neither cookie nor password."""
    heard: list[Post] = []

    def listen(post: Post) -> tuple[int, bytes]:
        heard.append(post)
        return 500, b""

    for facts in ({}, {"ca_file": None, "thumbprint_sha256": server.thumbprint}):
        session = connect(address(server, **facts), server.username, server.password, clock=ManualClock())
        with session, https(other_tls, listen) as port, diverted(session, port):
            with pytest.raises(ManagerError) as caught:
                inventory.vms(session)
            assert trouble_of(caught.value) is Trouble.TRUST
    assert heard == []


def test_a_wrong_password_is_about_credentials(server: Manager) -> None:
    error = refused(address(server), server.username, "wrong")
    assert isinstance(error, CredentialsError)
    assert error.exit_code == 12
    assert "wrong" not in str(error).replace("wrong user name or password", "")


def test_no_such_host() -> None:
    assert "cannot be resolved" in str(refused(ManagerAddress("no-such-host.invalid")))


def test_nobody_listens() -> None:
    with silence() as port:
        pass
    assert "refused" in str(refused(ManagerAddress("127.0.0.1", port)))


def test_nobody_answers() -> None:
    with silence() as port:
        assert "in time" in str(refused(ManagerAddress("127.0.0.1", port, timeout_s=0.2)))


def test_not_the_https_port() -> None:
    with plain_text() as port:
        assert "TLS" in str(refused(ManagerAddress("127.0.0.1", port, timeout_s=5)))


def test_some_other_web_server(server: Manager) -> None:
    with https(server.ca_file.parent, lambda post: (404, b"nothing here")) as port:
        error = refused(ManagerAddress("127.0.0.1", port, ca_file=server.ca_file))
    assert "no vCenter Server or ESXi there" in str(error)


@pytest.mark.parametrize(
    "thumbprint", ["", "AA:BB", "zz" * 32, "A9:4A:8F:E5:CC:B1:9B:A6:1C:4C:08:73:D3:91:E9:87:98:2F:BB:D3"]
)
def test_what_is_no_sha_256_thumbprint(thumbprint: str) -> None:
    assert isinstance(refused(ManagerAddress("127.0.0.1", 1, thumbprint_sha256=thumbprint)), ConfigError)


def test_unusable_ca_files(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    for name in ("missing.pem", "empty.pem", "."):
        assert isinstance(refused(ManagerAddress("127.0.0.1", 1, ca_file=tmp_path / name)), ConfigError)


def test_thumbprints_are_read_as_people_write_them() -> None:
    digest = bytes(range(32))
    for text in (tls.format_thumbprint(digest), digest.hex(), digest.hex(":"), digest.hex().upper()):
        assert tls.parse_thumbprint(text) == digest


class Wire:
    """A socket with an answer in it."""

    def __init__(self, body: bytes, *, chunked: bool) -> None:
        size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
        self._bytes = b"HTTP/1.1 200 OK\r\n" + size + b"\r\n\r\n" + sent

    def makefile(self, mode: str) -> BytesIO:
        return BytesIO(self._bytes)


class SmallResponse(tls.BoundedResponse):
    bytes_max = 1000


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("amount", [None, 100])
def test_an_answer_without_end_is_not_read_to_its_end(chunked: bool, amount: int | None) -> None:
    def read(length: int) -> int:
        with SmallResponse(Wire(b"x" * length, chunked=chunked)) as response:  # type: ignore[arg-type]
            response.begin()
            return sum(map(len, iter(lambda: response.read(amount), b"")))

    assert read(1000) == 1000
    with pytest.raises(ManagerError, match="longer than"):
        read(1001)


class Dripping(BytesIO):
    """A byte now and then: no wait of the socket's is ever too long."""

    def read1(self, size: int | None = -1) -> bytes:
        time.sleep(0.005)
        return super().read1(min(1, size or 0))


class DrippingWire(Wire):
    def makefile(self, mode: str) -> BytesIO:
        return Dripping(self._bytes)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_drips_is_late_in_the_end(chunked: bool) -> None:
    def read(length: int) -> bytes:
        wire: Any = DrippingWire(b"x" * length, chunked=chunked)
        with tls.BoundedResponse(wire, seconds_max=2) as response:
            response.begin()
            return response.read()

    assert read(3) == b"xxx"
    with pytest.raises(TimeoutError):
        read(1000)


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The answer, damaged somewhere: a byte changed, a piece missing or doubled, the end cut off."""
    at = chance.randrange(len(body))
    length = chance.randrange(1, 60)
    return chance.choice(
        [
            body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :],
            body[:at] + body[at + length :],
            body[:at] + body[at : at + length] * 2 + body[at + length :],
            body[:at],
        ]
    )


def test_damaged_answers_give_our_errors_only(server: Manager, session: Session) -> None:
    chance = random.Random(20261123)
    moref = server.datacenter.state.vms[0].moref

    def damaged(post: Post) -> tuple[int, bytes]:
        status, body = forwarded(server, post)
        return status, mutated(body, chance)

    outcomes: set[type] = set()
    with https(server.ca_file.parent, damaged) as port, diverted(session, port):
        for _ in range(100):
            try:
                outcomes.add(type(inventory.get(session, moref)))
            except Error as error:
                outcomes.add(type(error))
    assert ManagerError in outcomes


def test_a_manager_that_speaks_no_version_known_here(server: LabServer) -> None:
    document = (
        b'<namespaces version="1.0"><namespace><name>urn:vim25</name><version>99.0</version></namespace></namespaces>'
    )
    with https(server.ca_file.parent, lambda post: (200, document)) as port:
        error = refused(ManagerAddress("127.0.0.1", port, ca_file=server.ca_file))
    assert "99.0" in str(error)
    assert "too old, or newer" in str(error)


def test_a_manager_that_is_still_starting(server: LabServer) -> None:
    with https(server.ca_file.parent, lambda post: (503, b"")) as port:
        error = refused(ManagerAddress("127.0.0.1", port, ca_file=server.ca_file))
    assert trouble_of(error) is Trouble.CONNECTION
    assert "starting" in str(error)
