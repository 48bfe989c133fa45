"""An index written as XML: in pieces, and what was not understood when it was read, again as it was."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

from tape.ltfs import names, times
from tape.ltfs.index import Directory, Extent, File, Index, Pointer
from tape.ltfs.label import VERSION
from tape.ltfs.xmltree import text

_PLAIN = re.compile("[\t\n\r -\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_PIECE = 64 * 1024


def encode(index: Index) -> Iterator[bytes]:
    """An index's XML, in pieces of some tens of kilobytes."""
    pieces: list[str] = []
    size = 0
    for part in _index(index):
        pieces.append(part)
        size += len(part)
        if size >= _PIECE:
            yield "".join(pieces).encode()
            pieces, size = [], 0
    yield "".join(pieces).encode()


def _index(index: Index) -> Iterator[str]:
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<ltfsindex version="{VERSION}">\n'
    yield f"<creator>{text(index.creator)}</creator>\n"
    if index.comment is not None:
        yield f"<comment>{text(index.comment)}</comment>\n"
    yield f"<volumeuuid>{index.volume_uuid}</volumeuuid>\n"
    yield f"<generationnumber>{index.generation}</generationnumber>\n"
    yield f"<updatetime>{times.written(index.update_time_ns)}</updatetime>\n"
    yield f"<location>{_pointer(index.location)}</location>\n"
    if index.previous is not None:
        yield f"<previousgenerationlocation>{_pointer(index.previous)}</previousgenerationlocation>\n"
    yield f"<allowpolicyupdate>{_truth(index.allow_policy_update)}</allowpolicyupdate>\n"
    if index.policy:
        yield f"{index.policy}\n"
    if index.lock is not None:
        yield f"<volumelockstate>{index.lock.value}</volumelockstate>\n"
    yield f"<highestfileuid>{index.highest_uid}</highestfileuid>\n"
    yield from _directory(index.root)
    yield from index.unknown
    yield "</ltfsindex>\n"


def _directory(top: Directory) -> Iterator[str]:
    """A directory and all below it; without recursion, since there may be many levels."""
    open_: list[tuple[Directory, Iterator[File | Directory]]] = []
    yield _directory_head(top)
    open_.append((top, iter(top.entries.values())))
    while open_:
        here, rest = open_[-1]
        entry = next(rest, None)
        if entry is None:
            open_.pop()
            yield "</contents>" + "".join(here.unknown) + "</directory>\n"
        elif isinstance(entry, File):
            yield _file(entry)
        else:
            yield _directory_head(entry)
            open_.append((entry, iter(entry.entries.values())))


def _directory_head(directory: Directory) -> str:
    return f"<directory>{_both(directory)}<contents>\n"


def _file(file: File) -> str:
    parts = [f"<file>{_both(file)}<length>{file.length}</length>"]
    if file.open_for_write:
        parts.append("<openforwrite>true</openforwrite>")
    if file.symlink is not None:
        parts.append(_named("symlink", file.symlink))
    elif file.extents:
        parts.append(f"<extentinfo>{''.join(map(_extent, file.extents))}</extentinfo>")
    return "".join([*parts, *file.unknown, "</file>\n"])


def _both(entry: File | Directory) -> str:
    moments = entry.times
    values = (moments.created, moments.changed, moments.modified, moments.accessed, moments.backed_up)
    stamps = "".join(f"<{tag}>{times.written(value)}</{tag}>" for tag, value in zip(times.TAGS, values, strict=True))
    uid = f"<fileuid>{entry.uid}</fileuid>" if entry.uid else ""
    head = _named("name", entry.name) + f"<readonly>{_truth(entry.read_only)}</readonly>" + stamps + uid
    return head + _xattrs(entry.xattrs)


def _xattrs(xattrs: dict[str, bytes]) -> str:
    if not xattrs:
        return ""
    pairs = "".join(f"<xattr>{_named('key', key)}{_value(value)}</xattr>" for key, value in xattrs.items())
    return f"<extendedattributes>{pairs}</extendedattributes>"


def _value(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    # XML ends lines in its own way: a text with a carriage return would come back as another.
    if text is not None and _PLAIN.fullmatch(text) and "\r" not in text:
        return f"<value>{escape(text)}</value>"
    return f'<value type="base64">{base64.b64encode(value).decode("ascii")}</value>'


def _extent(extent: Extent) -> str:
    return (
        f"<extent><fileoffset>{extent.file_offset}</fileoffset>{_pointer(extent.start)}"
        f"<byteoffset>{extent.byte_offset}</byteoffset><bytecount>{extent.byte_count}</bytecount></extent>"
    )


def _named(tag: str, text: str) -> str:
    written, percent = names.encoded(text)
    return f'<{tag} percentencoded="true">{written}</{tag}>' if percent else f"<{tag}>{escape(written)}</{tag}>"


def _pointer(pointer: Pointer) -> str:
    return f"<partition>{pointer.partition}</partition><startblock>{pointer.block}</startblock>"


def _truth(value: bool) -> str:
    return "true" if value else "false"
