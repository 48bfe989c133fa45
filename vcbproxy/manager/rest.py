"""vCenter's other API, over the same verified connection: HTTP with JSON (the vSphere Automation API), for tags alone.

                     vCenter 7.0 U2 and later                  6.5 to 7.0 U1, deprecated since
    log in           POST   /api/session → "token"             POST /rest/com/vmware/cis/session → {"value": "token"}
    look             GET    /api/…/{id}                        GET  /rest/com/vmware/…/id:{id} → {"value": …}
    ask              POST   /api/…?action=verb                 POST /rest/com/vmware/…?~action=verb → {"value": …}

The newer is tried first; one that is not there answers 404. Sources: developer.broadcom.com, vSphere Automation API,
"Create Session" and "Tagging APIs", of 8.0 and of "v6.5 - v7.0U2".
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from vcbproxy.errors import CredentialsError, Error, ManagerError
from vcbproxy.manager.faults import Trouble, translated
from vcbproxy.manager.session import Credentials
from vcbproxy.manager.wire import Endpoint

_TOKEN = "vmware-api-session-id"  # noqa: S105  # a header's name
_SAID_MAX = 300


@dataclass(frozen=True, slots=True)
class _Dialect:
    session: str
    services: str
    before_id: str
    action: str
    wrapped: bool

    def value(self, answer: Any) -> Any:
        return answer["value"] if self.wrapped else answer


_DIALECTS = (
    _Dialect("/api/session", "/api/cis", "/", "action", wrapped=False),
    _Dialect("/rest/com/vmware/cis/session", "/rest/com/vmware/cis", "/id:", "~action", wrapped=True),
)


class NotThere(ManagerError):
    """The manager answered 404."""


class RestSession:
    """Logged in for as long as the ``with`` lasts; for one thread."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._connection = endpoint.connection()
        self._dialect = _DIALECTS[0]
        self._token = ""

    def __enter__(self) -> Self:
        try:
            self._log_in()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:  # else the connection may be torn; the session ends by itself
                self._send("DELETE", self._dialect.session)
        except Error:
            pass
        finally:
            self._connection.close()

    def get(self, service: str, identifier: str = "") -> Any:
        """Look at a resource, such as ``tagging/tag``, or at the one of that id.

        Raises:
            NotThere: there is none.
            ManagerError: refused, vanished, or the answer makes no sense.
        """
        end = f"{self._dialect.before_id}{quote(identifier, safe=':')}" if identifier else ""
        return self._asked("GET", f"{self._dialect.services}/{service}{end}")

    def ask(self, service: str, action: str, body: Any) -> Any:
        """Call an action of a service.

        Raises:
            ManagerError: as ``get``.
        """
        return self._asked("POST", f"{self._dialect.services}/{service}?{self._dialect.action}={action}", body)

    def _asked(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._send(method, path, body)
        try:
            return self._dialect.value(answer)
        except (TypeError, LookupError) as error:
            raise translated(error, str(self._endpoint), path) from error

    def _log_in(self) -> None:
        login = f"{self._credentials.username}:{self._credentials.password}".encode()
        headers = {
            "Authorization": f"Basic {base64.b64encode(login).decode('ascii')}",
            "vmware-use-header-authn": "vcbproxy",  # the older one wants it, against forged requests of browsers
        }
        for self._dialect in _DIALECTS:
            try:
                token = self._dialect.value(self._send("POST", self._dialect.session, headers=headers))
            except NotThere:
                continue
            except (TypeError, LookupError) as error:
                raise translated(error, str(self._endpoint), self._dialect.session) from error
            if not isinstance(token, str) or not token.isprintable() or not token:
                raise self._nonsense(self._dialect.session, "no session token")
            self._token = token
            return
        raise ManagerError(
            f"{self._endpoint}: no vSphere Automation API there, and tags are told by no other: "
            "vCenter Server 6.5 or later has it; select by name: or folder: instead",
            trouble=Trouble.OTHER,
        )

    def _send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        sent = {"Accept": "application/json", **(headers or {_TOKEN: self._token})}
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode("utf-8")
        elif method == "POST":
            data = b""  # so that its length is sent: some proxies refuse a POST without
        try:
            self._connection.request(method, path, body=data, headers=sent)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            self._connection.close()
            raise translated(error, str(self._endpoint), path) from error
        if not 200 <= response.status < 300:
            raise self._refused(path, response.status, answer)
        if not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError as error:
            raise self._nonsense(path, "not JSON") from error

    def _refused(self, path: str, status: int, answer: bytes) -> Error:
        where = f"{self._endpoint}{path.partition('?')[0]}"
        said = f": {text}" if (text := _said(answer)) else ""
        match status:
            case 401 if not self._token:
                return CredentialsError(f"{where} refused the login{said}", trouble=Trouble.PERMISSION)
            case 401:
                return ManagerError(f"{where}: the session ended{said}", trouble=Trouble.CONNECTION)
            case 403:
                remedy = "give this user read privileges on tags and categories"
                return ManagerError(f"{where}: not permitted{said}; {remedy}", trouble=Trouble.PERMISSION)
            case 404:
                return NotThere(f"{where}: there is none{said}", trouble=Trouble.GONE)
            case 502 | 503 | 504:
                remedy = "is the service vmware-vapi-endpoint running on the vCenter?"
                return ManagerError(f"{where}: answers {status}{said}; {remedy}", trouble=Trouble.CONNECTION)
        return ManagerError(f"{where}: answers {status}{said}", trouble=Trouble.OTHER)

    def _nonsense(self, path: str, what: str) -> ManagerError:
        return ManagerError(f"{self._endpoint}{path}: the answer makes no sense: {what}", trouble=Trouble.OTHER)


def _said(answer: bytes) -> str:
    """What an error's document says, in one line; nothing when it is no such document."""
    try:
        document = json.loads(answer)
        document = document.get("value", document)
        texts = [str(message["default_message"]) for message in document.get("messages", ())]
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
    return " ".join("; ".join(texts).split())[:_SAID_MAX]
