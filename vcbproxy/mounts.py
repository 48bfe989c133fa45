"""The kernel's table of mounts: on which file system a path lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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
