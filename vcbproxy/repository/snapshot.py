"""Snapshot records: one small file each, which makes a tree a restore point.

The record's id is its file's name and changes when stock restic tags or copies it; ``original`` then keeps the first.
Fields that restic does not know would be dropped there, so nothing of ours is kept in it beyond tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vcbproxy.repository import codec, times
from vcbproxy.repository.ids import Buffer


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers that ``restic snapshots`` shows; restic before 0.17 drops them."""

    backup_start: datetime
    backup_end: datetime
    files_new: int
    dirs_new: int
    data_blobs: int
    tree_blobs: int
    data_added: int
    data_added_packed: int
    total_bytes_processed: int

    def as_json(self) -> dict[str, object]:
        """All of restic's fields, in its order."""
        return {
            "backup_start": times.canonical(self.backup_start),
            "backup_end": times.canonical(self.backup_end),
            "files_new": self.files_new,
            "files_changed": 0,
            "files_unmodified": 0,
            "dirs_new": self.dirs_new,
            "dirs_changed": 0,
            "dirs_unmodified": 0,
            "data_blobs": self.data_blobs,
            "tree_blobs": self.tree_blobs,
            "data_added": self.data_added,
            "data_added_packed": self.data_added_packed,
            "total_files_processed": self.files_new,
            "total_bytes_processed": self.total_bytes_processed,
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot record.

    Attributes:
        snapshot_id: the file's name; empty in one that is not stored yet.
        time: of the restore point.
        tree: the root tree's id.
        paths: what was backed up; ``/<vm>`` in ours.
        hostname: the VM's name in ours.
        username: who made it.
        tags: ``vcbproxy``, ``vm:<instance uuid>``, ... in ours.
        original: the id of the first record of this restore point, where stock restic replaced it.
        program_version: who wrote it.
        total_bytes: what the restore point comes to; None where the record does not say.
        added_bytes: what storing it added to the repository; None likewise.
    """

    snapshot_id: str
    time: datetime
    tree: bytes
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    tags: tuple[str, ...] = ()
    original: str = ""
    program_version: str = ""
    total_bytes: int | None = None
    added_bytes: int | None = None


def encode(snapshot: Snapshot, summary: Summary | None) -> bytes:
    """The plaintext of a snapshot file, fields in restic's order, empty ones left out."""
    fields: dict[str, object] = {
        "time": times.canonical(snapshot.time),
        "tree": snapshot.tree.hex(),
        "paths": list(snapshot.paths),
    }
    for name in ("hostname", "username"):
        if value := getattr(snapshot, name):
            fields[name] = value
    if snapshot.tags:
        fields["tags"] = list(snapshot.tags)
    if snapshot.program_version:
        fields["program_version"] = snapshot.program_version
    if summary is not None:
        fields["summary"] = summary.as_json()
    return codec.encode(fields)


def decode(snapshot_id: str, plain: Buffer, what: str) -> Snapshot:
    """Read a snapshot file; fields that we do not know are passed over.

    Raises:
        IntegrityError: malformed.
    """
    fields = codec.Fields(codec.decode(plain, what), what)
    summary = fields.fields("summary") if fields.has("summary") else None
    return Snapshot(
        snapshot_id=snapshot_id,
        time=fields.moment("time"),
        tree=fields.id("tree"),
        paths=fields.texts("paths"),
        hostname=fields.text("hostname", ""),
        username=fields.text("username", ""),
        tags=fields.texts("tags"),
        original=fields.text("original", ""),
        program_version=fields.text("program_version", ""),
        total_bytes=summary.number("total_bytes_processed", 0) if summary else None,
        added_bytes=summary.number("data_added_packed", 0) if summary else None,
    )
