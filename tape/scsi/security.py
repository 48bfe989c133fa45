"""Pages of SECURITY PROTOCOL IN and OUT, protocol 20h: tape data encryption (SSC-4, 8.5). All numbers big-endian.

    each page       0 code  2 length  4 …
    OUT 0010h, set encryption   4 scope  5 CEEM RDMC … CKOD  6 encryption  7 decryption  8 algorithm
                                18 the key's length  20 the key, then its descriptors
    IN  0010h, capabilities     20 algorithms, 24 bytes each
    IN  0020h, status           4 scope  5 encryption  6 decryption  7 algorithm  8 counter  24 descriptors
    IN  0021h, the next block   4 its number  12 status  13 algorithm  16 descriptors

    descriptor   ├ kind ┼ authenticated ┼ length (2) ┼ text …      0: any text, 1: text that the drive vouches for

Bit layouts as stenc has them, whose users run them on drives of all makers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

AES_256_GCM = 0x00010014
KEY_BYTES = 32
ANSWER_BYTES = 1024
_ALL_NEXUSES = 2 << 5  # the key serves whichever way the drive is reached; st and sg are one nexus anyway
_DO_NOT_CHECK_EXTERNAL = 1 << 6  # CEEM: reads of what others encrypted by other means are not refused for that alone
_CLEAR_ON_DEMOUNT = 1 << 2


class InPage(IntEnum):
    """What can be asked."""

    CAPABILITIES = 0x0010
    STATUS = 0x0020
    NEXT_BLOCK = 0x0021


SET_ENCRYPTION = 0x0010
"""The page that is sent."""


class Encryption(IntEnum):
    """What becomes of blocks that are written."""

    OFF = 0
    EXTERNAL = 1
    ON = 2


class Decryption(IntEnum):
    """What becomes of encrypted blocks that are read."""

    OFF = 0
    RAW = 1
    ON = 2
    MIXED = 3
    """Encrypted blocks are decrypted, plain ones read as they are."""


class BlockStatus(IntEnum):
    """What the drive knows of the block before which the tape stands."""

    UNKNOWN = 0
    NOT_NOW = 1
    NO_BLOCK = 2
    PLAIN = 3
    UNSUPPORTED = 4
    READABLE = 5
    LOCKED = 6
    """Encrypted, and the key that is set, if any, is not its."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One that a drive has.

    Attributes:
        index: by which it is chosen.
        code: which it is: ``AES_256_GCM``.
        encrypts: the drive itself encrypts by it.
        decrypts: likewise.
        key_bytes: the length of its keys.
        description_bytes_max: how long a key's description may be.
    """

    index: int
    code: int
    encrypts: bool
    decrypts: bool
    key_bytes: int
    description_bytes_max: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a drive does at present.

    Attributes:
        encryption: with blocks that are written.
        decryption: with blocks that are read.
        algorithm: the index of the one in use.
        counter: goes on with each key that is set.
        description: of the key; what was given with it.
    """

    encryption: int
    decryption: int
    algorithm: int
    counter: int
    description: str


@dataclass(frozen=True, slots=True)
class NextBlock:
    """What the drive knows of the next block.

    Attributes:
        block: its number.
        status: of ``BlockStatus``, or a number that is not known here.
        description: of the key that it was encrypted with.
    """

    block: int
    status: int
    description: str


def set_encryption(algorithm: int, key: bytes, description: str) -> bytes:
    """The page that has a drive encrypt with a key, decrypt with it, and forget it when the cartridge goes."""
    told = description.encode("ascii")
    body = struct.pack(
        ">BBBBBBB7xH",
        _ALL_NEXUSES, _DO_NOT_CHECK_EXTERNAL | _CLEAR_ON_DEMOUNT, Encryption.ON, Decryption.MIXED, algorithm, 0, 0,
        len(key),
    )  # fmt: skip
    body += key + struct.pack(">BBH", 0, 0, len(told)) + told
    return struct.pack(">HH", SET_ENCRYPTION, len(body)) + body


def clear_encryption(algorithm: int) -> bytes:
    """The page that has a drive forget its key, and encrypt no more."""
    body = struct.pack(">BBBBBBB7xH", _ALL_NEXUSES, 0, Encryption.OFF, Decryption.OFF, algorithm, 0, 0, 0)
    return struct.pack(">HH", SET_ENCRYPTION, len(body)) + body


def algorithms(page: bytes) -> list[Algorithm]:
    """What a page of capabilities lists; nothing when it is none."""
    body = _whole(page, InPage.CAPABILITIES)
    found = []
    at = 20
    while at + 24 <= len(body):
        length = 4 + int.from_bytes(body[at + 2 : at + 4], "big")
        flags = body[at + 4]
        found.append(
            Algorithm(
                index=body[at],
                code=int.from_bytes(body[at + 20 : at + 24], "big"),
                encrypts=flags & 0x03 == 2,  # 1: in software only; 3: controlled by others
                decrypts=flags >> 2 & 0x03 == 2,
                key_bytes=int.from_bytes(body[at + 10 : at + 12], "big"),
                description_bytes_max=int.from_bytes(body[at + 6 : at + 8], "big"),
            )
        )
        at += max(length, 24)
    return found


def status(page: bytes) -> Status | None:
    """What a page of status says; None when it is none."""
    body = _whole(page, InPage.STATUS)
    if len(body) < 24:
        return None
    return Status(body[5], body[6], body[7], int.from_bytes(body[8:12], "big"), _description(body[24:]))


def next_block(page: bytes) -> NextBlock | None:
    """What a page of the next block's status says; None when it is none."""
    body = _whole(page, InPage.NEXT_BLOCK)
    if len(body) < 16:
        return None
    return NextBlock(int.from_bytes(body[4:12], "big"), body[12] & 0x0F, _description(body[16:]))


def _whole(page: bytes, code: InPage) -> bytes:
    """A page up to its end; nothing when it is another."""
    if len(page) < 4 or int.from_bytes(page[:2], "big") != code:
        return b""
    return page[: 4 + int.from_bytes(page[2:4], "big")]


def _description(data: bytes) -> str:
    for kind, text in _descriptors(data):
        if kind == 0:
            return text.rstrip(b"\0 ").decode("ascii", "replace")
    return ""


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at], data[at + 4 : at + 4 + length]
        at += 4 + length
