"""Who we are, as locks, keys and snapshots record it. Passed in, so that a test can be someone else."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A process on a host."""

    hostname: str
    username: str
    pid: int
    uid: int = 0
    gid: int = 0


def mine() -> Identity:
    """This process."""
    try:
        username = getpass.getuser()
    except (KeyError, OSError):  # a uid without a passwd entry, as containers have
        username = str(os.getuid())
    return Identity(socket.gethostname(), username, os.getpid(), os.getuid(), os.getgid())
