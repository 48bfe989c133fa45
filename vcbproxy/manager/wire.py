"""The wire: pyVmomi's stub with our rules around it.

Every call to the manager, reading a property included, passes ``Stub.InvokeMethod`` or ``Stub.ask``. Here, and nowhere
else, foreign exceptions become ours; here a session that idled out is opened again, once per call; here a connection
that an interrupt tore in the middle of an answer is thrown away.
"""

from __future__ import annotations

import functools
import io
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypeVar, cast
from xml.etree import ElementTree as ET

from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapter
from pyVmomi.VmomiSupport import GetServiceVersions, versionIdMap

from vcbproxy.errors import Error, ManagerError
from vcbproxy.manager import tls
from vcbproxy.manager.faults import NONSENSE, Trouble, translated, trouble_of

M = TypeVar("M")
T = TypeVar("T")

_Adapter: Any = SoapStubAdapter  # pyVmomi types its objects, not its machinery
_Deserializer: Any = SoapResponseDeserializer
_service_versions: Callable[[str], list[str]] = GetServiceVersions
_service_instance: Any = vim.ServiceInstance

_XML = "text/xml; charset=UTF-8"
_VERSIONS_BYTES_MAX = 1 << 20
_IDLE_S = 30  # below the 60 s or so after which managers close idle connections themselves


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and whom to expect there."""

    host: str
    port: int
    path: str
    timeout_s: float
    thumbprint: bytes | None
    context: ssl.SSLContext

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connection(self) -> tls.PinnedConnection:
        """An HTTPS connection, not yet opened."""
        return tls.PinnedConnection(
            self.host, self.port, timeout=self.timeout_s, context=self.context, thumbprint=self.thumbprint
        )


def negotiate(endpoint: Endpoint) -> str:
    """Ask which API versions are spoken there and choose the newest that pyVmomi knows.

    Raises:
        ManagerError: not reachable, not trusted, or no manager.
    """
    connection = endpoint.connection()
    try:
        connection.request("GET", f"{endpoint.path}/vimServiceVersions.xml")
        response = connection.getresponse()
        body = response.read(_VERSIONS_BYTES_MAX)
        if response.status == 503:
            raise ManagerError(
                f"{endpoint}: answers 503, as a manager does that is starting; try again in some minutes",
                trouble=Trouble.CONNECTION,
            )
        if response.status != 200:
            raise ManagerError(
                f"{endpoint}: no vCenter Server or ESXi there: "
                f"{endpoint.path}/vimServiceVersions.xml answers {response.status} {response.reason}"
            )
        offered = {node.text for node in ET.fromstring(body).iter("version")}  # noqa: S314  # expat refuses bombs
    except (ET.ParseError, OSError, HTTPException) as error:
        raise translated(error, str(endpoint), "vimServiceVersions.xml") from error
    finally:
        connection.close()
    for version in _service_versions("vim25"):  # newest first
        if version.startswith("vim.") and versionIdMap.get(version) in offered:
            return version
    listed = ", ".join(sorted(filter(None, offered))[-3:]) or "none"
    raise ManagerError(
        f"{endpoint}: speaks none of the API versions known here, but {listed}; "
        "the manager is too old, or newer than this vcbproxy"
    )


class Stub(_Adapter):  # type: ignore[misc]  # subclasses Any
    """The one place where requests leave and answers, faults and broken connections come in."""

    def __init__(self, endpoint: Endpoint, version: str) -> None:
        self._login: Callable[[], object] | None = None
        self._calls = threading.local()
        super().__init__(
            host=endpoint.host,
            port=endpoint.port,
            path=endpoint.path,
            version=version,
            sslContext=endpoint.context,
            httpConnectionTimeout=endpoint.timeout_s,
            connectionPoolTimeout=_IDLE_S,
            acceptCompressedResponses=False,  # so that the limit on an answer's bytes is one on memory
        )
        self.scheme = functools.partial(tls.PinnedConnection, thumbprint=endpoint.thumbprint)
        self.generation = 0
        self.endpoint = endpoint
        self._login_lock = threading.RLock()

    @property
    def cookie(self) -> str:
        """Which session calls are made in."""
        return self._cookie

    @cookie.setter
    def cookie(self, cookie: str) -> None:
        """Take the one that a login brings.

        pyVmomi takes whatever an answer brings. But a refusal that comes late, after another thread has logged in
        again, brings one too: of a new session that nobody has logged in to.
        """
        if self._login is None or getattr(self._calls, "logging_in", False):
            self._cookie = cookie

    def log_in_with(self, login: Callable[[], object]) -> None:
        """Log in, and again whenever the manager no longer knows our session."""
        self._login = login
        self._log_in(self.generation)

    def drop(self) -> None:
        """Close the connections that wait in the pool."""
        self.DropConnections()

    def forget_login(self) -> None:
        """No more logging in: the session is being closed."""
        self._login = None

    def InvokeMethod(self, mo: Any, info: Any, args: Any, outerStub: Any = None) -> Any:  # noqa: N802, N803
        """Call a method; log in and repeat once when the session has ended meanwhile."""
        return self._authenticated(info, lambda: super(Stub, self).InvokeMethod(mo, info, args, outerStub))

    def ask(self, mo: Any, method: str, args: Sequence[Any], read: Callable[[bytes], T]) -> T:
        """Call a method whose answer is not simply pyVmomi's to read.

        Args:
            mo: whose method.
            method: its name on the wire.
            args: its arguments, in the schema's order.
            read: makes a value of the answer's bytes.

        Raises:
            ManagerError: as for all calls; among others when ``read`` trips over the answer.
        """
        info = type(mo)._GetMethodInfo(method)  # noqa: SLF001  # pyVmomi's way to reflect
        return cast("T", self._authenticated(info, lambda: read(self._fetch(mo, info, args))))

    def deserialised(self, body: bytes, method: str, result: Any) -> Any:
        """An answer as pyVmomi reads it, once it is sure to be one: for pyVmomi any XML at all is an answer, "nothing".

        Raises:
            ValueError: it is no answer to the method.
        """
        if f"{method}Response".encode() not in body:
            raise ValueError(f"no answer to {method}")
        return _Deserializer(self).Deserialize(io.BytesIO(body), result)  # from bytes it would not mind a missing end

    def _fetch(self, mo: Any, info: Any, args: Sequence[Any]) -> bytes:
        """The body of an answer; a fault is raised, read by pyVmomi."""
        request = self.SerializeRequest(mo, info, args)
        connection = self.GetConnection()
        try:
            headers = {"Cookie": self.cookie, "SOAPAction": self.versionId, "Content-Type": _XML}
            connection.request("POST", self.path, request, headers)
            response = connection.getresponse()
            body: bytes = response.read()
        except BaseException:  # what is left of the answer must not be taken for the next one's
            connection.close()
            self.DropConnections()
            raise
        self.ReturnConnection(connection)
        if response.status == 200:
            return body
        fault = _Deserializer(self).Deserialize(io.BytesIO(body), info.result) if response.status == 500 else None
        if isinstance(fault, Exception):
            raise fault
        raise HTTPException(f"{response.status} {response.reason}")

    def _authenticated(self, info: Any, call: Callable[[], Any]) -> Any:
        generation = self.generation
        try:
            return self._invoke(info, call)
        except ManagerError as error:
            inside_login = getattr(self._calls, "logging_in", False)
            if trouble_of(error) is not Trouble.SESSION or inside_login or self._login is None:
                raise
        self._log_in(generation)
        return self._invoke(info, call)

    def _invoke(self, info: Any, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (vmodl.MethodFault, OSError, HTTPException, *NONSENSE) as error:
            connection = getattr(self._calls, "connection", None)  # none: not even that one came about
            unheard = connection is None or not connection.opened
            raise translated(error, str(self.endpoint), info.wsdlName, unheard=unheard) from error
        except Error:
            raise
        except BaseException:  # an interrupt: what is left of the answer must not be taken for the next one's
            connection = getattr(self._calls, "connection", None)
            if connection is not None:
                connection.close()
            raise
        finally:
            self._calls.connection = None

    def GetConnection(self) -> Any:  # noqa: N802
        """Remember which connection a call uses, so that an interrupted call can close it."""
        self._calls.connection = super().GetConnection()
        return self._calls.connection

    def _log_in(self, generation: int) -> None:
        """Log in, unless another thread has done so since ``generation``."""
        with self._login_lock:
            login = self._login
            if login is None or generation != self.generation:
                return
            self._calls.logging_in = True  # this thread's; the others wait for the lock and then repeat their calls
            try:
                self.cookie = ""  # a Login inside a live session is refused as InvalidLogin
                login()
            finally:
                self._calls.logging_in = False
            self.generation += 1


class Wire:
    """A stub, and the manager's service content."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.instance = _service_instance("ServiceInstance", stub)
        self.content: vim.ServiceInstanceContent = self.instance.RetrieveContent()

    def object(self, kind: type[M], moref: str) -> M:
        """The managed object a moref stands for."""
        return kind(moref, self.stub)  # type: ignore[call-arg]  # the stubs do not tell of it


def moref_of(managed: Any) -> str:
    """A managed object's identity at its manager."""
    return str(managed._moId)  # noqa: SLF001  # pyVmomi has no public name for it
