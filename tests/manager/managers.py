"""Managers to connect to: the lab's, vcsim, and things that are none."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tests.second.vcsim import Vcsim
from vcbproxy.lab import certificate
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.vcenter import LabServer
from vcbproxy.manager.session import ManagerAddress, Session

Manager = LabServer | Vcsim
LAB, VCSIM = "lab", "vcsim"
BOTH = (LAB, VCSIM)


class Need(Enum):
    """What a test asks of a manager, and not every one has."""

    PAGES = "pages of properties"
    INSIDE = "a look at its sessions and views from inside"


_LACKING: dict[tuple[str, Need], str] = {
    (VCSIM, Need.PAGES): "govmomi 0.24.2 ignores maxObjects and sends all rows in one page",
    (VCSIM, Need.INSIDE): "it is a process of its own",
}


def missing(which: str, need: Need) -> str | None:
    """Why a manager does not have that, or None."""
    reason = _LACKING.get((which, need))
    return None if reason is None else f"{which} lacks {need.value}: {reason}"


def serving(which: str, datacenter: Datacenter) -> Manager:
    """A manager of a datacenter, to be entered."""
    return Vcsim(datacenter) if which == VCSIM else LabServer(datacenter)


def snapshots(server: Manager, vm: str = "vm1") -> list[str]:
    """Names of a VM's snapshots, parents first, by the manager's own record."""
    if isinstance(server, Vcsim):
        return server.snapshots(vm)
    return [snapshot.name for snapshot in server.datacenter.machine(vm).state.snapshots]


def address(server: Manager, **facts: Any) -> ManagerAddress:
    facts.setdefault("ca_file", server.ca_file)
    facts.setdefault("timeout_s", 10)
    return ManagerAddress(server.host, server.port, **facts)


@dataclass(frozen=True, slots=True)
class Post:
    """A request that came to a server of ours."""

    path: str
    body: bytes
    cookie: str
    action: str


@contextmanager
def https(tls: Path, answer: Callable[[Post], tuple[int, bytes]]) -> Iterator[int]:
    """Any HTTPS server at all."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send(*answer(Post(self.path, b"", "", "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*answer(Post(self.path, body, self.headers["Cookie"], self.headers["SOAPAction"])))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

    listener = HTTPServer(("127.0.0.1", 0), Handler)
    listener.socket = certificate.server_context(tls).wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield int(listener.server_address[1])
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


@contextmanager
def silence() -> Iterator[int]:
    """A port that accepts, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@contextmanager
def plain_text() -> Iterator[int]:
    """A port that speaks, but no TLS."""

    def serve() -> None:
        try:
            with listener.accept()[0] as connection:
                connection.sendall(b"220 mail.example.com ESMTP\r\n")
                connection.recv(4096)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
    thread.join()


def forwarded(server: Manager, post: Post) -> tuple[int, bytes]:
    """What the lab's manager answers to a request."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    connection = HTTPSConnection(server.host, server.port, timeout=10, context=context)
    try:
        headers = {"Cookie": post.cookie, "SOAPAction": post.action, "Content-Type": "text/xml; charset=utf-8"}
        connection.request("POST", post.path, post.body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def diverted(session: Session, port: int) -> Iterator[None]:
    """Let a session's next connections go to another port."""
    stub = session._wire.stub
    home = (stub.host, stub.port)
    stub.drop()
    stub.host, stub.port = f"127.0.0.1:{port}", port
    try:
        yield
    finally:
        stub.drop()
        stub.host, stub.port = home
