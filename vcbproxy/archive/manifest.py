"""``vm.json`` on a cartridge: what a restore point holds and where every part of it lies.

format       "vcbproxy.archive/1"
state        "whole", or "continues": there is more of it on a later cartridge, and so is its last word
id           32 hex digits
vm           name, instance_uuid
time, pool, media_set
base         id and name of the restore point that its delta images build on, or null
encryption   how its images are encrypted, by which keys' names; never a key
images       key, file, kind, size_bytes, sha256, …, parts: number, path, barcode, volume_uuid, size_bytes, sha256
files        name and the one part of each
manifest     what the backup itself records: hardware, disks' backings, change ids, method, quiesced, failures, …
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from vcbproxy.catalog.records import ArchivedPart, ArchivedPoint
from vcbproxy.errors import IntegrityError

FORMAT = "vcbproxy.archive/1"
BYTES_MAX = 64 << 20


class State(Enum):
    """Whether all of it is told."""

    WHOLE = "whole"
    CONTINUES = "continues"


class Kind(Enum):
    """What an image is."""

    FULL = "full"
    """The whole disk."""
    DELTA = "delta"
    """What changed since the base."""


@dataclass(frozen=True, slots=True)
class Base:
    """The restore point that delta images build on."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Image:
    """One disk.

    Attributes:
        key: as the backup named it: ``scsi0-0``.
        file: what its parts together are called.
        kind: whether it is whole.
        size_bytes: of the disk.
        sha256: of what comes out of ``zstd -d``, in hex: the whole disk, or the changed ranges one after the other.
        ranges: the name of the file that says where a delta's ranges belong.
        base_key: what the disk was called in the base, for a delta.
        parts: where it lies.
    """

    key: str
    file: str
    kind: Kind
    size_bytes: int
    sha256: str
    parts: tuple[ArchivedPart, ...]
    ranges: str | None = None
    base_key: str | None = None

    @property
    def image_bytes(self) -> int:
        """All parts together."""
        return sum(part.size_bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class Document:
    """What ``vm.json`` says."""

    state: State
    id: str
    vm: str
    vm_uuid: str
    time: datetime
    pool: str
    media_set: str
    base: Base | None
    encryption: dict[str, Any]
    images: tuple[Image, ...]
    files: tuple[ArchivedPart, ...]
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``web01@2026-11-27T01:00:00Z``."""
        return f"{self.vm}@{_text_of(self.time)}"

    @property
    def parts(self) -> tuple[ArchivedPart, ...]:
        """Everything that it names."""
        return (*(part for image in self.images for part in image.parts), *self.files)

    @property
    def missing_disks(self) -> tuple[str, ...]:
        """Why which disks of the VM are not in it."""
        failed = self.manifest.get("disks_failed", [])
        return tuple(f"{disk.get('key')}: {disk.get('reason')}" for disk in failed if isinstance(disk, dict))

    @property
    def suspect_because(self) -> str:
        """Why it is not to be relied upon, as far as that was known when it was written."""
        copied = self.manifest.get("copied_from")
        return "it is a copy of one that was suspect" if isinstance(copied, dict) and copied.get("suspect") else ""

    @property
    def suspects(self) -> tuple[str, ...]:
        """The ids of earlier restore points that its audit found not to be relied upon."""
        found = self.manifest.get("suspects")
        return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()

    def point(self, *further: ArchivedPart) -> ArchivedPoint:
        """As the catalog keeps it, with parts that it cannot name itself."""
        return ArchivedPoint(
            id=self.id,
            vm=self.vm,
            vm_uuid=self.vm_uuid,
            time=self.time,
            pool=self.pool,
            media_set=self.media_set,
            base=None if self.base is None else self.base.id,
            parts=(*self.parts, *further),
            size_bytes=sum(image.size_bytes for image in self.images),
            partial=bool(self.missing_disks),
            suspect_because=self.suspect_because,
        )


def encode(document: Document) -> bytes:
    """The file's bytes: indented, for people who meet it with stock tools alone."""
    value = {
        "format": FORMAT,
        "state": document.state.value,
        "id": document.id,
        "vm": {"name": document.vm, "instance_uuid": document.vm_uuid},
        "time": _text_of(document.time),
        "pool": document.pool,
        "media_set": document.media_set,
        "base": None if document.base is None else {"id": document.base.id, "name": document.base.name},
        "encryption": document.encryption,
        "images": [
            {
                "key": image.key,
                "file": image.file,
                "kind": image.kind.value,
                "size_bytes": image.size_bytes,
                "sha256": image.sha256,
                "ranges": image.ranges,
                "base_key": image.base_key,
                "parts": [_encode_part(part) for part in image.parts],
            }
            for image in document.images
        ],
        "files": [{"name": part.file, **_encode_part(part)} for part in document.files],
        "manifest": document.manifest,
    }
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(data: bytes, what: str) -> Document:
    """Read the file.

    Raises:
        IntegrityError: malformed, or of a format that is not known.
    """
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise IntegrityError(f"{what}: format {value['format']!r} is not known; a newer vcbproxy may know it")
        base = value["base"]
        return Document(
            state=State(value["state"]),
            id=_text(value["id"]),
            vm=_text(value["vm"]["name"]),
            vm_uuid=_text(value["vm"]["instance_uuid"]),
            time=_time_of(_text(value["time"])),
            pool=_text(value["pool"]),
            media_set=_text(value["media_set"]),
            base=None if base is None else Base(_text(base["id"]), _text(base["name"])),
            encryption=dict(value["encryption"]),
            images=tuple(_image(image) for image in value["images"]),
            files=tuple(_part(_text(file["name"]), file) for file in value["files"]),
            manifest=dict(value["manifest"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{what} is malformed: {type(error).__name__} {error}") from error


def _image(value: Any) -> Image:
    file = _text(value["file"])
    return Image(
        key=_text(value["key"]),
        file=file,
        kind=Kind(value["kind"]),
        size_bytes=_number(value["size_bytes"]),
        sha256=_text(value["sha256"]),
        parts=tuple(_part(file, part) for part in value["parts"]),
        ranges=None if value["ranges"] is None else _text(value["ranges"]),
        base_key=None if value["base_key"] is None else _text(value["base_key"]),
    )


def _encode_part(part: ArchivedPart) -> dict[str, Any]:
    return {
        "number": part.number,
        "path": part.path,
        "barcode": part.barcode,
        "volume_uuid": part.volume_uuid,
        "size_bytes": part.size_bytes,
        "sha256": part.sha256,
    }


def _part(file: str, value: Any) -> ArchivedPart:
    return ArchivedPart(
        file=file,
        number=_number(value["number"]),
        path=_text(value["path"]),
        barcode=_text(value["barcode"]),
        volume_uuid=_text(value["volume_uuid"]),
        size_bytes=_number(value["size_bytes"]),
        sha256=_text(value["sha256"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.40} is no count")
    return value


def _text_of(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time_of(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
