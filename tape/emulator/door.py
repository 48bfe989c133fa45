"""The door of a library that is being served: hands reach into it from another process.

    library/door.sock     ── a line of JSON ──▶   {"do": "import", "barcode": "TAP009L8", "capacity_mib": 3072}
                          ◀── a line ──           {"address": 16}     or    {"refused": "every mail slot is full"}

Whoever may write to the folder may reach in. What lies where, the served library alone knows; so hands ask it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary

_SOCKET = "door.sock"
_LINE_BYTES_MAX = 64 << 10
_ASKED_S = 30.0


class Shut(Exception):
    """Nobody serves the library of this folder."""


class Refused(Exception):
    """It was heard, and cannot be done."""


class Door:
    """Lets hands in, for the length of a ``with``; one after the other."""

    def __init__(self, library: VirtualLibrary) -> None:
        """Open it.

        Raises:
            OSError: the folder takes no socket.
        """
        self._library = library
        self._doings: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "import": self._import,
            "export": self._export,
            "door": self._door,
        }
        self._listening = socket.socket(socket.AF_UNIX)
        try:
            (library.folder / _SOCKET).unlink(missing_ok=True)  # of one that was killed: the folder's lock is ours
            with _reachable(library.folder) as path:
                self._listening.bind(path)
            self._listening.listen()
        except OSError:
            self._listening.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="library door")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()
        (self._library.folder / _SOCKET).unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            with connected, suppress(OSError):
                connected.settimeout(_ASKED_S)
                connected.sendall(json.dumps(self._answer(_line(connected))).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            return self._doings[asked["do"]](asked)
        except (KeyError, TypeError, AttributeError) as error:
            return {"refused": f"not understood: {error}"}
        except (ValueError, OSError) as error:
            return {"refused": str(error)}

    def _import(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        kind = Kind(capacity_mib=int(asked["capacity_mib"])) if "capacity_mib" in asked else None
        return {"address": self._library.import_cartridge(str(asked["barcode"]), kind)}

    def _export(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._library.take_out(str(asked["barcode"]))
        return {}

    def _door(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._library.open_door() if asked["open"] else self._library.close_door()
        return {}


def ask(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Have a served library do something.

    Raises:
        Shut: nobody serves it.
        Refused: it cannot be done.
    """
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(_ASKED_S)
        try:
            with _reachable(folder) as path:
                connected.connect(path)
            connected.sendall(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(_line(connected))
        except (OSError, ValueError) as error:
            raise Shut(str(error)) from error
    if "refused" in answer:
        raise Refused(answer["refused"])
    return answer


def _line(connected: socket.socket) -> bytes:
    read = bytearray()
    while b"\n" not in read and len(read) < _LINE_BYTES_MAX:
        piece = connected.recv(4096)
        if not piece:
            break
        read += piece
    return bytes(read)


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """The socket's path in short: addresses of sockets end at 107 bytes, folders do not."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)
