"""What the backup records of a restore point: the field ``manifest`` of ``vm.json``, beside the disks.

Whatever stock restic would drop from its snapshot record is kept here. The mark of the format is the file's own, and
the repository's; restore points of before that have a second one here, which nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jobs.outcome import DiskResult
from vcbproxy.manager.disk import Disk
from vcbproxy.manager.snapshot import Marker, VmSnapshot
from vcbproxy.pipeline.chunker import Rule
from vcbproxy.pipeline.content import CopyStats


def disk_document(disk: Disk, links: Sequence[str], stats: CopyStats, rule: Rule) -> dict[str, Any]:
    """One disk: which it was, what it was read from, and how it was cut."""
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
        "method": "full",
        "base": None,
        "bytes_read": stats.bytes_read,
        "bytes_zero": stats.bytes_zero,
        "chunker": rule.parameters.as_json(),
    }


def document(
    marker: Marker,
    frozen: VmSnapshot,
    disks: Sequence[dict[str, Any]],
    results: Sequence[DiskResult],
    config: dict[str, Any],
) -> dict[str, Any]:
    """The whole manifest of a full backup."""
    failed = [{"key": result.key, "reason": result.error} for result in results if result.error is not None]
    return {
        "program": f"vcbproxy {version('vcbproxy')}",
        "job_run": marker.job_run_id,
        "proxy": marker.host,
        "time": frozen.created.isoformat(),
        "method": "full",
        "base": None,
        "quiesced": frozen.quiesced,
        "not_quiesced_because": frozen.not_quiesced_because,
        "not_quiesced_cause": frozen.unquiesced and frozen.unquiesced.cause.value,
        "partial": bool(failed),
        "disks_failed": failed,
        "disks": list(disks),
        "vm": config,
    }
