"""NFS datastores: whether what is mounted here is what the manager means.

The kernel's table of mounts says what is mounted and from where. Names of a filer differ from machine to machine, so
what decides is whether the files that must be there are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.preflight.result import Result, failed, ok, warning
from vcbproxy.manager.datastore import Datastore, DatastorePath

TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the kernel's table."""

    point: Path
    kind: str
    source: str

    @property
    def is_nfs(self) -> bool:
        """Whether it is an NFS export."""
        return self.kind in ("nfs", "nfs4")


def judged(check: str, datastore: Datastore, path: Path, expected: Sequence[DatastorePath], table: str) -> Result:
    """What is to be said of a datastore that the configuration says is mounted at ``path``.

    Args:
        check: what the result is called.
        datastore: as the manager describes it.
        path: where it should be mounted.
        expected: files that it must hold, or some of them.
        table: what is mounted where, see ``covering``.
    """
    wanted = f"{datastore.nfs_host}:{datastore.nfs_path}"
    remedy = f"mount -o ro {wanted} {path}"
    if not path.is_dir():
        return failed(check, f"{path} is not a directory", f"create it; {remedy}")
    mount = covering(path, table)
    absent = [file for file in expected if not (path / file.path).exists()]
    if not any(path.iterdir()):
        return failed(check, f"nothing is mounted at {path}: it is empty", remedy)
    if absent and len(absent) == len(expected):
        source = mount.source if mount is not None and mount.is_nfs else "a local directory"
        detail = f"{path} is {source}, and does not hold {absent[0].path}: it is not {wanted}"
        return failed(check, detail, f"unmount it; {remedy}")
    if mount is None or not mount.is_nfs:
        return warning(check, f"{path} holds its files, and is no NFS mount", f"is that meant? Else: {remedy}")
    if mount.source.rpartition(":")[2].rstrip("/") != (datastore.nfs_path or "").rstrip("/"):
        return warning(check, f"{path} holds its files, from {mount.source}; hosts use {wanted}", "is that meant?")
    return ok(check, f"{mount.source} at {path}")


def covering(path: Path, table: str) -> Mount | None:
    """The mount that a path lies on.

    Args:
        path: which path.
        table: in the form of ``/proc/self/mountinfo`` (proc(5)): among others, field 5 is the mount point, and after
            a lone dash come the file system's type and what is mounted; blanks are octal escapes.
    """
    here = path.resolve()
    best: Mount | None = None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(rest) < 2:
            continue
        mount = Mount(Path(_plain(fields[4])), rest[0], _plain(rest[1]))
        # Later lines lie over earlier ones of the same place.
        if here.is_relative_to(mount.point) and (best is None or mount.point.is_relative_to(best.point)):
            best = mount
    return best


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
