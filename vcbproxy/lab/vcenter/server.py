"""The running server: a thread that serves a datacenter's vCenter on loopback until it is told to stop.

with LabServer(datacenter) as server:
    connect(server.host, server.port, server.username, server.password, server.ca_file)
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vcbproxy.clock import Clock, SystemClock
from vcbproxy.errors import UsageError
from vcbproxy.lab import certificate
from vcbproxy.lab.datacenter import Datacenter
from vcbproxy.lab.guest import GuestWriter
from vcbproxy.lab.vcenter import control, http, methods, vm_methods, wire
from vcbproxy.lab.vcenter.centre import Centre
from vcbproxy.lab.vcenter.faults import Dropped, Faults, Trouble, What, Where
from vcbproxy.lab.vcenter.methods import Call
from vcbproxy.lab.vcenter.permissions import Permissions
from vcbproxy.lab.vcenter.persona import Persona
from vcbproxy.lab.vcenter.release import RELEASES, VersionMismatch, require_path
from vcbproxy.lab.vcenter.schema import vim, vmodl
from vcbproxy.lab.vcenter.tasks import as_fault

_POLL_S = 0.02
_VERSIONS_PATH = "/sdk/vimServiceVersions.xml"
_UNAVAILABLE = http.Reply(503, b"")
_METHODS = {**methods.METHODS, **vm_methods.VM_METHODS}


class LabServer:
    """A vCenter over a datacenter. The datacenter stays its owner's: it is not closed here.

    Attributes:
        calls: how often each method was called.
        instead: what to answer to a method, byte for byte, instead of what would be right.
    """

    def __init__(
        self, datacenter: Datacenter, *, port: int = 0, clock: Clock | None = None, persona: Persona | None = None
    ) -> None:
        self.datacenter = datacenter
        self.calls: collections.Counter[str] = collections.Counter()
        self.instead: dict[str, bytes] = {}
        self._clock = clock or SystemClock()
        spec = datacenter.state.spec
        self._persona = persona or Persona(esxi=spec.esxi, release=RELEASES[spec.release])
        self._wanted_port = port
        self._tls = datacenter.directory / "tls"
        self._listener: http.Listener | None = None
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()
        self._down_until_s = self._clock.monotonic()
        self.centre = Centre(datacenter, self._clock, self._persona)
        self._control = control.Control(self)

    @property
    def host(self) -> str:
        """Where it listens: loopback."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port, once started."""
        assert self._listener is not None, "not started"
        return self._listener.port

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"https://{self.host}:{self.port}/sdk"

    @property
    def username(self) -> str:
        """Who may log in."""
        return self.datacenter.state.spec.username

    @property
    def password(self) -> str:
        """... and with what."""
        return self.datacenter.state.spec.password

    @property
    def ca_file(self) -> Path:
        """The certificate that signed the server's."""
        return self._tls / "ca.pem"

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the server's certificate, ``AA:BB:…``."""
        return certificate.thumbprint(self._tls)

    def tasks_done(self) -> list[tuple[str, float, float]]:
        """Every task that ended: (what it did, when it was asked for, when it ended), by the manager's clock."""
        infos = [task.properties["info"] for task in self.centre.inventory.all_of(vim.Task)]
        ended = [info for info in infos if info.completeTime is not None]
        return [(info.descriptionId, info.queueTime.timestamp(), info.completeTime.timestamp()) for info in ended]

    @property
    def faults(self) -> Faults:
        """Where trouble is ordered."""
        return self.centre.faults

    def guest_writer(self, *, writes_per_s: float = 50, seed: int = 1) -> GuestWriter:
        """Guests of all VMs, to be started by the caller."""
        return GuestWriter(self.datacenter.machines, writes_per_s=writes_per_s, seed=seed)

    def expire_sessions(self) -> None:
        """Log everyone out, as idle time does."""
        self.centre.sessions.expire()

    def restart(self, down_s: float = 0) -> None:
        """Let the manager restart: all connections break, and what it only had in memory is gone.

        What hosts are doing goes on; nobody can ask for it by its task any more. While it is down, by the server's
        clock, every request is answered with 503.
        """
        self._down_until_s = self._clock.monotonic() + down_s
        if self._listener is not None:
            self._listener.cut_all()  # before all else: who waits for an answer gets none, not a last polite one
        self.centre.forget()

    @property
    def permissions(self) -> Permissions:
        """Where privileges are taken away."""
        return self.centre.permissions

    def change_password(self, password: str) -> None:
        """Change the user's password; who is logged in stays so."""
        self.centre.sessions.change_password(password)

    def start(self) -> None:
        """Listen and serve.

        Raises:
            UsageError: the port cannot be had.
        """
        context = certificate.server_context(self._tls)
        try:
            self._listener = http.Listener(self._wanted_port, context, self._get, self._answer, self._rest)
        except OSError as error:
            raise UsageError(f"cannot listen on port {self._wanted_port}: {error.strerror}; try --port 0") from error
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(_POLL_S,), name="lab vCenter")
        self._thread.start()

    def stop(self) -> None:
        """End all waits, let tasks finish, cut all connections; no thread or socket is left."""
        if self._listener is None or self._thread is None:
            return
        self._listener.stopping.set()
        self._listener.shutdown()
        self._thread.join()
        self.centre.stop()
        self._listener.cut_all()
        self._listener.server_close()
        self._listener = self._thread = None

    @property
    def _down(self) -> bool:
        return self._clock.monotonic() < self._down_until_s

    def _get(self, path: str) -> http.Reply:
        if path == control.PATH:
            return self._control.listing()
        if self._down:
            return _UNAVAILABLE
        if path != _VERSIONS_PATH:
            return http.Reply(404, b"")
        return http.Reply(200, wire.versions_document(self._persona.release))

    def _rest(self, post: http.Post) -> http.Reply:
        """The other API; calls are counted, and trouble is ordered, as ``GET tagging/tag``."""
        call = self.centre.rest.call_of(post)
        with self._mutex:
            self.calls[call] += 1
        if self._down or self._unavailable(self.faults.strike(call, Where.CALL)):
            return _UNAVAILABLE
        reply = self.centre.rest.answer(post)
        trouble = self.faults.strike(call, Where.ANSWER)
        return dataclasses.replace(reply, sent=0.5) if trouble is not None and trouble.what is What.BREAK else reply

    def _answer(self, post: http.Post) -> http.Reply:
        if post.path == control.PATH:
            return self._control.order(post.body)
        if self._down:
            return _UNAVAILABLE
        try:
            version = self._persona.release.schema_of(post.soap_action)
            request = wire.parse(post.body, version)
        except VersionMismatch as error:
            return http.Reply(500, wire.version_mismatch(str(error)))
        except wire.MalformedRequest as error:
            return http.Reply(500, wire.malformed(str(error)))
        with self._mutex:
            self.calls[request.method] += 1
        if request.method in self.instead:
            return http.Reply(200, self.instead[request.method])
        try:
            return self._reply(request, post, version)
        except Dropped:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the client gets a fault
            # As a vCenter does: whoever comes without a session is given one, that nobody has logged in to.
            stranger = uuid.uuid4().hex if type(error).__name__.endswith("NotAuthenticated") else ""
            return http.Reply(500, wire.fault(as_fault(error), version), stranger)

    def _reply(self, request: wire.Request, post: http.Post, version: str) -> http.Reply:
        about = methods.about(request)
        if self._unavailable(self.faults.strike(request.method, Where.CALL, *about)):
            return _UNAVAILABLE
        for kind, path in methods.paths(request):
            require_path(kind, path, version)
        value, cookie = self._call(request, post)
        trouble = self.faults.strike(request.method, Where.ANSWER, *about)
        if self._unavailable(trouble):
            return _UNAVAILABLE
        reply = http.Reply(200, wire.answer(request, value, version), cookie)
        if trouble is not None and trouble.what is What.BREAK:
            return dataclasses.replace(reply, sent=0.5)
        if trouble is not None and trouble.what is What.TRICKLE:
            return dataclasses.replace(reply, over_s=trouble.delay_s)
        return reply

    def _unavailable(self, trouble: Trouble | None) -> bool:
        """Do what trouble only the server can do; whether there is no answer but 503."""
        if trouble is not None and trouble.what is What.EXPIRE:
            self.expire_sessions()
        if trouble is not None and trouble.what is What.RESTART:
            self.restart(trouble.delay_s)
            raise Dropped
        return trouble is not None and trouble.what is What.UNAVAILABLE

    def _call(self, request: wire.Request, post: http.Post) -> tuple[Any, str]:
        self._authenticate(request, post.cookie)
        method = _METHODS.get(request.method)
        if method is None:
            raise vmodl.fault.NotSupported(msg=f"The lab's vCenter does not know {request.method}.")
        this = self.centre.inventory.get(request.this)
        self.centre.permissions.require(request.method, methods.entity_of(self.centre, this))
        call = Call(self.centre, this, post.cookie, post.agent)
        value = method(call, **request.arguments)
        return value, call.new_cookie

    def _authenticate(self, request: wire.Request, cookie: str) -> None:
        free = request.method in methods.UNAUTHENTICATED or (
            request.method == wire.FETCH and request.arguments.get("prop") in methods.FREE_PROPERTIES
        )
        if not free and not self.centre.sessions.use(cookie):
            raise vim.fault.NotAuthenticated(
                object=request.this, privilegeId="System.View", msg="The session is not authenticated."
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
