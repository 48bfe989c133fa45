"""Which disks of a VM can be read off the SAN, and why the others cannot; known before any snapshot is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from vcbproxy.errors import SourceError
from vcbproxy.manager.datastore import Datastore
from vcbproxy.manager.disk import Disk, DiskKind, refusal
from vcbproxy.source.storage import Storage


def refusals(disks: Iterable[Disk], storage: Storage) -> dict[str, str]:
    """The reason for each disk that cannot be read, by disk key; empty when all can."""
    disks = list(disks)
    storage = storage.seen_by(disks)

    @cache
    def unreadable(datastore: str) -> str | None:
        return _unreadable(storage, datastore)

    reasons: dict[str, str] = {}
    for disk in disks:
        # Per disk: a VM with a virtual TPM has a key for its configuration, and disks in plain. Should the manager not
        # tell, the disk's own descriptor does, and is refused.
        reason = refusal(disk)
        names = dict.fromkeys(path.datastore for path in (disk.path, *disk.parents))
        for name in names if reason is None else ():
            reason = reason or _by_kind(storage, disk, name) or unreadable(name)
        if reason is None and (trouble := raw_lun_trouble(disk, storage)) is not None:
            reason = str(trouble)
        if reason is not None:
            reasons[disk.key] = reason
    return reasons


def raw_lun_trouble(disk: Disk, storage: Storage) -> SourceError | None:
    """Why the LUN behind a raw device mapping cannot be opened here; None when it can, or the disk is none."""
    if disk.kind is not DiskKind.RDM_VIRTUAL:
        return None
    try:
        storage.open_raw(storage.raw_lun(disk))  # the rule for datastores does not open it to us: it has one of its own
    except SourceError as error:
        return error
    return None


def _by_kind(storage: Storage, disk: Disk, name: str) -> str | None:
    try:
        datastore: Datastore = storage.datastore(name)
    except SourceError as error:
        return str(error)
    return refusal(disk, datastore)


def _unreadable(storage: Storage, name: str) -> str | None:
    """Why a datastore cannot be read here. Its volume's headers are looked at: a damaged one costs no VM a snapshot."""
    try:
        place = storage.place(name)
        if not place.reachable:
            return f"datastore {name} is not readable here: {place.remedy}"
        if place.mount is None:
            storage.volume(name)
    except SourceError as error:
        return str(error)
    return None


def told(disks: Iterable[Disk], reasons: Mapping[str, str]) -> str:
    """The reasons in one sentence, each once, with the disks it holds back by the names that people know."""
    held_back: dict[str, list[str]] = {}
    for disk in disks:
        if disk.key in reasons:
            held_back.setdefault(reasons[disk.key], []).append(f"{disk.label} ({disk.key})")
    return "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in held_back.items())
