"""Who is logged in."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from vcbproxy.clock import Clock
from vcbproxy.lab.vcenter.schema import vim


class Sessions:
    """The sessions of a server; the cookie is the key."""

    def __init__(self, username: str, password: str, clock: Clock) -> None:
        self._username = username
        self._password = password
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}

    def login(self, username: str, password: str, agent: str) -> Any:
        """Begin a session.

        Raises:
            vim.fault.InvalidLogin: not the user, or not the password.
        """
        if (username, password) != (self._username, self._password):
            raise vim.fault.InvalidLogin(msg="Cannot complete login due to an incorrect user name or password.")
        now = self._clock.now()
        session = vim.UserSession(
            key=uuid.uuid4().hex,
            userName=username,
            fullName=username,
            loginTime=now,
            lastActiveTime=now,
            locale="en",
            messageLocale="en",
            extensionSession=False,
            ipAddress="127.0.0.1",
            userAgent=agent,
            callCount=0,
        )
        with self._lock:
            self._known[session.key] = session
        return session

    def find(self, key: str) -> Any:
        """A session, or None."""
        with self._lock:
            return self._known.get(key)

    def end(self, key: str) -> None:
        """End one."""
        with self._lock:
            self._known.pop(key, None)

    def expire(self) -> None:
        """End all, as idle time or a restart does: the next call of each client is not authenticated."""
        with self._lock:
            self._known.clear()

    def __len__(self) -> int:
        return len(self._known)
