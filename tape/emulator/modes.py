"""Mode pages of an emulated drive: MODE SENSE and MODE SELECT, of six bytes and of ten."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tape.emulator.check import invalid_field, invalid_parameter
from tape.scsi.transport import Buffer

PageKey = tuple[int, int]
"""Page and subpage."""
ALL_PAGES = 0x3F


def sense(
    cdb: bytes,
    pages: Mapping[PageKey, Callable[[], bytes]],
    *,
    medium: int,
    density: int,
    block: int,
    write_protected: bool = False,
) -> bytes:
    """The answer to MODE SENSE.

    Raises:
        Check: there is no such page.
    """
    page, subpage = cdb[2] & 0x3F, cdb[3]
    if page == 0:
        body = b""
    elif page == ALL_PAGES:
        body = b"".join(make() for (_, sub), make in sorted(pages.items(), key=lambda item: item[0]) if sub == 0)
    elif (page, subpage) in pages:
        body = pages[page, subpage]()
    else:
        raise invalid_field()
    descriptor = b"" if cdb[1] & 0x08 else bytes((density, 0, 0, 0, 0)) + block.to_bytes(3, "big")
    buffered = 0x90 if write_protected else 0x10
    if cdb[0] == 0x1A:
        head = bytes((3 + len(descriptor) + len(body), medium, buffered, len(descriptor)))
        return (head + descriptor + body)[: cdb[4]]
    length = 6 + len(descriptor) + len(body)
    head = length.to_bytes(2, "big") + bytes((medium, buffered, 0, 0)) + len(descriptor).to_bytes(2, "big")
    return (head + descriptor + body)[: int.from_bytes(cdb[7:9], "big")]


def selected(cdb: bytes, data: Buffer) -> tuple[int | None, dict[PageKey, bytes]]:
    """What MODE SELECT sent: the block length, if it said one, and pages whole with their heads.

    Raises:
        Check: it is not what it should be.
    """
    sent = bytes(data)
    if not sent:
        return None, {}
    head = 4 if cdb[0] == 0x15 else 8
    if len(sent) < head:
        raise invalid_parameter()
    described = sent[3] if head == 4 else int.from_bytes(sent[6:8], "big")
    block = int.from_bytes(sent[head + 5 : head + 8], "big") if described >= 8 else None
    pages: dict[PageKey, bytes] = {}
    at = head + described
    while at + 2 <= len(sent):
        with_subpage = bool(sent[at] & 0x40)
        page = sent[at] & 0x3F
        subpage = sent[at + 1] if with_subpage else 0
        length = 4 + int.from_bytes(sent[at + 2 : at + 4], "big") if with_subpage else 2 + sent[at + 1]
        if at + length > len(sent):
            raise invalid_parameter()
        pages[page, subpage] = sent[at : at + length]
        at += length
    return block, pages
