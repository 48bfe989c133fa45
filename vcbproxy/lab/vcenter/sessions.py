"""Who is logged in, and until when: sessions idle out, and may be made to end after so many calls."""

from __future__ import annotations

import copy
import threading
import uuid
from typing import Any

from vcbproxy.clock import Clock
from vcbproxy.lab.vcenter.schema import vim

IDLE_S = 30 * 60.0  # a vCenter's default


class Sessions:
    """The sessions of a server; the cookie is the key.

    Attributes:
        idle_s: a session that was not used for longer ends.
        calls_max: a session ends after so many calls; 0: never for that.
    """

    def __init__(self, username: str, password: str, clock: Clock) -> None:
        self._username = username
        self._password = password
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self.idle_s = IDLE_S
        self.calls_max = 0

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

    def change_password(self, password: str) -> None:
        """Let the old one be refused from now on; sessions stay."""
        self._password = password

    def find(self, key: str) -> Any:
        """A session, or None when it never was or has ended."""
        with self._lock:
            return self._living(key)

    def use(self, key: str) -> bool:
        """Note a call in a session; False: there is no such session (any more)."""
        with self._lock:
            session = self._living(key)
            if session is None:
                return False
            used = copy.copy(session)  # the old one may be on its way to a client
            used.lastActiveTime, used.callCount = self._clock.now(), session.callCount + 1
            self._known[key] = used
            return True

    def _living(self, key: str) -> Any:
        session = self._known.get(key)
        if session is not None and self._over(session):
            del self._known[key]
            return None
        return session

    def _over(self, session: Any) -> bool:
        idle_s = (self._clock.now() - session.lastActiveTime).total_seconds()
        return bool(idle_s > self.idle_s or 0 < self.calls_max <= session.callCount)

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
