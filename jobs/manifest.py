"""What the backup records of a restore point: the field ``manifest`` of ``vm.json``, beside the disks.

Whatever stock restic would drop from its snapshot record is kept here. The mark of the format is the file's own, and
the repository's; restore points of before that have a second one here, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jobs.outcome import DiskResult
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.snapshot import Marker, VmSnapshot
from vcbproxy.pipeline.chunker import Parameters


def disk_document(disk: Disk, links: Sequence[str], result: DiskResult, taken: Mapping[str, Any]) -> dict[str, Any]:
    """One disk: which it was, what it was read from, by which method and from which base.

    Args:
        disk: as it was frozen.
        links: what it was read from.
        result: how.
        taken: what its target says of it: how much was read, how it is kept.
    """
    return {
        "key": disk.key,
        "device_key": disk.device_key,
        "label": disk.label,
        "path": str(disk.path),
        "links": list(links),
        "capacity_bytes": disk.capacity_bytes,
        "mode": disk.mode,
        "uuid": disk.uuid,
        "thin": disk.thin,
        "change_id": disk.change_id,
        "method": result.method,
        "base": result.base,
        "full_because": result.full_because,
        "bytes_changed": result.bytes_changed,
        "audit": result.audit and result.audit.as_json(),
        **taken,
    }


def document(
    marker: Marker,
    frozen: VmSnapshot,
    disks: Sequence[dict[str, Any]],
    results: Sequence[DiskResult],
    config: dict[str, Any],
    suspects: Sequence[str],
) -> dict[str, Any]:
    """The whole manifest."""
    failed = [{"key": result.key, "reason": result.error} for result in results if result.error is not None]
    bases = {result.base for result in results if result.base is not None}
    return {
        "program": f"vcbproxy {version('vcbproxy')}",
        "job_run": marker.job_run_id,
        "proxy": marker.host,
        "time": frozen.created.isoformat(),
        "method": method_of(results),
        "base": bases.pop() if len(bases) == 1 else None,
        "quiesced": frozen.quiesced,
        "not_quiesced_because": frozen.not_quiesced_because,
        "not_quiesced_cause": frozen.unquiesced and frozen.unquiesced.cause.value,
        "partial": bool(failed),
        "disks_failed": failed,
        "suspects": list(suspects),
        "disks": list(disks),
        "vm": config,
    }


def method_of(results: Sequence[DiskResult]) -> str | None:
    """``full``, ``incremental``, or ``mixed``; None when no disk was read."""
    methods = {result.method for result in results if result.method is not None}
    return methods.pop() if len(methods) == 1 else "mixed" if methods else None


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """What an earlier restore point recorded of a disk, as far as a new one asks for it.

    Attributes:
        paths: its descriptors, newest first; the last is the base disk's.
        change_id: the landmark of that moment; None where changes were not tracked.
        parameters: how it was cut; None when that is not known here.
        on_trust: what was not read rests on the tracker's word: an incremental, or a full one of what was in use.
    """

    key: str
    uuid: str | None
    paths: tuple[str, ...]
    capacity_bytes: int
    change_id: str | None
    method: str
    parameters: Parameters | None
    on_trust: bool


def kept_disks(manifest: Mapping[str, Any]) -> tuple[KeptDisk, ...]:
    """The disks of an earlier restore point; what was written otherwise than we do is left out."""
    listed = manifest.get("disks")
    found = (_kept(disk) for disk in listed) if isinstance(listed, list) else ()
    return tuple(disk for disk in found if disk is not None)


def recorded_manager(manifest: Mapping[str, Any]) -> str | None:
    """The identity of the manager that an earlier restore point was made through; None where it is not told."""
    vm = manifest.get("vm")
    manager = vm.get("manager") if isinstance(vm, dict) else None
    return _text(manager.get("instance_uuid")) if isinstance(manager, dict) else None


def _kept(disk: object) -> KeptDisk | None:
    if not isinstance(disk, dict):
        return None
    key, capacity, links, chunker = (disk.get(name) for name in ("key", "capacity_bytes", "links", "chunker"))
    if not (isinstance(key, str) and isinstance(capacity, int)):
        return None
    return KeptDisk(
        key=key,
        uuid=_text(disk.get("uuid")),
        paths=tuple(str(link) for link in links) if isinstance(links, list) else (),
        capacity_bytes=capacity,
        change_id=_text(disk.get("change_id")),
        method=_text(disk.get("method")) or "full",
        parameters=Parameters.from_json(chunker) if isinstance(chunker, dict) else None,
        on_trust=_on_trust(disk),
    )


def _on_trust(disk: Mapping[str, Any]) -> bool:
    """Whether only what the tracker named was read. After an audit that found more, all was."""
    audit = disk.get("audit")
    alarmed = isinstance(audit, dict) and bool(audit.get("differing"))
    return disk.get("method") == "incremental" or (disk.get("bytes_changed") is not None and not alarmed)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
