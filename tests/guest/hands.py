r"""Hands in the machine room: while a guest works with the emulated library, things happen to it that no command does.

guest ── "open the door\n" ──▶ 10.0.2.2:port ──▶ Hands ──▶ the deed of that name, done on the library itself
      ◀── "done\n" ───────────                            (or what went wrong)
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def hands(deeds: Mapping[str, Callable[[], object]]) -> Iterator[int]:
    """Do deeds by name for whoever asks on a port of the loopback interface; gives the port."""

    class Asked(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                name = line.decode().strip()
                try:
                    answer = f"done {deeds[name]() or ''}"
                except Exception as error:  # noqa: BLE001  # whatever it is, the guest must hear of it
                    answer = f"{name}: {error!r}"
                self.wfile.write(f"{answer.strip()}\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Asked) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="hands")
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
