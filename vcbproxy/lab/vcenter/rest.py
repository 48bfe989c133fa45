"""The other API of a vCenter, as far as tags need it: HTTP and JSON, in its two dialects.

    /api/…                              since 7.0 U2: the bare value
    /rest/com/vmware/…                  6.5 and later: {"value": …}, ids as /id:…, verbs as ?~action=…

Its sessions are its own. It is told by the specification which tags there are and what they are attached to.
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vcbproxy.lab import content
from vcbproxy.lab.vcenter.http import JSON, Post, Reply

MODERN, LEGACY = "/api", "/rest"
_SERVICES = {MODERN: "/api/cis/", LEGACY: "/rest/com/vmware/cis/"}
_SESSIONS = {MODERN: "/api/session", LEGACY: "/rest/com/vmware/cis/session"}
_UNAUTHENTICATED, _NOT_FOUND, _INVALID = "unauthenticated", "not_found", "invalid_argument"
_STATUS = {_UNAUTHENTICATED: 401, _NOT_FOUND: 404, _INVALID: 400}


@dataclass(slots=True)
class Tag:
    """A tag; ``attached`` has the (type, id) of objects."""

    identifier: str
    category: str
    name: str
    attached: list[tuple[str, str]] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Rest:
    """The service.

    Attributes:
        dialects: those that are there; without ``MODERN`` it is a vCenter before 7.0 U2.
        tags: all tags by their ids.
        listed_too: ids in the list of tags that nothing is known of: deleted in the same moment.
        instead: what to answer to a call (by ``call_of``), whatever would be right.
        refuse_logins: the login that is good for the SOAP API is not good here.
        calls_max: a session ends after so many calls; 0: never for that.
    """

    def __init__(self, username: str, password: str, dialects: Collection[str]) -> None:
        self.dialects = set(dialects)
        self.tags: dict[str, Tag] = {}
        self.listed_too: list[str] = []
        self.instead: dict[str, bytes] = {}
        self.refuse_logins = False
        self.calls_max = 0
        self._basic = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._sessions: dict[str, int] = {}
        self._lock = threading.Lock()

    def attach(self, text: str, kind: str, moref: str) -> None:
        """Attach a tag (``category/name``) to an object; a tag that is not there yet is made."""
        category, _, name = text.partition("/")
        identifier = f"urn:vmomi:InventoryServiceTag:{uuid.UUID(bytes=content.identifier(1, 'tag', text))}:GLOBAL"
        tag = self.tags.setdefault(identifier, Tag(identifier, category, name))
        tag.attached.append((kind, moref))

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def forget(self) -> None:
        """End all sessions."""
        with self._lock:
            self._sessions.clear()

    def call_of(self, post: Post) -> str:
        """What a request is called where calls are counted: ``GET tagging/tag``, ``POST session``."""
        path = urlsplit(post.path).path
        dialect = _dialect(path)
        short = path.removeprefix(_SERVICES[dialect]).removeprefix(f"{dialect}/")
        return f"{post.method} {'/'.join(short.split('/')[:2])}"

    def answer(self, post: Post) -> Reply:
        """Answer a request."""
        dialect = _dialect(post.path)
        try:
            if dialect not in self.dialects:
                return Reply(404, b"<html>nothing here</html>", content_type="text/html")
            if (call := self.call_of(post)) in self.instead:
                return Reply(200, self.instead[call], content_type=JSON)
            value = self._call(dialect, post)
        except _Refused as refused:
            return Reply(_STATUS[refused.kind], _error(dialect, refused), content_type=JSON)
        except (ValueError, TypeError, LookupError) as error:
            return Reply(400, _error(dialect, _Refused(_INVALID, repr(error))), content_type=JSON)
        if value is None:
            return Reply(204 if dialect == MODERN else 200, b"", content_type=JSON)
        status = 201 if (post.method, post.path) == ("POST", _SESSIONS[MODERN]) else 200
        body = json.dumps(value if dialect == MODERN else {"value": value})
        return Reply(status, body.encode(), content_type=JSON)

    def _call(self, dialect: str, post: Post) -> Any:
        url = urlsplit(post.path)
        if url.path == _SESSIONS[dialect]:
            return self._session(post)
        self._use(post.token)
        service, _, rest = url.path.removeprefix(f"{_SERVICES[dialect]}tagging/").partition("/")
        identifier = unquote(rest.removeprefix("id:") if dialect == LEGACY else rest)
        action = parse_qs(url.query).get("action" if dialect == MODERN else "~action", [""])[0]
        match post.method, service, action:
            case "GET", "tag", "":
                return _shown(self._tag(identifier)) if identifier else [*self.tags, *self.listed_too]
            case "GET", "category", "" if identifier:
                return self._category(identifier)
            case "POST", "tag-association", "list-attached-objects-on-tags":
                return self._attached(json.loads(post.body)["tag_ids"])
        raise _Refused(_NOT_FOUND, f"no such service: {post.method} {post.path}")

    def _session(self, post: Post) -> str | None:
        with self._lock:
            if post.method == "DELETE":
                self._sessions.pop(post.token, None)
                return None
            if self.refuse_logins or post.authorization != f"Basic {self._basic}":
                raise _Refused(_UNAUTHENTICATED, "Unable to authenticate user")
            token = uuid.uuid4().hex
            self._sessions[token] = 0
            return token

    def _use(self, token: str) -> None:
        with self._lock:
            calls = self._sessions.get(token)
            if calls is not None and 0 < self.calls_max <= calls:
                del self._sessions[token]
                calls = None
            if calls is None:
                raise _Refused(_UNAUTHENTICATED, "This method requires authentication.")
            self._sessions[token] = calls + 1

    def _tag(self, identifier: str) -> Tag:
        found = self.tags.get(identifier)
        if found is None:
            raise _Refused(_NOT_FOUND, f"no tag {identifier}")
        return found

    def _category(self, identifier: str) -> Mapping[str, Any]:
        named = next((tag.category for tag in self.tags.values() if _category_id(tag.category) == identifier), None)
        if named is None:
            raise _Refused(_NOT_FOUND, f"no category {identifier}")
        return {
            "id": identifier,
            "name": named,
            "description": "",
            "cardinality": "MULTIPLE",
            "associable_types": [],
            "used_by": [],
        }

    def _attached(self, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        return [
            {
                "tag_id": identifier,
                "object_ids": [{"type": kind, "id": moref} for kind, moref in self._tag(identifier).attached],
            }
            for identifier in ids
        ]


def _dialect(path: str) -> str:
    return LEGACY if path.startswith(LEGACY) else MODERN


def _category_id(name: str) -> str:
    return f"urn:vmomi:InventoryServiceCategory:{uuid.UUID(bytes=content.identifier(1, 'category', name))}:GLOBAL"


def _shown(tag: Tag) -> Mapping[str, Any]:
    return {
        "id": tag.identifier,
        "category_id": _category_id(tag.category),
        "name": tag.name,
        "description": "",
        "used_by": [],
    }


def _error(dialect: str, refused: _Refused) -> bytes:
    messages = [{"args": [], "default_message": str(refused), "id": "lab"}]
    if dialect == MODERN:
        document: Any = {"error_type": refused.kind.upper(), "messages": messages}
    else:
        document = {"type": f"com.vmware.vapi.std.errors.{refused.kind}", "value": {"messages": messages}}
    return json.dumps(document).encode()
