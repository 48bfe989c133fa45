"""``vm.json``: what a restore point holds, in a file of the tree, where no tool drops it.

format       "vcbproxy.point/1"
vm           name, instance_uuid                       the true name, whatever the tree had to make of it
time         of the restore point
chunker      algorithm, version, window, max           how its disks were cut
disks        key, name, size_bytes, chunks             key as the backup named it; the tree has <name>/<name>.raw
files        key, name, size_bytes
manifest     what the backup itself records: hardware, disks' backings, change ids, method, quiesced, failures, ...
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vcbproxy.errors import IntegrityError
from vcbproxy.repository import codec, tree
from vcbproxy.repository.config import ChunkerSettings
from vcbproxy.repository.ids import Buffer

FILE_NAME = "vm.json"
FORMAT = "vcbproxy.point/1"
BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class DiskEntry:
    """A disk of the restore point.

    Attributes:
        key: as the backup named it: ``scsi0-0``.
        name: of its directory in the tree; the disk itself is ``<name>/<name>.raw``.
        size_bytes: its exact capacity.
        chunks: how many.
    """

    key: str
    name: str
    size_bytes: int
    chunks: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A small file kept with the disks: the .vmx, the .nvram."""

    key: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What ``vm.json`` says."""

    vm_name: str
    instance_uuid: str
    time: str
    chunker: ChunkerSettings
    disks: tuple[DiskEntry, ...]
    files: tuple[FileEntry, ...]
    manifest: dict[str, Any]

    def disk(self, key: str) -> DiskEntry | None:
        """The disk with this key."""
        return next((disk for disk in self.disks if disk.key == key), None)


def encode(contents: Contents) -> bytes:
    """The file's bytes: indented, for people who meet it with stock tools alone."""
    chunker = contents.chunker
    document = {
        "format": FORMAT,
        "vm": {"name": contents.vm_name, "instance_uuid": contents.instance_uuid},
        "time": contents.time,
        "chunker": {"algorithm": "lm", "version": 1, "window": chunker.window, "max": chunker.max_bytes},
        "disks": [
            {"key": disk.key, "name": disk.name, "size_bytes": disk.size_bytes, "chunks": disk.chunks}
            for disk in contents.disks
        ],
        "files": [{"key": file.key, "name": file.name, "size_bytes": file.size_bytes} for file in contents.files],
        "manifest": contents.manifest,
    }
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def decode(data: Buffer, what: str) -> Contents:
    """Read the file.

    Raises:
        IntegrityError: malformed, or of a format that is not known.
    """
    value = codec.parse(data, what)
    fields = codec.Fields(value, what)
    if fields.text("format") != FORMAT:
        raise IntegrityError(f"{what}: format {fields.text('format')!r} is not known; a newer vcbproxy may know it")
    vm, chunker = fields.fields("vm"), fields.fields("chunker")
    disks = [codec.Fields(disk, f"a disk in {what}") for disk in fields.items("disks")]
    files = [codec.Fields(file, f"a file in {what}") for file in fields.items("files")]
    manifest = value["manifest"] if isinstance(value.get("manifest"), dict) else None
    if manifest is None:
        raise IntegrityError(f"{what}: field 'manifest' is not an object")
    return Contents(
        vm.text("name"),
        vm.text("instance_uuid"),
        fields.text("time"),
        ChunkerSettings(chunker.number("window")),
        tuple(DiskEntry(d.text("key"), _name(d), d.number("size_bytes"), d.number("chunks")) for d in disks),
        tuple(FileEntry(f.text("key"), _name(f), f.number("size_bytes")) for f in files),
        manifest,
    )


def _name(fields: codec.Fields) -> str:
    name = fields.text("name")
    if not tree.is_safe_name(name):
        raise IntegrityError(f"{fields.what}: {name!r:.80} is no name for a tree")
    return name
