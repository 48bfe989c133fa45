"""A target that listens: a thread that accepts, and one for each connection. All of them end with its ``with``."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from tape.emulator.iscsi.connection import Connection
from tape.emulator.iscsi.login import LoginRefused, log_in
from tape.emulator.iscsi.parameters import SEGMENT_BYTES
from tape.emulator.lun import Lun
from tape.scsi.pdu import Disconnected, Wire

_LOGIN_S = 30.0
_PAUSE_S = 0.1
_log = logging.getLogger(__name__)


class IscsiTarget:
    """Logical units, served: LUN n is the n-th of them."""

    def __init__(self, luns: Sequence[Lun], name: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; nobody is served before the ``with``.

        Args:
            luns: at most 256.
            name: its iSCSI name.
            host: an address of this machine; whoever reaches it is let in.
            port: 0 takes a free one.

        Raises:
            OSError: nobody can listen there.
        """
        assert len(luns) <= 256, "peripheral addressing ends at LUN 255"
        self.luns = luns
        self.name = name
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family)
        self.host, self.port = self._listening.getsockname()[:2]
        self._accepting = threading.Thread(target=self._accept, name=f"iscsi {self.port}")
        self._lock = threading.Lock()
        self._serving: dict[threading.Thread, Wire] = {}
        self._sessions: dict[tuple[str, bytes], Wire] = {}
        self._handle = 0
        self._closing = threading.Event()

    @property
    def portal(self) -> str:
        """Address and port, as initiators write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, lun: int) -> str:
        """One logical unit, as libiscsi and QEMU name it."""
        return f"iscsi://{self.portal}/{self.name}/{lun}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every session, and wait for the threads."""
        self._closing.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; a close alone does not
        if self._accepting.ident is not None:
            self._accepting.join()
        self._listening.close()
        self.drop_sessions()

    def drop_sessions(self) -> None:
        """Break every connection, as a cable pulled out does; initiators may come again at once."""
        with self._lock:
            serving = dict(self._serving)
        for thread, wire in serving.items():
            wire.close()
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connected, _ = self._listening.accept()
            except OSError as error:  # out of descriptors, or it went away at once: the next may do better
                if not self._closing.wait(_PAUSE_S):
                    _log.warning("%s: %s", self.name, error.strerror or error)
                continue
            wire = Wire(connected, SEGMENT_BYTES)
            thread = threading.Thread(target=self._serve, args=(wire,), name=f"iscsi session {self.port}")
            with self._lock:  # whoever ends all sessions finds none that has not begun
                self._serving[thread] = wire
                thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            self._converse(wire)
        except (Disconnected, OSError, LoginRefused) as error:
            _log.info("%s: %s", self.name, error)
        finally:
            wire.close()
            with self._lock:
                self._serving.pop(threading.current_thread(), None)

    def _converse(self, wire: Wire) -> None:
        with self._lock:
            self._handle = self._handle % 0xFFFF + 1
            handle = self._handle
        wire.set_timeout(_LOGIN_S)
        login = log_in(wire, self.name, handle)
        wire.set_timeout(None)
        key = (login.initiator, login.isid)
        if not login.discovery:
            self._take_over(key, wire)
        try:
            Connection(wire, self, login).serve()
        finally:
            with self._lock:
                if self._sessions.get(key) is wire:
                    del self._sessions[key]

    def _take_over(self, key: tuple[str, bytes], wire: Wire) -> None:
        """An initiator that comes anew under a name it has already has lost its old session (RFC 7143, 6.3.5)."""
        with self._lock:
            old, self._sessions[key] = self._sessions.get(key), wire
        if old is not None:
            old.close()
