"""A PostgreSQL of the tests' own: a cluster in a folder, on a port of its own, stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "vcbproxy"
PASSWORD = "not a secret"


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    binaries: Path

    def url(self, database: str, user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new database; gives its URL."""
        command = [self.binaries / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database]
        subprocess.run(command, check=True, env={**os.environ, "PGPASSWORD": PASSWORD}, timeout=60)
        return self.url(database)


def binaries() -> Path | None:
    """Where Debian puts a server's programs, or wherever they are on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def running(programs: Path, folder: Path) -> Iterator[Server]:
    """A fresh cluster in a folder, for the length of a ``with``. It refuses to run as root."""
    account = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    secret, data = folder / "secret", folder / "data"
    secret.write_text(PASSWORD)
    data.mkdir()
    if identity:
        for path in (folder, secret, data):
            os.chown(path, account.pw_uid, account.pw_gid)
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        "--pwfile",
        secret,
        "-N",
        "-E",
        "UTF8",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120, **identity)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    # It goes with whoever started it, also when that is killed.
    server = [
        "setpriv",
        "--pdeathsig",
        "INT",
        programs / "postgres",
        "-D",
        data,
        *(f"--{name}={value}" for name, value in settings.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(server, stdout=log, stderr=log, cwd="/", **identity)
    try:
        wait = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        for _ in range(300):
            if subprocess.run(wait, check=False, timeout=30).returncode == 0:
                break
            assert process.poll() is None, (folder / "log").read_text()
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        else:
            raise AssertionError((folder / "log").read_text())
        yield Server(port, programs)
    finally:
        process.terminate()
        process.wait(30)
