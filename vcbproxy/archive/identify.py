"""What lies on the cartridge in a drive, without changing anything of it: before it is overwritten, or when it is new.

memory     serial number, kind, which program, label, pool
block 0    nothing: blank       no VOL1 of LTFS: foreign
volume     ours by its label's creator, with a note (``note``): ours. Any other LTFS volume is somebody else's
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tape import memory
from tape.errors import FormatError, Inconsistent, KeyWanted, MediumError
from tape.ltfs import label
from tape.ltfs.format import Maker
from tape.ltfs.index import File
from tape.ltfs.layout import read_layout
from tape.ltfs.volume import LtfsVolume
from tape.sequential import Met, Position, SequentialDrive
from vcbproxy.archive import note
from vcbproxy.archive.pins import BornePin, borne

_WORM = 0x80
_BLOCK_BYTES_MAX = 1 << 20


class Content(Enum):
    """What kind of thing lies on a cartridge."""

    BLANK = "blank"
    OURS = "ours"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies on a cartridge.

    Attributes:
        content: what kind of thing.
        what: in words.
        fingerprint: by which a person who releases it means exactly this; it changes with every writing.
        serial: of the cartridge; nothing when its memory does not tell.
        worm: what is written on it stays.
        unfinished: an LTFS volume of ours whose last writer died; ``recover`` rolls it back.
        empty: an LTFS volume of ours without any file.
        volume_uuid: of its LTFS volume.
        note: what it says of itself.
        pins: what it says of pinned restore points, wherever those lie.
    """

    content: Content
    what: str
    fingerprint: str
    serial: str = ""
    worm: bool = False
    unfinished: bool = False
    empty: bool = False
    volume_uuid: str | None = None
    note: note.Note | None = None
    pins: tuple[BornePin, ...] = ()

    @property
    def retention_until(self) -> datetime | None:
        """When it may be overwritten, by its own word."""
        return self.note.retention_until if self.note else None


def identify(
    drive: SequentialDrive, maker: Maker, mount: Callable[[SequentialDrive], LtfsVolume]
) -> tuple[Found, LtfsVolume | None]:
    """Look at the cartridge in a drive.

    Args:
        drive: it lies in it, ready.
        maker: who we are.
        mount: how LTFS volumes are mounted.

    Returns:
        What lies on it; and its LTFS volume, mounted, where it has a consistent one.

    Raises:
        TapeError: the drive or the way to it is broken. What is wrong with the cartridge is told as UNREADABLE.
    """
    serial = _text(drive, memory.Id.SERIAL)
    kind = memory.read(drive, 0, memory.Id.MEDIUM_TYPE)
    worm = kind is not None and kind.number == _WORM
    record, trouble = _first_record(drive)
    if trouble:
        return Found(Content.UNREADABLE, trouble, f"unreadable {serial or '?'}", serial, worm), None
    if record is None:
        return Found(Content.BLANK, "nothing", "blank", serial, worm), None
    try:
        label.volume_id(record, drive.name)
    except FormatError:
        program = " ".join(_text(drive, one) for one in (memory.Id.APPLICATION_VENDOR, memory.Id.APPLICATION_NAME))
        what = f"data of {program.strip() or 'a program that left no name'}, not in LTFS"
        digest = hashlib.sha256(record).hexdigest()[:16]
        return Found(Content.FOREIGN, what, f"record {digest}", serial, worm), None
    return _volume(drive, maker, mount, serial, worm)


def _first_record(drive: SequentialDrive) -> tuple[bytes | None, str]:
    """The first record, or None on a blank cartridge; and why it cannot be read."""
    buf = memoryview(bytearray(_BLOCK_BYTES_MAX))
    try:
        drive.locate(Position(0, 0))
        met = drive.read(buf)
    except (MediumError, FormatError, KeyWanted) as error:
        return None, str(error)
    if met is Met.END_OF_DATA:
        return None, ""
    return (b"" if isinstance(met, Met) else bytes(buf[:met])), ""


def _volume(
    drive: SequentialDrive, maker: Maker, mount: Callable[[SequentialDrive], LtfsVolume], serial: str, worm: bool
) -> tuple[Found, LtfsVolume | None]:
    try:
        volume = mount(drive)
    except Inconsistent as error:
        label_of = read_layout(drive).label
        uuid, ours = label_of.volume_uuid, _is_ours(label_of.creator, maker)
        what = f"LTFS volume {uuid} of {label_of.creator}, whose last writer did not finish: {error}"
        return Found(Content.UNREADABLE, what, f"{uuid}@?", serial, worm, unfinished=ours, volume_uuid=uuid), None
    except (FormatError, MediumError, KeyWanted) as error:
        return Found(
            Content.UNREADABLE, f"an LTFS volume that cannot be read: {error}", "unreadable LTFS", serial, worm
        ), None
    uuid, creator = volume.uuid, volume.layout.label.creator
    fingerprint = f"{uuid}@{volume.index.generation}"
    empty = not any(isinstance(entry, File) for _, entry in volume.index.root.walk())
    if not _is_ours(creator, maker):
        what = f"LTFS volume {uuid} of {creator or 'a program that left no name'}"
        return Found(Content.FOREIGN, what, fingerprint, serial, worm, volume_uuid=uuid), volume
    kept: note.Note | None = None
    value = volume.index.root.xattrs.get(note.KEY)
    if value is not None:
        try:
            kept = note.decode(value)
        except ValueError as error:
            what = f"LTFS volume {uuid}: {error}"
            return Found(Content.UNREADABLE, what, fingerprint, serial, worm, volume_uuid=uuid), volume
    elif not empty:
        what = f"LTFS volume {uuid} of ours, without a note of how long it is kept"
        return Found(Content.UNREADABLE, what, fingerprint, serial, worm, volume_uuid=uuid), volume
    what = f"LTFS volume {uuid} of pool {kept.pool}" if kept and kept.pool else f"LTFS volume {uuid} of no pool"
    pins = tuple(borne(volume.index.root.xattrs))
    found = Found(Content.OURS, what, fingerprint, serial, worm, empty=empty, volume_uuid=uuid, note=kept, pins=pins)
    return found, volume


def _is_ours(creator: str, maker: Maker) -> bool:
    return creator.startswith(f"{maker.vendor} {maker.name} ")


def _text(drive: SequentialDrive, identifier: memory.Id) -> str:
    found = memory.read(drive, 0, identifier)
    return found.text if found is not None else ""
