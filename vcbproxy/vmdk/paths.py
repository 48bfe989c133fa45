"""Where a reference in a descriptor leads. In: the path of the descriptor and the reference. Out: a path, or VmdkError.

Paths here are relative to the datastore's root: ``web01/web01.vmdk``. A snapshot names its parent beside itself
(``web01.vmdk``), in another folder (``../template/base.vmdk``, linked clones) or absolutely
(``/vmfs/volumes/4f1c…/template/base.vmdk``, by UUID or label of the volume). None of them may leave the datastore.
"""

from __future__ import annotations

from collections.abc import Collection

from vcbproxy.errors import VmdkError

_VOLUMES = ["vmfs", "volumes"]
_MAX_CHARS = 4096


def resolve_inside(base_path: str, reference: str, datastore_names: Collection[str] = ()) -> str:
    """Follow ``reference`` from the file at ``base_path``, staying in the datastore.

    Args:
        base_path: the descriptor that holds the reference, relative to the datastore's root.
        reference: what it says.
        datastore_names: what the datastore is called below ``/vmfs/volumes``: its UUID, its label.

    Raises:
        VmdkError: the reference leaves the datastore, or is no path to a file.
    """
    try:
        return "/".join(_followed(base_path, reference, datastore_names))
    except _Refused as refused:
        reason = f"the reference {reference[:120]!r} {refused}"
        raise VmdkError(file=base_path, reason=reason) from None


class _Refused(Exception):
    """Why, for the sentence around it."""


def _followed(base_path: str, reference: str, datastore_names: Collection[str]) -> list[str]:
    if not reference or len(reference) > _MAX_CHARS or any(ord(char) < 32 or ord(char) == 127 for char in reference):
        raise _Refused("is not a path")
    if reference.rsplit("/", maxsplit=1)[-1] in {"", ".", ".."}:
        raise _Refused("is a folder")
    if not reference.startswith("/"):
        return _normalised([*base_path.split("/")[:-1], *reference.split("/")])
    parts = [part for part in reference.split("/") if part]
    if parts[:2] != _VOLUMES or len(parts) < 4:
        raise _Refused("is absolute, and not below /vmfs/volumes")
    if parts[2] not in datastore_names:
        raise _Refused(f"leads to another datastore ({parts[2]})")
    return _normalised(parts[3:])


def _normalised(parts: list[str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if part == "..":
            if not out:
                raise _Refused("leaves the datastore")
            out.pop()
        elif part not in {"", "."}:
            out.append(part)
    return out
