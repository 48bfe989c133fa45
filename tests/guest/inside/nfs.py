"""A filer: the kernel's NFSv3 server, exporting a folder of the guest, and the proxy's mount of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.guest.inside.commands import call, wait_until
from vcbproxy.units import MiB

MOUNT = Path("/mnt/nfs1")
FILE_BYTES = MiB


def export(folder: Path) -> None:
    """Serve a folder to this machine by NFSv3 alone, as a filer does for hosts."""
    call("modprobe", "--all", "nfsd", "nfs", "nfsv3")
    call("useradd", "--system", "--no-create-home", "_rpc")
    Path("/run/rpcbind").mkdir()
    call("rpcbind")
    call("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    Path("/etc/exports").touch()
    for state in ("etab", "rmtab"):
        Path("/var/lib/nfs").mkdir(parents=True, exist_ok=True)
        (Path("/var/lib/nfs") / state).touch()
    call("exportfs", "-o", "rw,no_root_squash,insecure,no_subtree_check,fsid=1", f"127.0.0.1:{folder}")
    call("rpc.nfsd", "--no-nfs-version", 4, 2)
    call("rpc.mountd", "--no-nfs-version", 4)
    wait_until(lambda: "mountd" in call("rpcinfo", "-p"), "mountd")


def mount(folder: Path) -> str:
    """Mount it as docs/operating.md says; the answer is the line of /proc/mounts."""
    MOUNT.mkdir(parents=True)
    call("mount", "-t", "nfs", "-o", "ro,nosuid,nodev,vers=3,nolock", f"127.0.0.1:{folder}", MOUNT)
    return next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {MOUNT} " in line)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"as many bytes as before")


def _replace(file: Path) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(bytes(FILE_BYTES))
    fresh.replace(file)


# What somebody on the server may do to a file of FILE_BYTES while it is read.
CHANGES: dict[str, Callable[[Path], None]] = {
    "overwritten": _overwrite,
    "replaced": _replace,
    "cut": lambda file: os.truncate(file, 4096),
    "grown": lambda file: os.truncate(file, 2 * FILE_BYTES),
    "deleted": Path.unlink,
}
