"""NFS datastores: whether what is mounted here is what the manager means.

The kernel's table of mounts says what is mounted and from where. Names of a filer differ from machine to machine, so
what decides is whether the files that must be there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.preflight.result import Result, failed, ok, warning
from vcbproxy.manager.datastore import Datastore, DatastorePath
from vcbproxy.mounts import covering


def judged(check: str, datastore: Datastore, path: Path, expected: Sequence[DatastorePath], table: str) -> Result:
    """What is to be said of a datastore that the configuration says is mounted at ``path``.

    Args:
        check: what the result is called.
        datastore: as the manager describes it.
        path: where it should be mounted.
        expected: files that it must hold, or some of them.
        table: what is mounted where, see ``vcbproxy.mounts.covering``.
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
