"""HTTP over TLS below the SOAP wire: one thread a connection, kept alive, all of them ended when the server stops."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vcbproxy.lab.vcenter.faults import Dropped
from vcbproxy.units import MiB

_BODY_MAX_BYTES = 16 * MiB
_IDLE_S = 300
_PIECES = 20
_COOKIE = re.compile(r'vmware_soap_session="?([0-9a-f]+)')
_SESSION_COOKIE = 'vmware_soap_session="{}"; Path=/; HttpOnly; Secure'
_XML = "text/xml; charset=utf-8"
JSON = "application/json"
_REST = ("/api/", "/rest/")


@dataclass(frozen=True, slots=True)
class Post:
    """What a client sent; what follows ``agent`` counts in the REST API only."""

    body: bytes
    soap_action: str
    cookie: str
    agent: str
    method: str = "POST"
    path: str = ""
    authorization: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What it gets.

    Attributes:
        sent: the share of the body that goes out before the connection breaks; 1: all of it.
        over_s: how long the body takes, in pieces.
    """

    status: int
    body: bytes
    new_cookie: str = ""
    sent: float = 1
    over_s: float = 0
    content_type: str = _XML


Answering = Callable[[Post], Reply]
Getting = Callable[[str], Reply]


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The listening socket on loopback."""

    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True

    def __init__(
        self, port: int, context: ssl.SSLContext, getting: Getting, answering: Answering, resting: Answering
    ) -> None:
        self._context = context
        self._open: set[socket.socket] = set()
        self._mutex = threading.Lock()
        self.getting = getting
        self.answering = answering
        self.resting = resting
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; the handshake is left to its own thread, so that a silent client holds up nobody."""
        raw, address = self.socket.accept()
        raw.settimeout(_IDLE_S)
        connection = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self._mutex:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._mutex:
            self._open.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish, or do not trust the certificate, are no news; all else is a bug."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # ValueError: read from after it was cut
            super().handle_error(request, client_address)

    def cut_all(self) -> None:
        """Cut every connection, in whatever its thread is doing. The listener stays."""
        with self._mutex:
            connections = list(self._open)
        for connection in connections:
            cut(connection)


def cut(connection: socket.socket) -> None:
    """Break a connection below TLS; the thread that owns it closes it."""
    with contextlib.suppress(OSError):  # It may be gone already.
        # Past SSLSocket.shutdown, which would take the session away from under a thread that reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Answers go out in one piece: a header in its own packet waits for the peer's delayed acknowledgement.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged."""

    def do_GET(self) -> None:
        if self.path.startswith(_REST):
            self._with_body(self.server.resting)
            return
        self._deliver(lambda: self.server.getting(self.path))

    def do_DELETE(self) -> None:
        self._with_body(self.server.resting)

    def do_POST(self) -> None:
        self._with_body(self.server.resting if self.path.startswith(_REST) else self.server.answering)

    def _with_body(self, answering: Answering) -> None:
        try:
            body = self._body()
        except ValueError:  # no number where a length should be
            self._refuse(400)
            return
        if body is None:
            self._refuse(413)
            return
        found = _COOKIE.search(self.headers.get("Cookie", ""))
        post = Post(
            body,
            self.headers.get("SOAPAction", ""),
            found[1] if found else "",
            self.headers.get("User-Agent", ""),
            self.command,
            self.path,
            self.headers.get("Authorization", ""),
            self.headers.get("vmware-api-session-id", ""),
        )
        self._deliver(lambda: answering(post))

    def _deliver(self, answer: Callable[[], Reply]) -> None:
        try:
            self._send(answer())
        except Dropped:
            self.close_connection = True
            cut(self.connection)

    def _refuse(self, status: int) -> None:
        """Answer, and hang up: where the next request begins is not known."""
        self.close_connection = True
        self._send(Reply(status, b""))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.new_cookie:
            self.send_header("Set-Cookie", _SESSION_COOKIE.format(reply.new_cookie))
        self.end_headers()
        self._send_body(reply)
        if reply.sent < 1:
            self.wfile.flush()
            raise Dropped

    def _send_body(self, reply: Reply) -> None:
        body = reply.body[: int(len(reply.body) * reply.sent)]
        if reply.over_s <= 0:
            self.wfile.write(body)
            return
        step = max(1, len(body) // _PIECES)
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        for piece in pieces:
            self.server.stopping.wait(reply.over_s / len(pieces))
            self.wfile.write(piece)
            self.wfile.flush()

    def _body(self) -> bytes | None:
        """The request's body, whole or in chunks (Go's clients send them); None when it is too large."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length) if length <= _BODY_MAX_BYTES else None
        parts: list[bytes] = []
        total = 0
        while length := int(self.rfile.readline(64).split(b";")[0], 16):
            total += length
            if total > _BODY_MAX_BYTES:
                return None
            parts.append(self.rfile.read(length))
            self.rfile.readline(64)
        self.rfile.readline(64)
        return b"".join(parts)
