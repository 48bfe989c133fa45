"""Making a volume: two partitions, a label and a first index in each, and what the cartridge's memory should say.

All that the cartridge held is lost; whether that may be is for whoever calls this to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tape import memory
from tape.errors import RefusedCommand, TapeError
from tape.ltfs import commit, label
from tape.ltfs.index import Directory, Index, Lock, Pointer, Times
from tape.ltfs.label import BLOCK_BYTES, FIRST_CONTENT_BLOCK, VERSION, Label
from tape.ltfs.layout import Layout
from tape.memory import Attribute, Form, Id
from tape.sequential import Position, SequentialDrive

_UTF_8 = 0x81


@dataclass(frozen=True, slots=True)
class Maker:
    """Who formats: three words for the cartridge's memory, and the host's name."""

    vendor: str
    name: str
    version: str
    host: str = ""

    @property
    def creator(self) -> str:
        """As labels and indexes have it: company and product, version, platform, program."""
        return f"{self.vendor} {self.name} {self.version} - Linux - {self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Naming:
    """What a new volume is called.

    Attributes:
        barcode: on its cartridge; nothing when there is none.
        volume_uuid: given to it now.
        name: for people; of its root directory.
        pool: which media pool it belongs to.
    """

    barcode: str
    volume_uuid: str
    name: str = ""
    pool: str = ""


def make_volume(
    drive: SequentialDrive, naming: Naming, maker: Maker, moment_ns: int, *, block_bytes: int = BLOCK_BYTES
) -> None:
    """Format the cartridge in the drive.

    Raises:
        TapeError: it failed; the cartridge is then whatever it is.
        ValueError: a barcode that no cartridge has.
    """
    if naming.barcode and not re.fullmatch("[0-9A-Z]{1,8}", naming.barcode):
        raise ValueError(f"{naming.barcode!r} is no barcode of a cartridge")
    limits = drive.block_limits()
    if not limits.min_bytes <= block_bytes <= limits.max_bytes:
        raise TapeError(f"{drive.name}: blocks of {block_bytes} bytes are not possible, up to {limits.max_bytes} are")
    drive.partition_in_two()
    layout = Layout(
        Label(naming.volume_uuid, moment_ns, "a", block_bytes=block_bytes, creator=maker.creator), 0, 1, naming.barcode
    )
    for partition in (1, 0):
        _write_label(drive, layout, partition, naming.barcode)
    index = Index(
        volume_uuid=naming.volume_uuid,
        generation=1,
        update_time_ns=moment_ns,
        location=Pointer("b", FIRST_CONTENT_BLOCK + 1),
        root=Directory(naming.name, 1, Times.all(moment_ns)),
        creator=maker.creator,
        lock=Lock.UNLOCKED,
    )
    commit.write_index(drive, layout, index, Position(1, FIRST_CONTENT_BLOCK))
    index.previous = index.location
    index.location = Pointer("a", FIRST_CONTENT_BLOCK + 1)
    commit.write_index(drive, layout, index, Position(0, FIRST_CONTENT_BLOCK))
    drive.flush()
    _remember(drive, naming, maker)
    commit.remember(drive, layout, index)


def _write_label(drive: SequentialDrive, layout: Layout, partition: int, barcode: str) -> None:
    own = replace(layout.label, partition=layout.letter(partition))
    drive.locate(Position(partition, 0))
    drive.write(label.vol1(barcode))
    drive.write_filemarks()
    drive.write(own.encode())
    drive.write_filemarks()


def _remember(drive: SequentialDrive, naming: Naming, maker: Maker) -> None:
    """Tell the cartridge's memory whose it is. A drive that takes none of it costs later mounts time, nothing else."""
    told: Iterable[Attribute] = (
        memory.ascii_value(Id.APPLICATION_VENDOR, maker.vendor, 8),
        memory.ascii_value(Id.APPLICATION_NAME, maker.name, 32),
        memory.ascii_value(Id.APPLICATION_VERSION, maker.version, 8),
        memory.text_value(Id.VOLUME_NAME, naming.name, 160),
        Attribute(Id.TEXT_LOCALISATION, Form.BINARY, bytes((_UTF_8,))),
        memory.ascii_value(Id.BARCODE, naming.barcode, 32),
        memory.text_value(Id.OWNING_HOST, maker.host, 80),
        memory.text_value(Id.MEDIA_POOL, naming.pool, 160),
        memory.ascii_value(Id.FORMAT_VERSION, VERSION, 16),
        Attribute(Id.VOLUME_LOCK, Form.BINARY, bytes(1)),
    )
    for attribute in told:
        try:
            memory.write(drive, 0, [attribute])
        except RefusedCommand:
            continue
