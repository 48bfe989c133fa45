"""A proxy before an S3 server that misbehaves on order: busy, cut lines, damaged bytes.

The request goes on as it came, ``Host`` included, so that its signature holds.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_PAGE = b"<html><head><title>Sign in</title></head><body>Sign in to go on.</body></html>"
_UNSENT = {"transfer-encoding", "content-length", "connection", "date", "server"}


class Fault(Enum):
    NONE = auto()
    BUSY = auto()
    """503 SlowDown; the server never sees the request."""
    DROP = auto()
    """The line is cut before the server sees the request."""
    UNANSWERED = auto()
    """The server does what it is asked, and the line is cut before it says so."""
    CUT = auto()
    """The line is cut in the midst of the answer's body."""
    DAMAGE = auto()
    """One bit of the request's body changes on its way."""
    EMPTY = auto()
    """Somebody on the way answers in the server's place: 200, and nothing."""
    PAGE = auto()
    """Somebody on the way answers in the server's place: 200, and a page for people."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request."""

    number: int
    method: str
    path: str
    body_bytes: int


Plan = Callable[[Seen], Fault]


class FaultProxy:
    """Asks its plan what to do with each request."""

    def __init__(self, upstream_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.upstream_port = upstream_port
        self.plan: Plan = lambda seen: Fault.NONE
        self.faults = 0
        self._seen = 0
        self._mutex = threading.Lock()
        proxy = self

        class Handler(_Handler):
            def fault(self, body: bytes) -> Fault:
                return proxy.decide(self.command, self.path, len(body))

            def upstream(self) -> int:
                return proxy.upstream_port

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def decide(self, method: str, path: str, body_bytes: int) -> Fault:
        with self._mutex:
            seen = Seen(self._seen, method, path, body_bytes)
            self._seen += 1
            fault = self.plan(seen)
            self.faults += fault is not Fault.NONE
            return fault

    @contextlib.contextmanager
    def serving(self) -> Iterator[FaultProxy]:
        thread = threading.Thread(target=self._server.serve_forever, name="fault-proxy")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def fault(self, body: bytes) -> Fault:
        raise NotImplementedError

    def upstream(self) -> int:
        raise NotImplementedError

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the base's name
        """Say nothing."""

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.fault(body)
        if fault is Fault.BUSY:
            self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
            return
        if fault is Fault.DROP:
            self.close_connection = True
            return
        if fault in (Fault.EMPTY, Fault.PAGE):
            self._answer(200, {"Content-Type": "text/html"}, _PAGE if fault is Fault.PAGE else b"")
            return
        if fault is Fault.DAMAGE and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        try:
            status, headers, content = self._ask(body)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the server is gone: so are we
            return
        if fault is Fault.UNANSWERED:
            self.close_connection = True
            return
        self._answer(status, headers, content, len(content) // 2 if fault is Fault.CUT and content else None)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream(), timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut_at: int | None = None) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
        for name, value in headers.items():
            if name.lower() not in _UNSENT:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[:cut_at])
        if cut_at is not None:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815
