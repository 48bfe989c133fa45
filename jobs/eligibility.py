"""Which disks of a VM can be read off the SAN, and why the others cannot; known before any snapshot is made."""

from __future__ import annotations

from collections.abc import Mapping

from vcbproxy.errors import SourceError
from vcbproxy.manager.disk import refusal
from vcbproxy.manager.vm import Vm
from vcbproxy.source.storage import Storage


def refusals(vm: Vm, storage: Storage) -> dict[str, str]:
    """The reason for each disk that cannot be read, by disk key; empty when all can."""
    reasons: dict[str, str] = {}
    for disk in vm.disks:
        # Per disk: a VM with a virtual TPM has a key for its configuration, and disks in plain. Should the manager not
        # tell, the disk's own descriptor does, and is refused.
        reason = refusal(disk)
        paths = [] if reason else [disk.path, *disk.parents]
        for name in dict.fromkeys(path.datastore for path in paths):
            try:
                place = storage.place(name)
            except SourceError as error:
                reason = reason or str(error)
                continue
            reason = reason or refusal(disk, place.datastore)
            if reason is None and not place.reachable:
                reason = f"datastore {name} is not readable here: {place.remedy}"
        if reason is not None:
            reasons[disk.key] = reason
    return reasons


def told(vm: Vm, reasons: Mapping[str, str]) -> str:
    """The reasons in one sentence, each once, with the disks it holds back by the names that people know."""
    held_back: dict[str, list[str]] = {}
    for disk in vm.disks:
        if disk.key in reasons:
            held_back.setdefault(reasons[disk.key], []).append(f"{disk.label} ({disk.key})")
    return "; ".join(f"{', '.join(disks)}: {reason}" for reason, disks in held_back.items())
