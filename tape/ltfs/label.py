"""The label: what a cartridge says of itself at the beginning of both partitions. Written once, at format.

    block   0        1   2             3
            ├ VOL1 ┼ ▌ ┼ label XML ┼ ▌ ┤ content …         ▌ a filemark

VOL1 is the record of 80 characters that tape programs have looked for since the sixties: who does not know LTFS sees at
least that the cartridge is not blank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tape.errors import FormatError
from tape.ltfs import times
from tape.ltfs.xmltree import Reading, parse
from tape.scsi.transport import Buffer

VERSION = "2.4.0"
VOL1_BYTES = 80
LABEL_BYTES_MAX = 4096  # the reference implementation reads no more
BLOCK_BYTES = 512 * 1024
FIRST_CONTENT_BLOCK = 4
_VERSIONS = re.compile(r"[12]\.\d{1,2}\.\d{1,2}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KNOWN = ("creator", "formattime", "volumeuuid", "location", "partitions", "blocksize", "compression")


@dataclass(frozen=True, slots=True)
class Label:
    """One copy of it.

    Attributes:
        volume_uuid: which volume; given at format.
        format_time_ns: when that was, in nanoseconds since 1970.
        partition: the letter of the partition that this copy lies on.
        index_partition: the letter of that of the indexes.
        data_partition: the letter of that of the data.
        block_bytes: the length of all blocks of data but a file's last.
        compression: whether the drive compresses.
        creator: which program.
        version: of the format.
    """

    volume_uuid: str
    format_time_ns: int
    partition: str
    index_partition: str = "a"
    data_partition: str = "b"
    block_bytes: int = BLOCK_BYTES
    compression: bool = False
    creator: str = ""
    version: str = VERSION

    def encode(self) -> bytes:
        """The XML."""
        made = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<ltfslabel version="{self.version}">'
            f"<creator>{escape(self.creator)}</creator>"
            f"<formattime>{times.written(self.format_time_ns)}</formattime>"
            f"<volumeuuid>{self.volume_uuid}</volumeuuid>"
            f"<location><partition>{self.partition}</partition></location>"
            f"<partitions><index>{self.index_partition}</index><data>{self.data_partition}</data></partitions>"
            f"<blocksize>{self.block_bytes}</blocksize>"
            f"<compression>{str(self.compression).lower()}</compression>"
            "</ltfslabel>\n"
        ).encode()
        assert len(made) <= LABEL_BYTES_MAX, "a label that the reference implementation would not read"
        return made

    def same_volume(self, other: Label) -> bool:
        """Whether both are copies of one label: all but the partition they lie on must agree."""
        return _but_place(self) == _but_place(other)


def _but_place(label: Label) -> tuple[object, ...]:
    return (
        label.volume_uuid,
        label.format_time_ns,
        label.index_partition,
        label.data_partition,
        label.block_bytes,
        label.compression,
        label.version,
    )


def decode(data: Buffer, where: str) -> Label:
    """Read one copy.

    Raises:
        FormatError: it is not what a label must be.
    """
    root = parse([data], where)
    if root.tag != "ltfslabel":
        raise FormatError(where=where, reason=f"a label is <ltfslabel>, this is <{root.tag[:40]}>")
    version = root.attributes.get("version", "")
    if not _VERSIONS.fullmatch(version):
        raise FormatError(where=where, reason=f"version {version[:20]!r} of the format is not known")
    read = Reading(root, where, _KNOWN)
    location = Reading(read.element("location"), where, ("partition",))
    partitions = Reading(read.element("partitions"), where, ("index", "data"))
    label = Label(
        volume_uuid=uuid_in(read, "volumeuuid"),
        format_time_ns=times.read(read.text("formattime"), where),
        partition=letter_in(location, "partition"),
        index_partition=letter_in(partitions, "index"),
        data_partition=letter_in(partitions, "data"),
        block_bytes=read.number("blocksize", 4096, 1 << 30),
        compression=read.truth("compression"),
        creator=read.text("creator"),
        version=version,
    )
    if label.index_partition == label.data_partition:
        raise FormatError(where=where, reason="its two partitions have one letter")
    if label.partition not in (label.index_partition, label.data_partition):
        raise FormatError(where=where, reason=f"it lies on partition {label.partition}, which it does not know")
    return label


def letter_in(read: Reading, tag: str) -> str:
    """A partition's letter.

    Raises:
        FormatError: none.
    """
    text = read.text(tag).strip()
    if len(text) != 1 or not "a" <= text <= "z":
        raise read.wrong(f"{text[:20]!r} is no partition")
    return text


def uuid_in(read: Reading, tag: str) -> str:
    """A UUID.

    Raises:
        FormatError: none.
    """
    text = read.text(tag).strip().lower()
    if not _UUID.fullmatch(text):
        raise read.wrong(f"{text[:50]!r} is no UUID")
    return text


def vol1(barcode: str) -> bytes:
    """The record for a cartridge's barcode; only its first six characters find room."""
    identifier = re.sub(r"[^0-9A-Z]", "", barcode.upper())[:6].ljust(6)
    return f"VOL1{identifier}L{'':13}LTFS{'':51}4".encode("ascii")


def volume_id(record: Buffer, where: str) -> str:
    """The volume identifier in a VOL1 record, or nothing.

    Raises:
        FormatError: it is none of an LTFS volume.
    """
    data = bytes(record)
    if len(data) != VOL1_BYTES or data[:4] != b"VOL1" or data[24:28] != b"LTFS":
        raise FormatError(where=where, reason="not an LTFS volume: its first record is none of LTFS")
    return data[4:10].decode("ascii", "replace").strip()
